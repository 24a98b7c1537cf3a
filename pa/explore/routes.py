"""HTTP routes: each checks its parameters, makes one call and returns the result.

Objects are addressed by the id of a gallery and the number of a row, an image or a column.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Depends, Request, Response

from pa.data.version import __version__
from pa.errors import UsageError
from pa.explore import limits, schema
from pa.explore.answers import Answer, Answers, Encoders, search_command
from pa.explore.browsing import ImagePage
from pa.explore.error_responses import RESPONSES, UPLOAD_RESPONSES
from pa.explore.limits import Limiters
from pa.explore.pictures import Pictures
from pa.explore.schema import ColumnIds, RowId
from pa.explore.stores import Gallery, OpenStores
from pa.extract.image_query import ImageQuery
from pa.workspace import Workspace

PICTURE_CACHE = "private, max-age=3600"  # the id of a gallery contains a digest of its rows
UPLOAD_SECONDS = 60.0  # 4 Mbit/s for the largest image

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """The objects that answer requests, one of each per server."""

    workspace: Workspace
    stores: OpenStores
    pictures: Pictures
    answers: Answers
    limiters: Limiters = field(default_factory=Limiters)

    @classmethod
    def of(
        cls, workspace: Workspace, device: str | None, checkpoints: Sequence[Path] = ()
    ) -> Services:
        """Return the services of a workspace; `device` and `checkpoints` encode uploads."""
        stores, pictures = OpenStores(workspace.config), Pictures(workspace.config)
        encoders = Encoders(workspace, device, checkpoints)
        return cls(workspace, stores, pictures, Answers(stores, pictures, encoders))


@dataclass(frozen=True)
class GalleryRequest:
    """A request to one gallery. Its methods open the gallery in a thread: this may read files."""

    http: Request
    gallery_id: str

    @property
    def services(self) -> Services:
        services: Services = self.http.app.state.services
        return services

    def _open(self) -> Gallery:
        return self.services.stores.get(self.gallery_id)

    async def read(self, work: Callable[[Gallery], T]) -> T:
        """Run a function that reads only tables."""
        return await self.services.limiters.tables.run(lambda: work(self._open()))

    async def search(self, work: Callable[[Gallery], T]) -> T:
        """Run a function that searches or draws."""
        return await self.services.limiters.searches.run(lambda: work(self._open()))

    async def picture(self, cut: Callable[[Gallery], bytes]) -> schema.Jpeg:
        """Run a function that cuts a picture."""
        data = await self.services.limiters.pictures.run(lambda: cut(self._open()))
        return schema.Jpeg(data, headers={"Cache-Control": PICTURE_CACHE})

    async def upload(self, query: schema.ImageBox, work: Callable[[Gallery, ImageQuery], T]) -> T:
        """Receive an image once memory for it is free, decode it and run a function with it."""
        name, box = query
        async with self.services.limiters.bodies.turn():
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    size = self.http.headers.get("content-length")
                    data = await limits.receive(self.http.stream(), size)
            except TimeoutError:
                raise UsageError(f"the image did not arrive within {UPLOAD_SECONDS:g} s.") from None
            return await self.services.limiters.uploads.run(
                lambda: work(self._open(), ImageQuery(name, limits.decode(data, name), box))
            )


async def _gallery_request(http: Request, gallery: schema.GalleryId) -> GalleryRequest:
    return GalleryRequest(http, gallery)


InGallery = Annotated[GalleryRequest, Depends(_gallery_request)]
workspace_router = APIRouter(prefix="/api", responses=RESPONSES)
router = APIRouter(prefix="/api/galleries/{gallery}", responses=RESPONSES)


# -- tables -----------------------------------------------------------------------------------


@workspace_router.get("/workspace")
async def workspace(http: Request) -> schema.WorkspaceInfo:
    """Every gallery of the workspace; the first is the one to begin with."""
    services: Services = http.app.state.services

    def describe() -> schema.WorkspaceInfo:
        opened, faults = services.stores.all()
        infos = [schema.gallery_info(services.stores, gallery) for gallery in opened]
        return schema.WorkspaceInfo(__version__, str(services.workspace.path), infos, faults)

    return await services.limiters.tables.run(describe)


@router.get("/images")
async def images(
    request: InGallery,
    text: schema.SearchText = "",
    offset: schema.Offset = 0,
    limit: schema.ListLimit = 100,
) -> ImagePage:
    """The images whose path, label or parts contain every word; a number is also a row id."""
    return await request.read(lambda gallery: gallery.browser.find(text, offset, limit))


@router.get("/random")
async def random_row(request: InGallery, response: Response) -> schema.RandomRow:
    """A row of a readable image, each with equal probability."""
    response.headers["Cache-Control"] = "no-store"
    generator = np.random.default_rng()
    return schema.RandomRow(await request.read(lambda g: g.browser.random_row(generator)))


@router.get("/rows/{row}")
async def row_info(request: InGallery, row: RowId) -> schema.RowInfo:
    """A row, its image, and all regions of that image."""

    def describe(gallery: Gallery) -> schema.RowInfo:
        image = gallery.browser.image_of_row(row)
        bad = gallery.browser.reason_bad(image.image)
        pictures = request.services.pictures
        return schema.RowInfo(
            row=row,
            image=image.image,
            path=image.path,
            image_label=image.label,
            size=None if bad else pictures.size(gallery.any, image.first_row),
            bad=bad,
            regions=gallery.browser.regions(image),
        )

    return await request.read(describe)


# -- pictures ---------------------------------------------------------------------------------


@router.get("/images/{image}/thumbnail", responses=schema.JPEG, response_class=Response)
async def thumbnail(request: InGallery, image: schema.ImageId) -> schema.Jpeg:
    """A whole image as a thumbnail."""
    cut = request.services.pictures.thumbnail
    return await request.picture(lambda g: cut(g.any, g.browser.image(image).first_row))


@router.get("/images/{image}/canvas", responses=schema.JPEG, response_class=Response)
async def canvas(request: InGallery, image: schema.ImageId) -> schema.Jpeg:
    """The whole image that boxes refer to, reduced if its longest side exceeds 1024 pixels."""
    cut = request.services.pictures.canvas
    return await request.picture(lambda g: cut(g.any, g.browser.image(image).first_row))


@router.get("/rows/{row}/region", responses=schema.JPEG, response_class=Response)
async def region(request: InGallery, row: RowId) -> schema.Jpeg:
    """The region of a row, a square of 112 pixels."""

    def cut(gallery: Gallery) -> bytes:
        gallery.browser.image_of_row(row)  # raises if the row does not exist
        return request.services.pictures.region(gallery.any, row)

    return await request.picture(cut)


# -- searches for a row -----------------------------------------------------------------------


@router.get("/rows/{row}/neighbours")
async def neighbours(
    request: InGallery, row: RowId, column: schema.ColumnId, options: schema.RowSearchOptions
) -> Answer:
    """The nearest regions of a row in one column, as by `pa search --query-id`."""
    search = request.services.answers.neighbours
    return await request.search(lambda g: search(g, g.column(column), row, options))


@router.get("/rows/{row}/figure", responses=schema.FIGURE, response_class=Response)
async def figure(
    request: InGallery,
    row: RowId,
    columns: ColumnIds,
    options: schema.RowSearchOptions,
    suffix: schema.Suffix = "png",
) -> Response:
    """The figure that `pa search --figure` draws of these columns."""
    draw = request.services.answers.figure
    data = await request.search(lambda g: draw(g.select(columns), row, options, suffix))
    return schema.attachment(data, f"query-{row}", suffix)


@router.get("/rows/{row}/command")
async def command(
    request: InGallery, row: RowId, columns: ColumnIds, options: schema.RowSearchOptions
) -> schema.Command:
    """The `pa search` command, or one per line, with the same results."""

    def describe(gallery: Gallery) -> str:
        gallery.browser.image_of_row(row)  # raises if the row does not exist
        return search_command(request.services.workspace, gallery.select(columns), row, options)

    return schema.Command(await request.read(describe))


# -- searches for an uploaded image -----------------------------------------------------------


@router.post("/own/neighbours", responses=UPLOAD_RESPONSES, openapi_extra=schema.UPLOAD)
async def upload_neighbours(
    request: InGallery,
    query: schema.ImageBoxQuery,
    columns: ColumnIds,
    options: schema.UploadSearchOptions,
) -> list[Answer]:
    """The nearest regions of a box in the uploaded image, as by `pa search --image`."""
    search = request.services.answers.neighbours
    return await request.upload(
        query,
        lambda g, upload: [search(g, column, upload, options) for column in g.select(columns)],
    )


@router.post(
    "/own/figure",
    responses={**UPLOAD_RESPONSES, **schema.FIGURE},
    response_class=Response,
    openapi_extra=schema.UPLOAD,
)
async def upload_figure(
    request: InGallery,
    query: schema.ImageBoxQuery,
    columns: ColumnIds,
    options: schema.UploadSearchOptions,
    suffix: schema.Suffix = "png",
) -> Response:
    """The figure that `pa search --image --figure` draws."""
    draw = request.services.answers.figure
    data = await request.upload(
        query, lambda g, upload: draw(g.select(columns), upload, options, suffix)
    )
    return schema.attachment(data, "query-own", suffix)


@router.get("/own/command")
async def upload_command(
    request: InGallery,
    query: schema.ImageBoxQuery,
    columns: ColumnIds,
    options: schema.UploadSearchOptions,
) -> schema.Command:
    """The `pa search --image` command, or one per line, with the same results."""
    work = request.services.workspace
    return schema.Command(
        await request.read(lambda g: search_command(work, g.select(columns), query, options))
    )
