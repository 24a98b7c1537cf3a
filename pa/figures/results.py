"""Which results of a workspace a figure shows: of one dataset and one protocol, one per encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pa.errors import AmbiguousError, MismatchError, MissingError
from pa.evaluate.results import ResultFile, StoreReference
from pa.figures.names import in_order, listed, title_of
from pa.progress import Progress
from pa.report.collection import ResultCollection
from pa.report.deviations import deviations_of
from pa.report.protocol import NOT_KNOWN, protocol_of_result


@dataclass(frozen=True)
class Wanted:
    """The results of a task; None or empty = whatever is there.

    `datasets` of one of which all are, by the name of the label set where there is one. `command`
    is what makes such results, without dataset and encoder.
    """

    task: str
    command: str
    encoders: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    protocol: str | None = None
    accepts: Callable[[ResultFile], bool] = lambda found: True

    def is_met_by(self, found: ResultFile) -> bool:
        """Whether a result is one of these, its protocol left aside."""
        return (
            found.result.task == self.task
            and (not self.datasets or found.result.dataset in self.datasets)
            and (not self.encoders or found.result.tested.encoder in self.encoders)
            and self.accepts(found)
        )

    def missing(self, workspace: ResultCollection, encoder: str | None = None) -> MissingError:
        """What to say where there is none of them."""
        words = [self.command, *(["--encoder", encoder] if encoder else [])]
        words += ["--dataset", self.datasets[0]] if self.datasets else []
        words += ["--protocol", self.protocol] if self.protocol else []
        of = f" of {title_of(encoder)}" if encoder else ""
        there = sorted(
            {
                f"{f.result.dataset} {recipe_of(f)}"
                for f in workspace.results
                if f.result.task == self.task and self.accepts(f)
            }
        )
        has = f"\nThere are results of: {', '.join(there)}." if there else ""
        return MissingError(
            f"there is no such result{of} in {workspace.root / 'results' / self.task}. Make it "
            f"with:\n  {' '.join(words)}{has}"
        )


@dataclass(frozen=True, eq=False)
class OfEncoder:
    """The results of one encoder, all from the same stores, by their representation."""

    encoder: str
    by_representation: dict[str, ResultFile]

    @property
    def results(self) -> list[ResultFile]:
        return list(self.by_representation.values())

    @property
    def title(self) -> str:
        """The encoder's name in a figure, with its size unless it is the paper's."""
        return title_of(self.encoder, self.store.architecture)

    @property
    def store(self) -> StoreReference:
        """What the results say of the store that was scored."""
        return self.results[0].result.tested


def recipe_of(found: ResultFile) -> str:
    """The protocol of a result: of its recipe, or else that by which its patches were cut."""
    known = protocol_of_result(found.result)[0]
    return known.key if known.recipe != NOT_KNOWN else (known.patches or NOT_KNOWN)


def choose(workspace: ResultCollection, wanted: Wanted, progress: Progress) -> list[OfEncoder]:
    """The results to show, encoders in the paper's order.

    Of several that fit, of an encoder those of the store with most of them, nearest to the named
    protocol, newest are taken, and a line says so. Without a protocol it is `paper` where there is
    one. Raises `MissingError` with the command that makes what is missing, `AmbiguousError` for
    results of several datasets or protocols, `MismatchError` for encoders scored on other rows.
    """
    fitting = [found for found in workspace.results if wanted.is_met_by(found)]
    _require_one("dataset", (found.result.dataset for found in fitting), progress)
    recipes = {recipe_of(found) for found in fitting}
    recipe = wanted.protocol or ("paper" if "paper" in recipes else None)
    if recipe is None and recipes:
        recipe = _require_one("protocol", recipes, progress)
    fitting = [found for found in fitting if recipe_of(found) == recipe]
    there = in_order(found.result.tested.encoder for found in fitting)
    if missing := [name for name in wanted.encoders if name not in there]:
        raise wanted.missing(workspace, missing[0])
    if not there:
        raise wanted.missing(workspace)
    chosen = [_of_encoder(name, fitting, progress) for name in there]
    _check_same_rows(chosen)
    return chosen


def _require_one(what: str, values: Iterable[str], progress: Progress) -> str | None:
    found = sorted(set(values))
    if len(found) > 1:
        raise AmbiguousError(
            f"there are results of {len(found)} {what}s: {', '.join(found)}. A figure shows one: "
            f"choose with --{what}."
        )
    return found[0] if found else None


def _of_encoder(encoder: str, fitting: Sequence[ResultFile], progress: Progress) -> OfEncoder:
    groups: dict[tuple[str, ...], dict[str, ResultFile]] = {}
    own = [found for found in fitting if found.result.tested.encoder == encoder]
    for found in sorted(own, key=_preference):
        stores = tuple(store.fingerprint for store in found.result.stores_by_role.values())
        groups.setdefault(stores, {}).setdefault(found.result.representation, found)
    best = max(groups.values(), key=len)
    if len(own) > len(best):
        digests = ", ".join(found.result.digest[:8] for found in list(best.values())[:3])
        progress.note(
            f"{title_of(encoder)}: {len(own)} results fit, {len(best)} are shown ({digests}"
            f"{', …' if len(best) > 3 else ''}): those nearest to the protocol, then the newest"
        )
    return OfEncoder(encoder, best)


def _preference(found: ResultFile) -> tuple[int, float]:
    """Sorts the nearest to its protocol first, then the newest."""
    return len(found.result.protocol.changed), -found.written.timestamp()


def _check_same_rows(chosen: Sequence[OfEncoder]) -> None:
    rows = {one.encoder: one.store.rows_sha256 for one in chosen}
    known = {digest for digest in rows.values() if digest is not None}
    if len(known) > 1:
        first, *others = rows
        other = next(name for name in others if rows[name] not in (None, rows[first]))
        raise MismatchError(
            f"{title_of(first)} and {title_of(other)} were scored on other rows of "
            f"{chosen[0].store.dataset}: their numbers do not belong in one figure. Extract "
            f"both from the same split with the same --protocol and --limit, or name the encoders "
            f"that fit with --encoder."
        )


# -- what a caption says ---------------------------------------------------------------------------


def remarks(chosen: Sequence[OfEncoder]) -> str:
    """Where the results are not of the paper's models, images or recipe; empty where they are."""
    told: dict[str, list[str]] = {}
    for one in chosen:
        for deviation in deviations_of(one.results[0].result):
            if deviation.kind != "note":
                told.setdefault(deviation.text, []).append(one.title)
    if not told:
        return ""
    everyone = len(chosen)
    lines = [
        text if len(names) == everyone else f"{listed(names)}: {text}"
        for text, names in told.items()
    ]
    return f"Not the paper's setting: {'; '.join(lines)}."


def shown_result(found: ResultFile, workspace: ResultCollection) -> dict[str, Any]:
    """What the files beside a figure say of a result."""
    return {
        "title": workspace.relative(found.path),
        "digest": found.result.digest,
        "task": found.result.task,
        "protocol": found.result.protocol.parameters,
        "scores": found.result.to_json()["scores"],
    }
