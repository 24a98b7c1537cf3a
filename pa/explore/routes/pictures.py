"""Pictures of images and regions, cut on demand."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from pa.explore.error_responses import RESPONSES
from pa.explore.schema import JPEG, GalleryId, ImageId, Jpeg, RowId
from pa.explore.services import Services
from pa.explore.stores import Gallery

# Pictures are named by ids that hold a digest of the rows, so they may be kept for a while.
KEPT = "private, max-age=3600"


def router(services: Services) -> APIRouter:
    api = APIRouter(prefix="/api/galleries/{gallery}", responses=RESPONSES)
    pictures = services.pictures

    async def cut(gallery: str, work: Callable[[Gallery], bytes]) -> Jpeg:
        data = await services.limiters.pictures.run(lambda: work(services.galleries.get(gallery)))
        return Jpeg(data, headers={"Cache-Control": KEPT})

    @api.get("/images/{image}/thumbnail", responses=JPEG, response_class=Response)
    async def thumbnail(gallery: GalleryId, image: ImageId) -> Jpeg:
        """A whole image, small."""
        return await cut(
            gallery, lambda g: pictures.thumbnail(g.any, g.browser.image(image).first_row)
        )

    @api.get("/images/{image}/canvas", responses=JPEG, response_class=Response)
    async def canvas(gallery: GalleryId, image: ImageId) -> Jpeg:
        """A whole image as the boxes lie on it, smaller where its longest side is above 1024."""
        return await cut(
            gallery, lambda g: pictures.canvas(g.any, g.browser.image(image).first_row)
        )

    @api.get("/rows/{row}/region", responses=JPEG, response_class=Response)
    async def region(gallery: GalleryId, row: RowId) -> Jpeg:
        """A row's region, a square of 112 pixels."""

        def work(found: Gallery) -> bytes:
            found.browser.image_of_row(row)
            return pictures.region(found.any, row)

        return await cut(gallery, work)

    return api
