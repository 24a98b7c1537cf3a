"""`pa figure neighbours` and `projected`: one query, several answers; see `pa.figures`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from pa.commands.choose import dataset_kind, store_query
from pa.commands.search import SearchRequest, search
from pa.config import Config
from pa.data import stores
from pa.data.store import Store
from pa.errors import AmbiguousError, MissingError, OutOfRangeError, UsageError
from pa.evaluate.results import describe_store
from pa.figures.names import in_order, listed, representation_title, title_of
from pa.figures.plate import Made, Place, Plate, finish
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.figures.patches import Panel
    from pa.index.search import SearchResult

# The queries that the released code draws (pr_patch_retrieval_imagenet_vis.py): image of the
# ImageNet validation set, and window, row by row from 0.
RELEASED_QUERIES = ("val_00013660:19", "val_00018569:39", "val_00001412:16")
PAPER_MODEL = "ViT-B/16, 768 wide"
TALLEST = 9.5  # inches of a page without its margins

Answers = list[tuple[Store, "SearchResult"]]


@dataclass(frozen=True)
class PatchesRequest:
    """What `pa figure neighbours` or `projected` was asked.

    A query is a row id, or NAME:REGION: the region of that number, from 0, of the image whose path
    contains NAME; without any, `examples` are the numbers, from 1, of default ones. No encoders =
    all that have such a store; `stores` are fingerprints, or their beginnings, that choose stores
    in place of all else. None = take it from the settings.
    """

    queries: tuple[str, ...] = ()
    examples: tuple[int, ...] = ()
    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    stores: tuple[str, ...] = ()
    k: int = 24
    across: int | None = None
    exclude_same_image: bool = False
    root: Path | None = None
    place: Place = field(default_factory=Place)

    def words(self, chosen: Sequence[Store]) -> list[str]:
        """The options, as they are typed, that choose these stores again."""
        spec = chosen[0].spec
        words = ["--query", ",".join(self.queries)]
        words += ["--encoder", ",".join(store.encoder for store in chosen)]
        words += ["--representation", ",".join(self.representations)]
        words += ["--dataset", spec.dataset, "--split", spec.split, "--view", chosen[0].view]
        if (rules := stores.protocol(chosen[0])) is not None:
            words += ["--protocol", rules]
        words += ["-k", str(self.k)] if self.k != 24 else []
        words += ["--across", str(self.across)] if self.across else []
        return [*words, *(["--exclude-same-image"] if self.exclude_same_image else [])]


def figure_neighbours(config: Config, request: PatchesRequest, progress: Progress) -> Made:
    """Draw the nearest regions of the same query by several encoders (Figures 2, 7 and 8).

    Indexes that are missing are built. Raises `MissingError` with the command that makes a store
    where one is missing, and what `pa.commands.search.search` raises.
    """
    chosen = _stores(config, request, progress)
    representations = request.representations or (config.settings.representation,)
    request = _completed(config, request, chosen[0], representations, progress)
    answers = _answers(config, request, chosen, representations, progress)
    one = len(set(representations)) == 1
    encoders = listed(title_of(store.encoder) for store in chosen)
    vectors = listed(representation_title(name) for name in representations)
    return _draw(
        config,
        request,
        "neighbours",
        answers,
        lambda result: title_of(result.encoder) if one else _both(result),
        title=f"Top-{request.k} neighbours of the same patch by {encoders}",
        told=f"Top-{request.k} patch retrieval with {encoders} ({vectors}).",
        across=request.across or 1,
        progress=progress,
    )


def figure_projected(config: Config, request: PatchesRequest, progress: Progress) -> Made:
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
    chosen = _stores(config, request, progress, needs="projected")
    request = _completed(config, request, chosen[0], encoded, progress)
    answers = _answers(config, request, chosen, (*encoded, "projected"), progress)
    encoders = listed(title_of(store.encoder) for store in chosen)
    vector = representation_title(encoded[0])
    return _draw(
        config,
        request,
        "projected",
        answers,
        _both,
        title=f"Encoded against projected: top-{request.k} neighbours by {encoders}",
        told=f"Patch retrieval with encoded (left: {vector}) and projected vectors of {encoders}.",
        across=request.across or 2,
        progress=progress,
    )


def _both(result: SearchResult) -> str:
    return f"{title_of(result.encoder)}, {representation_title(result.representation)}"


# -- which stores ----------------------------------------------------------------------------------


def _stores(
    config: Config, request: PatchesRequest, progress: Progress, needs: str | None = None
) -> list[Store]:
    """One store of each encoder, in the paper's order, of the same regions.

    With `needs`, of encoders that were not named only those that keep such vectors.
    """
    by_fingerprint = [stores.StoreQuery(fingerprint=one) for one in request.stores]
    given = ("dataset", "split", "view", "protocol")
    query = store_query(config, **{name: getattr(request, name) for name in given}, encoder=None)
    if by_fingerprint:
        chosen = [stores.choose(config.features, one) for one in by_fingerprint]
    elif request.encoders:
        named = [replace(query, encoder=name) for name in request.encoders]
        chosen = [stores.choose(config.features, one) for one in named]
    else:
        chosen = _all_of_one_place(config, replace(query, encoder=None), needs)
    if needs is not None and (without := [s for s in chosen if needs not in _vectors(s)]):
        raise UsageError(
            f"{without[0].title} keeps no {needs} vectors, only {', '.join(_vectors(without[0]))}. "
            f"Extract them, where the encoder has a projector: --features cls,pooled,{needs} "
            f"--alongside."
        )
    _check_same_regions(chosen)
    return chosen


def _vectors(store: Store) -> list[str]:
    return [name for name, shape in store.spec.representations.items() if len(shape) == 1]


def _all_of_one_place(config: Config, query: stores.StoreQuery, needs: str | None) -> list[Store]:
    """The complete stores of every encoder; view grid goes before others."""
    found = [
        store
        for store in stores.find(config.features, query)
        if store.is_complete and store.view != "windows"
    ]
    if query.view is None and any(store.view == "grid" for store in found):
        found = [store for store in found if store.view == "grid"]
    found = [store for store in found if needs is None or needs in _vectors(store)]
    if not found:
        what = f" with {needs} vectors" if needs else ""
        given = " ".join(f"--{n} {v}" for n, v in vars(query).items() if v is not None)
        features = f" --features pooled,{needs}" if needs else ""
        raise MissingError(
            f"there is no complete store{what}{f' for {given}' if given else ''} in "
            f"{config.features}. Make one for each encoder:\n  pa extract --encoder NAME "
            f"{given or '--dataset imagenet --split val --view grid'}{features}"
        )
    places = {_place(store) for store in found}
    if len(places) > 1:
        lines = "\n".join(f"  {place}" for place in sorted(places))
        raise AmbiguousError(f"stores of {len(places)} kinds fit. Choose one:\n{lines}")
    of_each = in_order(store.encoder for store in found)
    return [
        stores.choose(config.features, replace(query, encoder=name, **_chosen(found[0])))
        for name in of_each
    ]


def _chosen(store: Store) -> dict[str, Any]:
    spec = store.spec
    return {
        "dataset": spec.dataset,
        "split": spec.split,
        "view": store.view,
        "protocol": stores.protocol(store),
    }


def _place(store: Store) -> str:
    return " ".join(f"--{name} {value}" for name, value in _chosen(store).items() if value)


# -- which queries ---------------------------------------------------------------------------------


def _completed(
    config: Config,
    request: PatchesRequest,
    store: Store,
    representations: Sequence[str],
    progress: Progress,
) -> PatchesRequest:
    """With queries: the default ones where none is named."""
    queries = request.queries
    if queries and request.examples:
        raise UsageError("--example chooses among the default queries: not beside --query.")
    if not queries:
        if not _has_default_queries(config, store):
            raise UsageError(
                "which query? Give --query ID, a row id, or --query NAME:REGION, a region of the "
                "image whose path contains NAME; several with commas."
            )
        queries = _default_queries(store, request.examples, progress)
    return replace(request, queries=queries, representations=tuple(representations))


def _has_default_queries(config: Config, store: Store) -> bool:
    return (dataset_kind(config, store.spec.dataset), store.view) == ("imagenet", "grid")


def _default_queries(store: Store, examples: Sequence[int], progress: Progress) -> tuple[str, ...]:
    """The queries of the released code; where an image is not in the store, the middle window of
    another one stands in, and a line says so.

    Those images are spread evenly over the store: the 1st, 2nd and 3rd of 3 at 1/6, 3/6 and 5/6.
    """
    if beyond := [number for number in examples if not 1 <= number <= len(RELEASED_QUERIES)]:
        raise OutOfRangeError(
            f"--example {beyond[0]}: there are {len(RELEASED_QUERIES)} default queries, from 1."
        )
    queries = []
    for number in examples or range(1, len(RELEASED_QUERIES) + 1):
        released = RELEASED_QUERIES[number - 1]
        if _released_row(store, released) is not None:
            queries.append(released)
            continue
        images = store.rows["path"].unique(maintain_order=True)
        path = images[int(len(images) * (2 * number - 1) / (2 * len(RELEASED_QUERIES)))]
        rows = store.rows.filter(pl.col("path") == path)["row"]
        queries.append(str(rows[len(rows) // 2]))
        progress.note(
            f"the image of {released}, a query of the released code, is not in {store.title}: the "
            f"middle of {path}, row {queries[-1]}, stands in. Choose another with --query."
        )
    return tuple(queries)


def _released_row(store: Store, query: str) -> int | None:
    """The row of a query of the released code; None where its image is not in the store."""
    try:
        return query_row(store, query)
    except MissingError:
        return None


def query_row(store: Store, query: str) -> int:
    """The row of a query: a row id, or NAME:REGION with a unique part of an image's path.

    Raises `MissingError` where no image has such a path, `AmbiguousError` where several do,
    `OutOfRangeError` for a region that the image does not have.
    """
    if re.fullmatch(r"\d+", query):
        return int(query)
    name, colon, number = query.rpartition(":")
    if not colon or not number.isdigit() or not name:
        raise UsageError(
            f"--query {query!r}: expected a row id, or NAME:REGION with the number of a region "
            f"from 0, such as val_00013660:19."
        )
    rows = store.rows.filter(pl.col("path").str.contains(name, literal=True))
    paths = rows["path"].unique(maintain_order=True).to_list()
    if not paths:
        raise MissingError(
            f"--query {query}: no image of {store.title} has {name!r} in its path; they are such "
            f"as {store.rows['path'][0]}. Choose another with --query."
        )
    if len(paths) > 1:
        raise AmbiguousError(
            f"--query {query}: {len(paths)} images have {name!r} in their path, such as "
            f"{paths[0]} and {paths[1]}. Give a longer part of one."
        )
    if int(number) >= len(rows):
        raise OutOfRangeError(
            f"--query {query}: {paths[0]} has {len(rows)} regions, 0 to {len(rows) - 1}."
        )
    return int(rows["row"][int(number)])


# -- answers, and the figure -----------------------------------------------------------------------


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
) -> Made:
    from pa.data.crops import Crops
    from pa.figures.patches import Panel, draw

    chosen = list({store.path: store for store, _ in answers[0]}.values())
    crops = Crops(chosen[0], request.root)
    sections: list[list[Panel]] = [
        [Panel(titled(result), result, crops) for _, result in of_query] for of_query in answers
    ]
    plate = Plate(
        kind=kind,
        name=f"{chosen[0].spec.dataset}-{chosen[0].view}",
        title=title,
        caption=" ".join([told, *_said(config, request, answers, chosen)]),
        command=shlex.join(["pa", "figure", kind, *request.words(chosen)]),
        stores=[describe_store(store) for store in chosen],
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
    paths = plate.paths(request.place, config.figures)
    width = request.place.width
    height = draw(sections, paths, width=width, across=across, about=plate.about)
    if height > TALLEST:
        progress.note(
            f"the figure is {height:.1f} inches tall, more than a page: name fewer queries or "
            f"encoders, or stand panels side by side with --across."
        )
    return finish(plate, paths)


def _check_same_regions(chosen: Sequence[Store]) -> None:
    first = chosen[0]
    for other in chosen[1:]:
        if other.spec.rows["sha256"] != first.spec.rows["sha256"]:
            raise UsageError(
                f"{first.title} and {other.title} do not hold the same regions, so one query means "
                f"two things. Extract both from the same split, view and --limit, or name the "
                f"encoders that fit with --encoder."
            )


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
        label = f", {query.label}" if query.label else ""
        yield f"{letter}{Path(query.path or '').name}{label}, row {query.row}."
    if _has_default_queries(config, chosen[0]):
        released = {_released_row(chosen[0], query) for query in RELEASED_QUERIES}
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
    from pa.report.departures import model_name

    return model_name(store.spec.to_json())
