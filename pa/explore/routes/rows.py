"""What there is to look at: galleries, their images, their rows."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response

from pa import __version__
from pa.explore.browsing import ImagePage
from pa.explore.error_responses import RESPONSES
from pa.explore.schema import (
    MOST_LISTED,
    GalleryId,
    RandomRow,
    RowId,
    RowInfo,
    Workspace,
    gallery_info,
)
from pa.explore.services import Services
from pa.explore.stores import Gallery


def router(services: Services) -> APIRouter:
    api = APIRouter(prefix="/api", responses=RESPONSES)

    @api.get("/workspace", response_model=Workspace)
    async def workspace() -> Workspace:
        """Every gallery of the workspace; the first is the one to begin with."""

        def look() -> Workspace:
            found, faults = services.galleries.all()
            listed = [gallery_info(services.galleries, gallery) for gallery in found]
            return Workspace(__version__, str(services.workspace.path), listed, faults)

        return await services.limiters.tables.run(look)

    @api.get("/galleries/{gallery}/images", response_model=ImagePage)
    async def images(
        gallery: GalleryId,
        text: Annotated[str, Query(max_length=200, description="Words of path or label.")] = "",
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    ) -> ImagePage:
        """The images whose path, label or parts hold every word; a number is a row's id too."""
        return await services.look_up(gallery, lambda g: g.browser.find(text, offset, limit))

    @api.get("/galleries/{gallery}/random", response_model=RandomRow)
    async def random_row(gallery: GalleryId, response: Response) -> RandomRow:
        """A row of a readable image, each with equal chance."""
        response.headers["Cache-Control"] = "no-store"
        return await services.look_up(
            gallery, lambda g: RandomRow(g.browser.random_row(np.random.default_rng()))
        )

    @api.get("/galleries/{gallery}/rows/{row}", response_model=RowInfo)
    async def row_info(gallery: GalleryId, row: RowId) -> RowInfo:
        """A row, its image, and all regions of that image."""
        return await services.look_up(gallery, lambda found: _row_info(services, found, row))

    return api


def _row_info(services: Services, gallery: Gallery, row: int) -> RowInfo:
    image = gallery.browser.image_of_row(row)
    bad = gallery.browser.reason_bad(image.image)
    return RowInfo(
        row=row,
        image=image.image,
        path=image.path,
        image_label=image.label,
        size=None if bad else services.pictures.size(gallery.any, image.first_row),
        bad=bad,
        regions=gallery.browser.regions(image),
    )
