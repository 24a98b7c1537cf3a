"""Select the results that a figure shows: of one dataset and one protocol, one set per encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pa.errors import AmbiguousError, MismatchError, MissingError
from pa.evaluate.result_files import ResultFile
from pa.evaluate.result_parts import StoreReference
from pa.figures.names import in_order, listed, title_of
from pa.progress import Progress
from pa.report.collection import ResultCollection
from pa.report.deviations import deviations_of
from pa.report.protocol import NOT_KNOWN, protocol_of_result


@dataclass(frozen=True)
class ResultQuery:
    """Results of a task; None or empty matches all.

    A result matches one of `datasets` by the name of its label set, if it has one. `command`
    produces such results; dataset and encoder are appended.
    """

    task: str
    command: str
    encoders: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    protocol: str | None = None
    accepts: Callable[[ResultFile], bool] = lambda file: True

    def matches(self, file: ResultFile) -> bool:
        """Return whether a result matches, whatever its protocol."""
        result = file.result
        return (
            result.task == self.task
            and (not self.datasets or result.dataset in self.datasets)
            and (not self.encoders or result.tested.encoder in self.encoders)
            and self.accepts(file)
        )

    def missing(self, collection: ResultCollection, encoder: str | None = None) -> MissingError:
        """Return the error with the command that produces a missing result."""
        words = [self.command, *(["--encoder", encoder] if encoder else [])]
        words += ["--dataset", self.datasets[0]] if self.datasets else []
        words += ["--protocol", self.protocol] if self.protocol else []
        subject = f" of {title_of(encoder)}" if encoder else ""
        others = sorted(
            {
                f"{file.result.dataset} {protocol_key(file)}"
                for file in collection.results
                if file.result.task == self.task and self.accepts(file)
            }
        )
        existing = f"\nThere are results of: {', '.join(others)}." if others else ""
        return MissingError(
            f"there is no such result{subject} in {collection.root / 'results' / self.task}. "
            f"Produce it with:\n  {' '.join(words)}{existing}"
        )


@dataclass(frozen=True, eq=False)
class EncoderResults:
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
        """The scored store."""
        return self.results[0].result.tested


def protocol_key(file: ResultFile) -> str:
    """Return the protocol of a result: of its recipe, else the one that cut its patches."""
    known = protocol_of_result(file.result)[0]
    return known.key if known.recipe != NOT_KNOWN else (known.patches or NOT_KNOWN)


def select_by_encoder(
    collection: ResultCollection, query: ResultQuery, progress: Progress
) -> list[EncoderResults]:
    """Return the results to show, encoders in the paper's order.

    If several results of an encoder match, those of the store with most of them are selected,
    then those closest to the named protocol, then the newest, with a note. Without a protocol,
    `paper` is preferred.

    Raises
    ------
    MissingError
        With the command that produces what is missing.
    AmbiguousError
        For results of several datasets or protocols.
    MismatchError
        For encoders scored on different rows.
    """
    matching = [file for file in collection.results if query.matches(file)]
    _require_one("dataset", (file.result.dataset for file in matching))
    protocols = {protocol_key(file) for file in matching}
    protocol = query.protocol or ("paper" if "paper" in protocols else None)
    if protocol is None and protocols:
        protocol = _require_one("protocol", protocols)
    matching = [file for file in matching if protocol_key(file) == protocol]
    encoders = in_order(file.result.tested.encoder for file in matching)
    if missing := [name for name in query.encoders if name not in encoders]:
        raise query.missing(collection, missing[0])
    if not encoders:
        raise query.missing(collection)
    selected = [_select(name, matching, progress) for name in encoders]
    _check_same_rows(selected)
    return selected


def _require_one(what: str, values: Iterable[str]) -> str | None:
    unique = sorted(set(values))
    if len(unique) > 1:
        raise AmbiguousError(
            f"there are results of {len(unique)} {what}s: {', '.join(unique)}. A figure shows one: "
            f"choose with --{what}."
        )
    return unique[0] if unique else None


def _select(encoder: str, matching: Sequence[ResultFile], progress: Progress) -> EncoderResults:
    groups: dict[tuple[str, ...], dict[str, ResultFile]] = {}
    files = [file for file in matching if file.result.tested.encoder == encoder]
    # The closest to its protocol first, then the newest.
    files.sort(key=lambda f: (len(f.result.protocol.changed), -f.written.timestamp()))
    # A result belongs to the figure with the others of the same stores, training and test.
    for file in files:
        stores = tuple(store.fingerprint for store in file.result.stores_by_role.values())
        groups.setdefault(stores, {}).setdefault(file.result.representation, file)
    # Of groups of one size the first: the closest, then the newest.
    best = max(groups.values(), key=len)
    if len(files) > len(best):
        digests = ", ".join(file.result.digest[:8] for file in list(best.values())[:3])
        progress.note(
            f"{title_of(encoder)}: {len(files)} results match, {len(best)} are shown ({digests}"
            f"{', …' if len(best) > 3 else ''}): the closest to the protocol, then the newest"
        )
    return EncoderResults(encoder, best)


def _check_same_rows(selected: Sequence[EncoderResults]) -> None:
    rows = {entry.encoder: entry.store.rows_sha256 for entry in selected}
    known = {digest for digest in rows.values() if digest is not None}
    if len(known) > 1:
        first, *others = rows
        other = next(name for name in others if rows[name] not in (None, rows[first]))
        raise MismatchError(
            f"{title_of(first)} and {title_of(other)} were scored on different rows of "
            f"{selected[0].store.dataset}, so their scores cannot share a figure. Extract both "
            f"from the same split with the same --protocol and --limit, or name the encoders "
            f"that fit with --encoder."
        )


# -- captions and provenance -----------------------------------------------------------------------


def remarks(selected: Sequence[EncoderResults]) -> str:
    """Describe how the results deviate from the paper's setting; empty if they do not."""
    titles: dict[str, list[str]] = {}  # text of a deviation -> encoders
    for entry in selected:
        for deviation in deviations_of(entry.results[0].result):
            if deviation.kind != "note":
                titles.setdefault(deviation.text, []).append(entry.title)
    if not titles:
        return ""
    lines = [
        text if len(names) == len(selected) else f"{listed(names)}: {text}"
        for text, names in titles.items()
    ]
    return f"Not the paper's setting: {'; '.join(lines)}."


def shown_result(file: ResultFile, collection: ResultCollection) -> dict[str, Any]:
    """Return the fields of a result that are stored with a figure."""
    return {
        "title": collection.relative(file.path),
        "digest": file.result.digest,
        "task": file.result.task,
        "protocol": file.result.protocol.parameters,
        "scores": file.result.to_json()["scores"],
    }
