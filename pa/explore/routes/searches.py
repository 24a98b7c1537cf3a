"""Neighbours of a row, the figure of them, and the command that asks the same."""

from __future__ import annotations

from fastapi import APIRouter, Response

from pa.explore.answers import Answer, search_command
from pa.explore.error_responses import RESPONSES
from pa.explore.schema import (
    FIGURE,
    ColumnId,
    ColumnIds,
    Command,
    GalleryId,
    RowId,
    RowSearchOptions,
    Suffix,
    columns_of,
    file,
)
from pa.explore.services import Services
from pa.explore.stores import Gallery


def router(services: Services) -> APIRouter:
    api = APIRouter(prefix="/api/galleries/{gallery}/rows/{row}", responses=RESPONSES)

    @api.get("/neighbours", response_model=Answer)
    async def neighbours(
        gallery: GalleryId, row: RowId, column: ColumnId, options: RowSearchOptions
    ) -> Answer:
        """The nearest regions of a row in one column, as `pa search --query-id` finds them."""

        def find() -> Answer:
            found = services.galleries.get(gallery)
            return services.answers.neighbours(found, found.column(column), row, options)

        return await services.limiters.searches.run(find)

    @api.get("/figure", responses=FIGURE, response_class=Response)
    async def figure(
        gallery: GalleryId,
        row: RowId,
        columns: ColumnIds,
        options: RowSearchOptions,
        suffix: Suffix = "png",
    ) -> Response:
        """The figure that `pa search --figure` draws of these columns."""

        def draw() -> bytes:
            chosen = columns_of(services.galleries.get(gallery), columns)
            return services.answers.figure(chosen, row, options, suffix)

        return file(await services.limiters.searches.run(draw), f"query-{row}", suffix)

    @api.get("/command", response_model=Command)
    async def command(
        gallery: GalleryId, row: RowId, columns: ColumnIds, options: RowSearchOptions
    ) -> Command:
        """The `pa search` command, or one per line, that asks the same."""

        def say(found: Gallery) -> Command:
            found.browser.image_of_row(row)
            chosen = columns_of(found, columns)
            return Command(search_command(services.workspace, chosen, row, options))

        return await services.look_up(gallery, say)

    return api
