"""`pa figure neighbours` and `projected`: one query, several answers; see `pa.figures`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pa.config import Config
from pa.data.datasets.imagenet import readable_label
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.evaluate.results import StoreReference
from pa.figures.names import listed, representation_title, title_of, title_of_store
from pa.figures.record import FigureRecord, WrittenFigure
from pa.progress import Progress
from pa.tasks.figure_queries import (
    RELEASED_QUERIES,
    completed,
    has_default_queries,
    query_row,
    released_row,
)
from pa.tasks.figure_stores import PatchesRequest, choose_stores
from pa.tasks.search import SearchRequest, search

if TYPE_CHECKING:
    from pa.figures.patches import Panel
    from pa.index.search import SearchResult

PAPER_MODEL = "ViT-B/16, 768 wide"
TALLEST = 9.5  # inches of a page without its margins

Answers = list[tuple[Store, "SearchResult"]]


def figure_neighbours(config: Config, request: PatchesRequest, progress: Progress) -> WrittenFigure:
    """Draw the nearest regions of the same query by several encoders (Figures 2, 7 and 8).

    Indexes that are missing are built. Raises `MissingError` with the command that makes a store
    where one is missing, and what `pa.tasks.search.search` raises.
    """
    chosen = choose_stores(config, request)
    representations = request.representations or (config.settings.representation,)
    request = completed(config, request, chosen[0], representations, progress)
    answers = _answers(config, request, chosen, representations, progress)
    one = len(set(representations)) == 1
    titles = _titles(chosen)
    encoders = listed(titles.values())
    vectors = listed(representation_title(name) for name in representations)
    return _draw(
        config,
        request,
        "neighbours",
        answers,
        lambda result: titles[result.encoder] if one else _both(titles, result),
        title=f"Top-{request.k} neighbours of the same patch by {encoders}",
        told=f"Top-{request.k} patch retrieval with {encoders} ({vectors}).",
        across=request.across or 1,
        progress=progress,
    )


def figure_projected(config: Config, request: PatchesRequest, progress: Progress) -> WrittenFigure:
    """Draw the nearest regions of a query by encoded and by projected vectors (Figure 4).

    `request.representations` is the encoded one. Raises what `figure_neighbours` raises, and
    `UsageError` for an encoder whose store has no projected vectors.
    """
    encoded = request.representations or (config.settings.representation,)
    if len(encoded) != 1 or encoded[0] == "projected":
        raise UsageError(
            f"--representation is the encoded vector that stands beside the projected one: cls or "
            f"pooled, not {', '.join(encoded)}."
        )
    chosen = choose_stores(config, request, needs="projected")
    request = completed(config, request, chosen[0], encoded, progress)
    answers = _answers(config, request, chosen, (*encoded, "projected"), progress)
    titles = _titles(chosen)
    encoders = listed(titles.values())
    vector = representation_title(encoded[0])
    return _draw(
        config,
        request,
        "projected",
        answers,
        lambda result: _both(titles, result),
        title=f"Encoded against projected: top-{request.k} neighbours by {encoders}",
        told=f"Patch retrieval with encoded (left: {vector}) and projected vectors of {encoders}.",
        across=request.across or 2,
        progress=progress,
    )


def _titles(chosen: Sequence[Store]) -> dict[str, str]:
    return {store.encoder: title_of_store(store.spec.to_json()) for store in chosen}


def _both(titles: Mapping[str, str], result: SearchResult) -> str:
    return f"{titles[result.encoder]}, {representation_title(result.representation)}"


def _answers(
    config: Config,
    request: PatchesRequest,
    chosen: Sequence[Store],
    representations: Sequence[str],
    progress: Progress,
) -> list[Answers]:
    """For each query, the answers of every encoder and representation."""
    rows = [query_row(chosen[0], query) for query in request.queries]
    return [
        [
            answer
            for store in chosen
            for answer in search(
                config,
                SearchRequest(
                    query_id=row,
                    k=request.k,
                    encoders=(store.encoder,),
                    representations=tuple(representations),
                    store=store.fingerprint,
                    exclude_same_image=request.exclude_same_image,
                ),
                progress,
            )
        ]
        for row in rows
    ]


def _draw(
    config: Config,
    request: PatchesRequest,
    kind: str,
    answers: Sequence[Answers],
    titled: Callable[[SearchResult], str],
    *,
    title: str,
    told: str,
    across: int,
    progress: Progress,
) -> WrittenFigure:
    from pa.data.crops import Crops
    from pa.figures.patches import Panel, draw

    chosen = list({store.path: store for store, _ in answers[0]}.values())
    crops = Crops(chosen[0], request.root)
    sections: list[list[Panel]] = [
        [Panel(titled(result), result, crops) for _, result in of_query] for of_query in answers
    ]
    record = FigureRecord(
        kind=kind,
        name=f"{chosen[0].spec.dataset}-{chosen[0].view}",
        title=title,
        caption=" ".join([told, *_said(config, request, answers, chosen)]),
        command=shlex.join(["pa", "figure", kind, *request.words(chosen)]),
        stores=[asdict(StoreReference.of(store)) for store in chosen],
        protocol={
            "similarity": "cosine",
            "query": "its whole image left out" if request.exclude_same_image else "left out",
            "k": request.k,
        },
        details={
            "models": {store.encoder: _model(store) for store in chosen},
            "answers": [[result.to_json() for _, result in of_query] for of_query in answers],
        },
    )
    paths = record.paths(request.output, config.figures)
    width = request.output.width
    height = draw(sections, paths, width=width, across=across, metadata=record.metadata)
    if height > TALLEST:
        progress.note(
            f"the figure is {height:.1f} inches tall, more than a page: name fewer queries or "
            f"encoders, or stand panels side by side with --across."
        )
    return record.write(paths)


def _said(
    config: Config, request: PatchesRequest, answers: Sequence[Answers], chosen: Sequence[Store]
) -> Iterator[str]:
    """The rest of the caption: the query, where its neighbours are from, and by which models."""
    spec = chosen[0].spec
    images = spec.rows.get("n_images", chosen[0].rows["image"].n_unique())
    where = f"{spec.rows['n']:,} regions of {images:,} images of {spec.dataset}/{spec.split}"
    rules = stores.protocol(chosen[0])
    cut = f"view {chosen[0].view}" + (f", protocol {rules}" if rules else "")
    without = "the regions of its own image" if request.exclude_same_image else "the query itself"
    yield (
        f"The patch in the red box is the query; beside it stand the nearest of {where} ({cut}) by "
        f"cosine, in the order of their rank, row by row, without {without}."
    )
    for number, of_query in enumerate(answers):
        query = of_query[0][1].query
        letter = f"({chr(ord('a') + number % 26)}) " if len(answers) > 1 else ""
        label = f", {readable_label(query.label)}" if query.label else ""
        yield f"{letter}{Path(query.path or '').name}{label}, row {query.row}."
    if has_default_queries(config, chosen[0]):
        released = {released_row(chosen[0], query) for query in RELEASED_QUERIES}
        if others := sum(of_query[0][1].query.row not in released for of_query in answers):
            which = "The query is" if len(answers) == 1 else f"{others} of these queries are"
            yield f"{which} not of the released code."
    approximate = {result.quality for _, result in answers[0]} - {"exact"}
    if approximate:
        yield f"Approximate search: {listed(sorted(approximate))}."
    if any(_model(store) != PAPER_MODEL for store in chosen):
        models = "; ".join(f"{title_of(store.encoder)}: {_model(store)}" for store in chosen)
        yield f"Models other than the paper's: {models}."


def _model(store: Store) -> str:
    from pa.report.deviations import model_name

    return model_name(store.spec.encoder.get("architecture", {}))
