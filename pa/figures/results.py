"""Which results of a workspace a figure shows: of one dataset and one protocol, one per encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pa.errors import AmbiguousError, MismatchError, MissingError
from pa.figures.names import in_order, listed, title_of
from pa.progress import Progress
from pa.report.departures import dataset_of, departures_of
from pa.report.found import RETRIEVAL, TASKS, Found, Workspace
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
    accepts: Callable[[Found], bool] = lambda found: True

    def is_met_by(self, found: Found) -> bool:
        """Whether a result is one of these, its protocol left aside."""
        return (
            found.task == self.task
            and (not self.datasets or dataset_of(found) in self.datasets)
            and (not self.encoders or found.tested.get("encoder") in self.encoders)
            and self.accepts(found)
        )

    def missing(self, workspace: Workspace, encoder: str | None = None) -> MissingError:
        """What to say where there is none of them."""
        words = [self.command, *(["--encoder", encoder] if encoder else [])]
        words += ["--dataset", self.datasets[0]] if self.datasets else []
        words += ["--protocol", self.protocol] if self.protocol else []
        of = f" of {title_of(encoder)}" if encoder else ""
        there = sorted(
            {
                f"{dataset_of(f)} {recipe_of(f, workspace)}"
                for f in workspace.results
                if f.task == self.task and self.accepts(f)
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
    by_representation: dict[str, Found]

    @property
    def results(self) -> list[Found]:
        return list(self.by_representation.values())

    @property
    def title(self) -> str:
        """The encoder's name in a figure, with its size unless it is the paper's."""
        encoder = (self.store.get("spec") or {}).get("encoder", {})
        return title_of(self.encoder, encoder.get("architecture"))

    @property
    def store(self) -> dict[str, Any]:
        """What the results say of the store that was scored."""
        return self.results[0].tested


def recipe_of(found: Found, workspace: Workspace) -> str:
    """The protocol of a result: of its recipe, or else that by which its patches were cut."""
    known = protocol_of_result(found, workspace)[0]
    return known.key if known.recipe != NOT_KNOWN else (known.patches or NOT_KNOWN)


def choose(workspace: Workspace, wanted: Wanted, progress: Progress) -> list[OfEncoder]:
    """The results to show, encoders in the paper's order.

    Of several that fit, of an encoder those of the store with most of them, nearest to the named
    protocol, newest are taken, and a line says so. Without a protocol it is `paper` where there is
    one. Raises `MissingError` with the command that makes what is missing, `AmbiguousError` for
    results of several datasets or protocols, `MismatchError` for encoders scored on other rows.
    """
    fitting = [found for found in workspace.results if wanted.is_met_by(found)]
    _require_one("dataset", (dataset_of(found) for found in fitting), progress)
    recipes = {recipe_of(found, workspace) for found in fitting}
    recipe = wanted.protocol or ("paper" if "paper" in recipes else None)
    if recipe is None and recipes:
        recipe = _require_one("protocol", recipes, progress)
    fitting = [found for found in fitting if recipe_of(found, workspace) == recipe]
    there = in_order(str(found.tested["encoder"]) for found in fitting)
    if missing := [name for name in wanted.encoders if name not in there]:
        raise wanted.missing(workspace, missing[0])
    if not there:
        raise wanted.missing(workspace)
    chosen = [_of_encoder(name, fitting, progress) for name in there]
    _check_same_rows(chosen, workspace)
    return chosen


def _require_one(what: str, values: Iterable[str], progress: Progress) -> str | None:
    found = sorted(set(values))
    if len(found) > 1:
        raise AmbiguousError(
            f"there are results of {len(found)} {what}s: {', '.join(found)}. A figure shows one: "
            f"choose with --{what}."
        )
    return found[0] if found else None


def _of_encoder(encoder: str, fitting: Sequence[Found], progress: Progress) -> OfEncoder:
    groups: dict[tuple[str, ...], dict[str, Found]] = {}
    own = [found for found in fitting if found.tested["encoder"] == encoder]
    for found in sorted(own, key=_preference):
        stores = tuple(store["fingerprint"] for store in found.fields["stores"].values())
        groups.setdefault(stores, {}).setdefault(str(found.fields["representation"]), found)
    best = max(groups.values(), key=len)
    if len(own) > len(best):
        digests = ", ".join(found.fields["digest"][:8] for found in list(best.values())[:3])
        progress.note(
            f"{title_of(encoder)}: {len(own)} results fit, {len(best)} are shown ({digests}"
            f"{', …' if len(best) > 3 else ''}): those nearest to the protocol, then the newest"
        )
    return OfEncoder(encoder, best)


def _preference(found: Found) -> tuple[int, float]:
    """Sorts the nearest to its protocol first, then the newest."""
    return len(found.protocol.get("changed") or {}), -found.written.timestamp()


def _check_same_rows(chosen: Sequence[OfEncoder], workspace: Workspace) -> None:
    rows = {
        one.encoder: (workspace.spec(one.store) or {}).get("rows", {}).get("sha256")
        for one in chosen
    }
    known = {digest for digest in rows.values() if digest is not None}
    if len(known) > 1:
        first, *others = rows
        other = next(name for name in others if rows[name] not in (None, rows[first]))
        raise MismatchError(
            f"{title_of(first)} and {title_of(other)} were scored on other rows of "
            f"{chosen[0].store.get('dataset')}: their numbers do not belong in one figure. Extract "
            f"both from the same split with the same --protocol and --limit, or name the encoders "
            f"that fit with --encoder."
        )


# -- what a caption says ---------------------------------------------------------------------------


def remarks(chosen: Sequence[OfEncoder], workspace: Workspace) -> str:
    """Where the results are not of the paper's models, images or recipe; empty where they are."""
    told: dict[str, list[str]] = {}
    for one in chosen:
        found = one.results[0]
        if found.task not in TASKS:  # of neighbours: on the rows that retrieval is scored on
            found = replace(found, fields={**found.fields, "task": RETRIEVAL})
        for departure in departures_of(found, workspace):
            if departure.kind != "note":
                told.setdefault(departure.text, []).append(one.title)
    if not told:
        return ""
    everyone = len(chosen)
    lines = [
        text if len(names) == everyone else f"{listed(names)}: {text}"
        for text, names in told.items()
    ]
    return f"Not the paper's setting: {'; '.join(lines)}."


def shown_result(found: Found, workspace: Workspace) -> dict[str, Any]:
    """What the files beside a figure say of a result."""
    return {
        "title": workspace.relative(found.path),
        "digest": found.fields["digest"],
        "task": found.task,
        "protocol": found.protocol,
        "scores": found.fields["scores"],
    }
