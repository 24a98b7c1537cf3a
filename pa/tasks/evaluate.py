"""`pa evaluate`: which stores belong in one table, then `pa.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.datasets import DATASETS
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.progress import Progress
from pa.tasks.choose import asked_encoders, choose_store, dataset_kind, device, store_query

if TYPE_CHECKING:
    from pa.evaluate.neighbours_table import Shares, Shift
    from pa.evaluate.retrieval_table import Paired, RetrievalProtocol, Scored

# The retrieval database of the paper's datasets (protocols of the released code): all of CUB, and
# the training images of COCO.
RETRIEVAL_SPLITS = {"cub": "all", "coco": "train2017"}


@dataclass(frozen=True)
class EvaluateRequest:
    """What `pa evaluate` was asked; None = take it from the settings."""

    encoders: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    dataset: str | None = None
    split: str | None = None
    view: str | None = None
    protocol: str | None = None
    store: str | None = None
    target: str = "label"
    include_self: bool | None = None
    layers: str | None = None
    k: int | None = None
    device: str | None = None
    figure: Path | None = None
    hubs: Path | None = None
    root: Path | None = None


@dataclass(frozen=True, eq=False)
class RetrievalTable:
    """Scores, paired differences, and the better of cls and pooled of each encoder."""

    scored: list[Scored]
    paired: list[Paired]
    better: list[Scored]

    def to_json(self) -> dict[str, Any]:
        return {
            "results": [
                {**entry.result.to_json(), "file": str(entry.path)} for entry in self.scored
            ],
            "differences": [
                {**entry.result.to_json(), "name": entry.name, "file": str(entry.path)}
                for entry in self.paired
            ],
            "better_encoded": [
                {
                    "encoder": entry.encoder,
                    "representation": entry.representation,
                    "chosen_on": "the score that is reported",
                }
                for entry in self.better
            ],
        }


def evaluate_retrieval(
    config: Config, request: EvaluateRequest, progress: Progress
) -> RetrievalTable:
    """Average precision of all pairs; see `pa.evaluate.retrieval_table`.

    The protocol is the one given, else `released` where the parts were cut by it, else `paper`.
    """
    from pa.evaluate.retrieval_table import better_encoded, score_stores
    from pa.figures.style import check_suffix

    if request.figure is not None:
        check_suffix(request.figure)
    work = retrieval_work(config, request)
    scored, paired = score_stores(
        work.stores,
        work.representations,
        results=config.results,
        protocol=work.protocol,
        target=request.target,
        device=work.device,
        progress=progress,
    )
    if request.figure is not None:
        from pa.figures.retrieval import draw_depth, draw_scores

        (draw_scores if request.layers is None else draw_depth)(scored, request.figure)
    return RetrievalTable(scored, paired, better_encoded(scored))


@dataclass(frozen=True, eq=False)
class RetrievalWork:
    """What a request comes to. No `representations` = those that each store has."""

    stores: list[Store]
    representations: list[str]
    protocol: RetrievalProtocol
    device: str

    @property
    def pairs(self) -> list[tuple[Store, str]]:
        """Every store with every representation that is scored."""
        from pa.evaluate.rows import default_representations

        return [
            (store, name)
            for store in self.stores
            for name in self.representations or default_representations(store)
        ]


def retrieval_work(config: Config, request: EvaluateRequest) -> RetrievalWork:
    """Look up all that a request names. Raises what `evaluate_retrieval` raises before its work."""
    from pa.evaluate.retrieval_table import RETRIEVAL_PROTOCOLS
    from pa.evaluate.rows import block_representations, check_same_rows, default_representations

    chosen = choose_stores(config, request)
    cut_by = stores.protocol(chosen[0])
    name = request.protocol or (cut_by if cut_by in RETRIEVAL_PROTOCOLS else None) or "paper"
    protocol = RETRIEVAL_PROTOCOLS[name if name in RETRIEVAL_PROTOCOLS or not cut_by else "paper"]
    if request.include_self is not None:
        protocol = replace(protocol, include_self=request.include_self)
    representations = list(dict.fromkeys(request.representations))
    if request.layers is not None:
        blocks = _blocks(request.layers)
        usual = representations or default_representations(chosen[0])
        representations = [*usual, *block_representations(chosen[0], blocks)]
    check_same_rows(chosen)
    place = device(request.device or config.settings.device)
    return RetrievalWork(chosen, representations, protocol, place)


@dataclass(frozen=True, eq=False)
class NeighbourTable:
    """What neighbours are, and how projection moves them."""

    shares: list[Shares]
    shifts: list[Shift]

    def to_json(self) -> dict[str, Any]:
        return {
            "results": [
                {**entry.result.to_json(), "file": str(entry.path)} for entry in self.shares
            ],
            "differences": [
                {
                    "encoder": shift.store.encoder,
                    "name": f"{shift.first} − {shift.second}",
                    "scores": {name: mean.to_json() for name, mean in shift.means.items()},
                    "file": str(shift.path),
                }
                for shift in self.shifts
            ],
        }


def evaluate_neighbours(
    config: Config, request: EvaluateRequest, progress: Progress
) -> NeighbourTable:
    """Part against whole among the nearest neighbours; see `pa.evaluate.neighbours_table`."""
    from pa.evaluate.neighbours_table import measure_stores
    from pa.figures.style import check_suffix

    for path in (request.figure, request.hubs):
        if path is not None:
            check_suffix(path)
    chosen = choose_stores(config, request)
    shares, shifts = measure_stores(
        chosen,
        list(dict.fromkeys(request.representations)),
        request.k,
        results=config.results,
        progress=progress,
    )
    if request.figure is not None:
        from pa.figures.retrieval import draw_shares

        draw_shares(shares, request.figure)
    if request.hubs is not None:
        from pa.data.crops import Crops
        from pa.figures.retrieval import draw_hubs

        crops = [Crops(entry.store, request.root) for entry in shares]
        draw_hubs(shares, crops, request.hubs)
    return NeighbourTable(shares, shifts)


def choose_stores(config: Config, request: EvaluateRequest) -> list[Store]:
    """One store per encoder: by default of view parts, and of the dataset's retrieval split.

    With `layers`, stores that keep vectors of single blocks go before others.
    """
    from pa.evaluate.rows import keeps_blocks

    chosen = []
    for encoder in asked_encoders(config, request.encoders, request.store):
        query = store_query(
            config,
            dataset=request.dataset,
            split=request.split,
            view=request.view,
            protocol=request.protocol,
            encoder=encoder,
            fingerprint=request.store,
        )
        if query.fingerprint is None:
            query = _usual(config, query, request.view)
        blocks = None if request.layers is None else keeps_blocks
        chosen.append(choose_store(config, query, blocks))
    return list({store.path: store for store in chosen}.values())


def _usual(config: Config, query: stores.StoreSelector, view: str | None) -> stores.StoreSelector:
    """Complete a query for part retrieval: view parts, whatever view the settings name for other
    commands, and the dataset's retrieval split; else whatever is stored."""
    usual = [replace(query, view=view or "parts")]
    if query.split is None and query.dataset is not None:
        split = RETRIEVAL_SPLITS.get(dataset_kind(config, query.dataset))
        usual.insert(0, replace(usual[0], split=split))
    for candidate in [*usual, query]:
        if any(stores.find(config.features, candidate)):
            return candidate
        stores.check_readable(config.features, candidate)
    return usual[0] if view is not None or _has_parts(config, query.dataset) else query


def _has_parts(config: Config, dataset: str | None) -> bool:
    """Whether a dataset can be cut into parts; of one that is not named, True."""
    if dataset is None:
        return True
    entry = config.settings.datasets.get(dataset)
    kind = dataset_kind(config, dataset)
    official = kind not in DATASETS or DATASETS[kind].annotations is not None
    return official or bool(entry and entry.boxes)


def _blocks(text: str) -> list[int] | None:
    """Block numbers with commas; None for `all`."""
    if text.strip() == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--layers takes all, or block numbers: 2,5,8,11; found {text!r}."
        ) from None
