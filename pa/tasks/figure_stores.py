"""What `pa figure neighbours` and `projected` are asked, and the stores that answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.data.store.same_rows import without_subsets
from pa.data.store.spec import reason_absent
from pa.errors import AmbiguousError, MissingError, UsageError
from pa.figures.names import in_order
from pa.figures.record import FigureOutput
from pa.tasks.choose import choose_store, extract_command, store_query


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
    output: FigureOutput = field(default_factory=FigureOutput)

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


def choose_stores(config: Config, request: PatchesRequest, needs: str | None = None) -> list[Store]:
    """One store of each encoder, in the paper's order, of the same regions.

    With `needs`, of encoders that were not named only those that keep such vectors.
    """
    by_fingerprint = [stores.StoreSelector(fingerprint=one) for one in request.stores]
    given = ("dataset", "split", "view", "protocol")
    query = store_query(config, **{name: getattr(request, name) for name in given}, encoder=None)
    if by_fingerprint:
        chosen = [choose_store(config, one) for one in by_fingerprint]
    elif request.encoders:
        named = [replace(query, encoder=name) for name in request.encoders]
        chosen = [choose_store(config, one) for one in named]
    else:
        chosen = _all_of_one_place(config, replace(query, encoder=None), needs)
    if needs is not None and (without := [s for s in chosen if needs not in _vectors(s)]):
        raise UsageError(
            f"{without[0].title} keeps no {needs} vectors, only {', '.join(_vectors(without[0]))}. "
            + (
                reason_absent(without[0].encoder, needs)
                or f"Extract them, where the encoder has a projector: --features "
                f"cls,pooled,{needs} --alongside."
            )
        )
    _check_same_regions(chosen)
    return chosen


def _vectors(store: Store) -> list[str]:
    return [name for name, shape in store.spec.representations.items() if len(shape) == 1]


def _all_of_one_place(
    config: Config, query: stores.StoreSelector, needs: str | None
) -> list[Store]:
    """The complete stores of every encoder; view grid goes before others."""
    stores.check_readable(config.features, query)
    found = [
        store
        for store in stores.find(config.features, query)
        if store.is_complete and store.view != "windows"
    ]
    if query.view is None and any(store.view == "grid" for store in found):
        found = [store for store in found if store.view == "grid"]
    found = without_subsets([s for s in found if needs is None or needs in _vectors(s)])
    if not found:
        what = f" with {needs} vectors" if needs else ""
        given = " ".join(f"--{n} {v}" for n, v in vars(query).items() if v is not None)
        features = ["--features", f"pooled,{needs}"] if needs else []
        reason = ""
        if needs:
            query, reason = _of_encoder_that_gives(config, query, needs)
        raise MissingError(
            f"there is no complete store{what}{f' for {given}' if given else ''} in "
            f"{config.features}. {reason}Make one for each encoder:\n  "
            f"{extract_command(config, query, *features)}"
        )
    places = {_place(store) for store in found}
    if len(places) > 1:
        lines = "\n".join(f"  {place}" for place in sorted(places))
        raise AmbiguousError(f"stores of {len(places)} kinds fit. Choose one:\n{lines}")
    of_each = in_order(store.encoder for store in found)
    return [
        choose_store(config, replace(query, encoder=name, **_chosen(found[0]))) for name in of_each
    ]


def _of_encoder_that_gives(
    config: Config, query: stores.StoreSelector, needs: str
) -> tuple[stores.StoreSelector, str]:
    """The query of an encoder of the settings that may give a representation, and why not of
    the usual one. Where no configured encoder gives it, ENCODER stands for one."""
    usual = (config.settings.encoder or "").split(",")
    names = [name.strip() for name in (*usual, *config.settings.encoders) if name.strip()]
    reasons = [reason_absent(name, needs) for name in names]
    chosen = names[reasons.index(None)] if None in reasons else "ENCODER"
    reason = f"{reasons[0]} " if reasons and reasons[0] else ""
    return replace(query, encoder=chosen), reason


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


def _check_same_regions(chosen: Sequence[Store]) -> None:
    first = chosen[0]
    for other in chosen[1:]:
        if other.spec.rows["sha256"] != first.spec.rows["sha256"]:
            raise UsageError(
                f"{first.title} and {other.title} do not hold the same regions, so one query means "
                f"two things. Extract both from the same split, view and --limit, or name the "
                f"encoders that fit with --encoder."
            )
