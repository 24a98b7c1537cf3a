"""The routes of the explorer: parameters in, one call, an answer out.

Everything is asked for by the id of a gallery and the number of a row, an image or a column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Response

from pa import __version__
from pa.config import Config
from pa.explore.answers import Answer, Answers, Asked, search_command
from pa.explore.browsing import ImagePage
from pa.explore.galleries import Galleries, Gallery
from pa.explore.gate import Gates
from pa.explore.pictures import Pictures
from pa.explore.problems import RESPONSES
from pa.explore.schema import (
    FIGURE,
    JPEG,
    MOST_LISTED,
    ColumnId,
    ColumnIds,
    Command,
    ExcludeImage,
    GalleryId,
    ImageId,
    IncludeSelf,
    Jpeg,
    K,
    RandomRow,
    RowId,
    RowInfo,
    Suffix,
    Workspace,
    columns_of,
    file,
    gallery_info,
)

T = TypeVar("T")

# Pictures are named by ids that hold a digest of the rows, so they may be kept for a while.
KEPT = "private, max-age=3600"


def router(
    config: Config, galleries: Galleries, pictures: Pictures, answers: Answers, gates: Gates
) -> APIRouter:
    """The routes below /api."""
    api = APIRouter(prefix="/api", responses=RESPONSES)

    async def looked_up(gallery: str, work: Callable[[Gallery], T]) -> T:
        return await gates.tables.run(lambda: work(galleries.get(gallery)))

    async def picture(work: Callable[[], bytes]) -> Jpeg:
        return Jpeg(await gates.pictures.run(work), headers={"Cache-Control": KEPT})

    @api.get("/workspace", response_model=Workspace)
    async def workspace() -> Workspace:
        """Every gallery of the workspace; the first is the one to begin with."""

        def look() -> Workspace:
            found, faults = galleries.all()
            listed = [gallery_info(galleries, gallery) for gallery in found]
            return Workspace(__version__, str(config.workspace), listed, faults)

        return await gates.tables.run(look)

    @api.get("/galleries/{gallery}/images", response_model=ImagePage)
    async def images(
        gallery: GalleryId,
        text: Annotated[str, Query(max_length=200, description="Words of path or label.")] = "",
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    ) -> ImagePage:
        """The images whose path, label or parts hold every word; a number is a row's id too."""
        return await looked_up(gallery, lambda g: g.browser.find(text, offset, limit))

    @api.get("/galleries/{gallery}/random", response_model=RandomRow)
    async def random_row(gallery: GalleryId, response: Response) -> RandomRow:
        """A row of a readable image, each with equal chance."""
        response.headers["Cache-Control"] = "no-store"
        return await looked_up(
            gallery, lambda g: RandomRow(g.browser.random_row(np.random.default_rng()))
        )

    @api.get("/galleries/{gallery}/rows/{row}", response_model=RowInfo)
    async def row_info(gallery: GalleryId, row: RowId) -> RowInfo:
        """A row, its image, and all regions of that image."""

        def look(found: Gallery) -> RowInfo:
            image = found.browser.image_of_row(row)
            bad = found.browser.reason_bad(image.image)
            return RowInfo(
                row=row,
                image=image.image,
                path=image.path,
                image_label=image.label,
                size=None if bad else pictures.size(found.any, image.first_row),
                bad=bad,
                regions=found.browser.regions(image),
            )

        return await looked_up(gallery, look)

    @api.get(
        "/galleries/{gallery}/images/{image}/thumbnail", responses=JPEG, response_class=Response
    )
    async def thumbnail(gallery: GalleryId, image: ImageId) -> Jpeg:
        """A whole image, small."""

        def cut() -> bytes:
            found = galleries.get(gallery)
            return pictures.thumbnail(found.any, found.browser.image(image).first_row)

        return await picture(cut)

    @api.get("/galleries/{gallery}/images/{image}/canvas", responses=JPEG, response_class=Response)
    async def canvas(gallery: GalleryId, image: ImageId) -> Jpeg:
        """A whole image as the boxes lie on it, smaller where its longest side is above 1024."""

        def cut() -> bytes:
            found = galleries.get(gallery)
            return pictures.canvas(found.any, found.browser.image(image).first_row)

        return await picture(cut)

    @api.get("/galleries/{gallery}/rows/{row}/region", responses=JPEG, response_class=Response)
    async def region(gallery: GalleryId, row: RowId) -> Jpeg:
        """A row's region, a square of 112 pixels."""

        def cut() -> bytes:
            found = galleries.get(gallery)
            found.browser.image_of_row(row)
            return pictures.region(found.any, row)

        return await picture(cut)

    @api.get("/galleries/{gallery}/rows/{row}/neighbours", response_model=Answer)
    async def neighbours(
        gallery: GalleryId,
        row: RowId,
        column: ColumnId,
        k: K = 24,
        include_self: IncludeSelf = False,
        exclude_same_image: ExcludeImage = False,
    ) -> Answer:
        """The nearest regions of a row in one column, as `pa search --query-id` finds them."""
        asked = Asked(k, include_self, exclude_same_image)

        def find() -> Answer:
            found = galleries.get(gallery)
            return answers.neighbours(found, found.column(column), row, asked)

        return await gates.searches.run(find)

    @api.get("/galleries/{gallery}/rows/{row}/figure", responses=FIGURE, response_class=Response)
    async def figure(
        gallery: GalleryId,
        row: RowId,
        columns: ColumnIds,
        k: K = 24,
        include_self: IncludeSelf = False,
        exclude_same_image: ExcludeImage = False,
        suffix: Suffix = "png",
    ) -> Response:
        """The figure that `pa search --figure` draws of these columns."""
        asked = Asked(k, include_self, exclude_same_image)

        def draw() -> bytes:
            chosen = columns_of(galleries.get(gallery), columns)
            return answers.figure(chosen, row, asked, suffix)

        return file(await gates.searches.run(draw), f"query-{row}", suffix)

    @api.get("/galleries/{gallery}/rows/{row}/command", response_model=Command)
    async def command(
        gallery: GalleryId,
        row: RowId,
        columns: ColumnIds,
        k: K = 24,
        include_self: IncludeSelf = False,
        exclude_same_image: ExcludeImage = False,
    ) -> Command:
        """The `pa search` command, or one per line, that asks the same."""
        asked = Asked(k, include_self, exclude_same_image)

        def say(found: Gallery) -> Command:
            found.browser.image_of_row(row)
            return Command(search_command(config, columns_of(found, columns), row, asked))

        return await looked_up(gallery, say)

    return api
