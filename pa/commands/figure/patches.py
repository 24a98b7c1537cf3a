"""The searches of `pa figure neighbours` and `pa figure projected`, drawn as one figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pa.commands.figure import patch_queries
from pa.commands.figure.patch_search import PatchSearch
from pa.commands.figure.patch_stores import select_stores

if TYPE_CHECKING:
    from pa.figures.record import FigureOutput, WrittenFigure
    from pa.index.search import SearchResult
    from pa.workspace import Workspace


def draw_searches(
    workspace: Workspace,
    kind: str,
    patches: PatchSearch,
    representations: Sequence[str],
    output: FigureOutput,
    *,
    needs: str | None = None,
    across: int,
    describe: Callable[[str], tuple[str, str]],
) -> WrittenFigure:
    """Search for every query in every store, and draw the answers.

    `needs` is a representation that all stores must have; `describe` returns the title of the
    figure and the first sentence of its caption from the names of the encoders.
    """
    from pa.data.crops import Crops
    from pa.figures.names import listed, representation_title, title_of_store
    from pa.figures.patches import Panel, write_patches

    stores = select_stores(workspace, patches, needs)
    queries = patches.queries or patch_queries.default_queries(workspace, stores[0], patches)
    named = tuple(name for name in representations if name != needs)  # as given by --representation
    patches = replace(patches, queries=queries, representations=named)
    answers = [
        workspace.search(
            stores,
            patch_queries.query_row(stores[0], query),
            k=patches.k,
            representations=representations,
            exclude_same_image=patches.exclude_same_image,
        )
        for query in queries
    ]
    titles = {store.encoder: title_of_store(store.spec.to_json()) for store in stores}

    def panel_title(result: SearchResult) -> str:
        name = titles[result.encoder]
        single = len(set(representations)) == 1  # then the caption names it
        return name if single else f"{name}, {representation_title(result.representation)}"

    crops = Crops(stores[0], patches.root)  # all stores have the same regions
    title, sentence = describe(listed(titles.values()))
    return write_patches(
        kind,
        stores,
        [
            [Panel(panel_title(result), result, crops) for _, result in of_query]
            for of_query in answers
        ],
        title=title,
        sentence=sentence,
        note=patch_queries.note(workspace, stores[0], [of[0][1].query.row for of in answers]),
        options=patches.words(stores),
        across=patches.across or across,
        exclude_same_image=patches.exclude_same_image,
        output=output,
        figures=workspace.config.figures,
        progress=workspace.progress,
    )
