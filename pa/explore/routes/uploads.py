"""Searches for an image of one's own: it comes with the request and goes with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from pa.errors import UsageError
from pa.explore import uploads
from pa.explore.answers import Answer, search_command
from pa.explore.error_responses import RESPONSES, UPLOAD_RESPONSES
from pa.explore.limiter import Limiters
from pa.explore.schema import (
    FIGURE,
    UPLOAD,
    BoxText,
    ColumnIds,
    Command,
    GalleryId,
    ImageName,
    Suffix,
    UploadSearchOptions,
    columns_of,
    file,
)
from pa.explore.services import Services
from pa.explore.stores import Gallery
from pa.explore.uploads import Upload

UPLOAD_SECONDS = 60.0  # 4 Mbit/s for the largest image
T = TypeVar("T")


def router(services: Services) -> APIRouter:
    api = APIRouter(prefix="/api/galleries/{gallery}/own", responses=RESPONSES)

    @api.post(
        "/neighbours",
        response_model=list[Answer],
        responses=UPLOAD_RESPONSES,
        openapi_extra=UPLOAD,
    )
    async def own_neighbours(
        request: Request,
        gallery: GalleryId,
        name: ImageName,
        box: BoxText,
        columns: ColumnIds,
        options: UploadSearchOptions,
    ) -> list[Answer]:
        """The nearest regions of a box in the image that is sent, as `pa search --image` does."""

        def find(own: Upload) -> list[Answer]:
            found = services.galleries.get(gallery)
            chosen = columns_of(found, columns)
            return [services.answers.neighbours(found, column, own, options) for column in chosen]

        return await _with_image(services.limiters, request, name, box, find)

    @api.post(
        "/figure",
        responses={**UPLOAD_RESPONSES, **FIGURE},
        response_class=Response,
        openapi_extra=UPLOAD,
    )
    async def own_figure(
        request: Request,
        gallery: GalleryId,
        name: ImageName,
        box: BoxText,
        columns: ColumnIds,
        options: UploadSearchOptions,
        suffix: Suffix = "png",
    ) -> Response:
        """The figure that `pa search --image --figure` draws."""

        def draw(own: Upload) -> bytes:
            chosen = columns_of(services.galleries.get(gallery), columns)
            return services.answers.figure(chosen, own, options, suffix)

        drawn = await _with_image(services.limiters, request, name, box, draw)
        return file(drawn, "query-own", suffix)

    @api.get("/command", response_model=Command)
    async def own_command(
        gallery: GalleryId,
        name: ImageName,
        box: BoxText,
        columns: ColumnIds,
        options: UploadSearchOptions,
    ) -> Command:
        """The `pa search --image` command, or one per line, that asks the same."""

        def say(found: Gallery) -> Command:
            query = name, _corners(box)
            chosen = columns_of(found, columns)
            return Command(search_command(services.workspace, chosen, query, options))

        return await services.look_up(gallery, say)

    return api


async def _with_image(
    limiters: Limiters, request: Request, name: str, box: str, work: Callable[[Upload], T]
) -> T:
    """Receive the image when there is room for it, then decode it and do the work in a thread."""
    async with limiters.bodies.turn():
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                data = await uploads.receive(
                    request.stream(), request.headers.get("content-length")
                )
        except TimeoutError:
            raise UsageError(f"the image did not arrive within {UPLOAD_SECONDS:g} s.") from None
        return await limiters.uploads.run(
            lambda: work(Upload(name, uploads.decode(data, name), _corners(box)))
        )


def _corners(box: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, box.split(","))
    return x0, y0, x1, y1
