"""What is options of the server and what it answers: parameters with their limits, and objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Response

from pa.data.store.find import protocol
from pa.explore.answers import SearchOptions
from pa.explore.browsing import Region
from pa.explore.error_responses import Responses
from pa.explore.stores import Column, Gallery, OpenStores

MOST_K = 1000
MOST_LISTED = 500


# -- what is options -----------------------------------------------------------------------------

_NUMBER = "a whole number from 0"
GalleryId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,300}$", description="Id of a gallery.")]
RowId = Annotated[int, Path(ge=0, le=2**53, description=f"Id of a row: {_NUMBER}.")]
ImageId = Annotated[int, Path(ge=0, le=2**53, description=f"Number of an image: {_NUMBER}.")]
ColumnPattern = r"^[0-9a-f]{16}\.\w{1,64}$"
ColumnId = Annotated[str, Query(pattern=ColumnPattern, description="Id of a column.")]
ColumnIds = Annotated[
    list[Annotated[str, Query(pattern=ColumnPattern)]],
    Query(alias="column", min_length=1, max_length=32, description="Ids of columns."),
]
K = Annotated[int, Query(ge=1, le=MOST_K, description="How many neighbours.")]
IncludeSelf = Annotated[bool, Query(description="Let the query be among its neighbours.")]
ExcludeImage = Annotated[bool, Query(description="Leave out the query's own image.")]
Suffix = Annotated[Literal["png", "pdf", "svg"], Query(description="Kind of file.")]
_DECIMAL = r"\d{1,6}(\.\d{1,15})?"
BoxText = Annotated[
    str,
    Query(
        pattern=rf"^{_DECIMAL}(,{_DECIMAL}){{3}}$",
        description="x0,y0,x1,y1 in pixels of the upright image.",
    ),
]
ImageName = Annotated[str, Query(min_length=1, max_length=300, description="Name of the image.")]


def _asked_of_row(
    k: K = 24, include_self: IncludeSelf = False, exclude_same_image: ExcludeImage = False
) -> SearchOptions:
    return SearchOptions(k, include_self, exclude_same_image)


def _asked_of_own(k: K = 24, exclude_same_image: ExcludeImage = False) -> SearchOptions:
    return SearchOptions(k, exclude_same_image=exclude_same_image)


RowSearchOptions = Annotated[SearchOptions, Depends(_asked_of_row)]
UploadSearchOptions = Annotated[SearchOptions, Depends(_asked_of_own)]


# -- what is answered --------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnInfo:
    """One representation of one encoder; `command` builds its index where there is none."""

    id: str
    encoder: str
    representation: str
    width: int
    store: str
    indexed: bool
    command: str


@dataclass(frozen=True)
class Unfinished:
    """A store that is not complete, and the command that completes it."""

    encoder: str
    store: str
    command: str


@dataclass(frozen=True)
class GalleryInfo:
    """Stores of the same regions. `protocol` is that of view `parts`."""

    id: str
    dataset: str
    split: str
    view: str
    protocol: str | None
    limit: int | None
    n_rows: int
    n_images: int
    columns: list[ColumnInfo]
    unfinished: list[Unfinished]


@dataclass(frozen=True)
class Workspace:
    """What there is to look at; `faults` are of stores that cannot be opened."""

    version: str
    workspace: str
    galleries: list[GalleryInfo]
    faults: list[str]


@dataclass(frozen=True)
class RowInfo:
    """A row, its image, and all regions of the image.

    `size` is width and height of the canvas on which boxes lie; null where the image is not to be
    had. `bad` says why it could not be decoded at extraction.
    """

    row: int
    image: int
    path: str
    image_label: str | None
    size: tuple[int, int] | None
    bad: str | None
    regions: list[Region]


@dataclass(frozen=True)
class RandomRow:
    row: int


@dataclass(frozen=True)
class Command:
    command: str


# -- files -------------------------------------------------------------------------------------


class Jpeg(Response):
    media_type = "image/jpeg"


_BYTES = {"schema": {"type": "string", "format": "binary"}}
JPEG: Responses = {200: {"content": {"image/jpeg": _BYTES}}}
FIGURE: Responses = {
    200: {"content": dict.fromkeys(("image/png", "application/pdf", "image/svg+xml"), _BYTES)}
}
MEDIA = {"png": "image/png", "pdf": "application/pdf", "svg": "image/svg+xml"}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file: JPEG, PNG, WebP, GIF or BMP.",
        "content": {"application/octet-stream": _BYTES},
    }
}


def columns_of(gallery: Gallery, ids: list[str]) -> list[Column]:
    return [gallery.column(id) for id in dict.fromkeys(ids)]


def file(data: bytes, name: str, suffix: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}.{suffix}"'}
    return Response(data, media_type=MEDIA[suffix], headers=headers)


def gallery_info(galleries: OpenStores, gallery: Gallery) -> GalleryInfo:
    spec = gallery.any.spec
    return GalleryInfo(
        id=gallery.id,
        dataset=spec.dataset,
        split=spec.split,
        view=gallery.any.view,
        protocol=protocol(gallery.any),
        limit=spec.limit,
        n_rows=gallery.any.n_rows,
        n_images=int(spec.rows["n_images"]),
        columns=[
            ColumnInfo(
                id=column.id,
                encoder=column.store.encoder,
                representation=column.representation,
                width=column.store.shape(column.representation)[0],
                store=column.store.title,
                indexed=galleries.is_indexed(column),
                command=galleries.index_command(column),
            )
            for column in gallery.columns.values()
        ],
        unfinished=[
            Unfinished(store.encoder, store.title, store.command) for store in gallery.unfinished
        ],
    )
