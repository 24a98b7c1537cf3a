"""The routes for an image of one's own: it comes with the request and goes with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from pa.config import Config
from pa.errors import UsageError
from pa.explore import uploads
from pa.explore.answers import Answer, Answers, Asked, search_command
from pa.explore.galleries import Galleries, Gallery
from pa.explore.gate import Gates
from pa.explore.own import OwnImage
from pa.explore.problems import RESPONSES, UPLOAD_RESPONSES
from pa.explore.schema import (
    FIGURE,
    UPLOAD,
    BoxText,
    ColumnIds,
    Command,
    ExcludeImage,
    GalleryId,
    ImageName,
    K,
    Suffix,
    columns_of,
    file,
)

UPLOAD_SECONDS = 120.0


def own_router(config: Config, galleries: Galleries, answers: Answers, gates: Gates) -> APIRouter:
    """The routes below /api/galleries/{gallery}/own."""
    api = APIRouter(prefix="/api/galleries/{gallery}/own", responses=RESPONSES)

    async def received(request: Request, name: str, box: str) -> Callable[[], OwnImage]:
        """The body of a request; decoding it is work for a thread."""
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                data = await uploads.receive(
                    request.stream(), request.headers.get("content-length")
                )
        except TimeoutError:
            raise UsageError(f"the image did not arrive within {UPLOAD_SECONDS:g} s.") from None
        x0, y0, x1, y1 = (float(value) for value in box.split(","))
        return lambda: OwnImage(name, uploads.decode(data, name), (x0, y0, x1, y1))

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
        k: K = 24,
        exclude_same_image: ExcludeImage = False,
    ) -> list[Answer]:
        """The nearest regions of a box in the image that is sent, as `pa search --image` does."""
        own = await received(request, name, box)
        asked = Asked(k, exclude_same_image=exclude_same_image)

        def find() -> list[Answer]:
            found = galleries.get(gallery)
            chosen = columns_of(found, columns)
            query = own()
            return [answers.neighbours(found, column, query, asked) for column in chosen]

        return await gates.uploads.run(find)

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
        k: K = 24,
        exclude_same_image: ExcludeImage = False,
        suffix: Suffix = "png",
    ) -> Response:
        """The figure that `pa search --image --figure` draws."""
        own = await received(request, name, box)
        asked = Asked(k, exclude_same_image=exclude_same_image)

        def draw() -> bytes:
            chosen = columns_of(galleries.get(gallery), columns)
            return answers.figure(chosen, own(), asked, suffix)

        return file(await gates.uploads.run(draw), "query-own", suffix)

    @api.get("/command", response_model=Command)
    async def own_command(
        gallery: GalleryId,
        name: ImageName,
        box: BoxText,
        columns: ColumnIds,
        k: K = 24,
        exclude_same_image: ExcludeImage = False,
    ) -> Command:
        """The `pa search --image` command, or one per line, that asks the same."""
        asked = Asked(k, exclude_same_image=exclude_same_image)
        x0, y0, x1, y1 = (float(value) for value in box.split(","))

        def say(found: Gallery) -> Command:
            query = (name, (x0, y0, x1, y1))
            return Command(search_command(config, columns_of(found, columns), query, asked))

        return await gates.tables.run(lambda: say(galleries.get(gallery)))

    return api
