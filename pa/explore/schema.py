"""Parameters and JSON objects of the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Response
from pydantic import Field

from pa.data.schema import Box
from pa.data.store.find import protocol
from pa.explore.answers import SearchOptions
from pa.explore.browsing import Region
from pa.explore.error_responses import Responses
from pa.explore.stores import Gallery, OpenStores

MAX_K = 1000  # also the limit of the input field of the page
MAX_LISTED = 500  # images of one response
MAX_ID = 2**53  # JavaScript represents integers exactly up to here

# -- parameters -------------------------------------------------------------------------------

_NUMBER = "a whole number from 0"
_COLUMN = r"^[0-9a-f]{16}\.\w{1,64}$"  # short fingerprint and representation
_DECIMAL = r"\d{1,6}(\.\d{1,15})?"
GalleryId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,300}$", description="Id of a gallery.")]
RowId = Annotated[int, Path(ge=0, le=MAX_ID, description=f"Id of a row: {_NUMBER}.")]
ImageId = Annotated[int, Path(ge=0, le=MAX_ID, description=f"Number of an image: {_NUMBER}.")]
ColumnId = Annotated[str, Query(pattern=_COLUMN, description="Id of a column.")]
ColumnIds = Annotated[
    list[Annotated[str, Query(pattern=_COLUMN)]],
    Query(alias="column", min_length=1, max_length=32, description="Ids of columns."),
]
SearchText = Annotated[str, Query(max_length=200, description="Words of path or label.")]
Offset = Annotated[int, Query(ge=0, le=MAX_ID)]
ListLimit = Annotated[int, Query(ge=1, le=MAX_LISTED)]
K = Annotated[int, Query(ge=1, le=MAX_K, description="Number of neighbours.")]
IncludeSelf = Annotated[bool, Query(description="Include the query in its neighbours.")]
ExcludeImage = Annotated[bool, Query(description="Exclude the image of the query.")]
Suffix = Annotated[Literal["png", "pdf", "svg"], Query(description="File format.")]
_CORNERS = rf"^{_DECIMAL}(,{_DECIMAL}){{3}}$"
BoxText = Annotated[
    str, Query(pattern=_CORNERS, description="x0,y0,x1,y1 in pixels of the upright image.")
]
ImageName = Annotated[str, Query(min_length=1, max_length=300, description="Name of the image.")]
ImageBox = tuple[str, Box]  # name of an uploaded image, and a box in it


async def _image_box(name: ImageName, box: BoxText) -> ImageBox:
    x0, y0, x1, y1 = map(float, box.split(","))
    return name, (x0, y0, x1, y1)


async def _row_options(
    k: K = 24, include_self: IncludeSelf = False, exclude_same_image: ExcludeImage = False
) -> SearchOptions:
    return SearchOptions(k, include_self, exclude_same_image)


async def _upload_options(k: K = 24, exclude_same_image: ExcludeImage = False) -> SearchOptions:
    return SearchOptions(k, exclude_same_image=exclude_same_image)


ImageBoxQuery = Annotated[ImageBox, Depends(_image_box)]
RowSearchOptions = Annotated[SearchOptions, Depends(_row_options)]
UploadSearchOptions = Annotated[SearchOptions, Depends(_upload_options)]


# -- JSON objects -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnInfo:
    """One representation of one encoder."""

    id: str
    encoder: str
    representation: str
    width: int  # of its vectors
    store: str
    indexed: bool
    command: str  # builds the index


@dataclass(frozen=True)
class Unfinished:
    """An incomplete store, and the command that completes it."""

    encoder: str
    store: str
    command: str


@dataclass(frozen=True)
class GalleryInfo:
    """Stores of the same regions."""

    id: str
    dataset: str
    split: str
    view: str
    protocol: str | None  # of view `parts`
    limit: int | None  # number of images that were encoded; None for all
    n_rows: int
    n_images: int
    columns: list[ColumnInfo]
    unfinished: list[Unfinished]


@dataclass(frozen=True)
class WorkspaceInfo:
    """The galleries of a workspace."""

    version: str
    workspace: str
    gallery_infos: Annotated[list[GalleryInfo], Field(serialization_alias="galleries")]
    faults: list[str]  # errors of stores that cannot be opened


@dataclass(frozen=True)
class RowInfo:
    """A row, its image, and all regions of the image."""

    row: int
    image: int
    path: str
    image_label: str | None
    size: tuple[int, int] | None  # of the canvas that boxes refer to; None if it is unreadable
    bad: str | None  # why the image could not be decoded at extraction
    regions: list[Region]


@dataclass(frozen=True)
class RandomRow:
    row: int


@dataclass(frozen=True)
class Command:
    command: str


def gallery_info(stores: OpenStores, gallery: Gallery) -> GalleryInfo:
    """Describe a gallery, its columns and its unfinished stores."""
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
                indexed=stores.is_indexed(column),
                command=stores.index_command(column),
            )
            for column in gallery.columns.values()
        ],
        unfinished=[
            Unfinished(store.encoder, store.title, store.command) for store in gallery.unfinished
        ],
    )


# -- files ------------------------------------------------------------------------------------


class Jpeg(Response):
    media_type = "image/jpeg"


MEDIA_TYPES = {"png": "image/png", "pdf": "application/pdf", "svg": "image/svg+xml"}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
JPEG: Responses = {200: {"content": {"image/jpeg": _BYTES}}}
FIGURE: Responses = {200: {"content": dict.fromkeys(MEDIA_TYPES.values(), _BYTES)}}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file: JPEG, PNG, WebP, GIF or BMP.",
        "content": {"application/octet-stream": _BYTES},
    }
}


def attachment(data: bytes, name: str, suffix: str) -> Response:
    """Return a file that the browser saves as `name.suffix`."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{suffix}"'}
    return Response(data, media_type=MEDIA_TYPES[suffix], headers=headers)
