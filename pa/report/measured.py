"""The measured numbers that answer the questions of the paper's tables.

Values are in percent, as the paper prints them. Nothing is scored here: every number is read from
a result file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.evaluate.intervals import Interval
from pa.evaluate.results import (
    AttentiveProbeResult,
    LinearProbeResult,
    Result,
    ResultFile,
    RetrievalResult,
    Score,
    SegmentationProbeResult,
)
from pa.report.cells import Metric, Probe, Question, Representation, Task
from pa.report.collection import ResultCollection
from pa.report.deviations import Deviation, deviations_of, model_name
from pa.report.protocol import Protocol, protocol_of_result
from pa.report.queries import State, table_of
from pa.report.text import one_line

CLASS_TOKEN, MEAN_PATCH, PROJECTED = "cls", "pooled", "projected"
REPRESENTATION_TITLES = {CLASS_TOKEN: "class token", MEAN_PATCH: "mean patch token"}
UNITS = {"retrieval": "queries", "neighbours": "queries", "probe-segmentation": "pixels"}
OBJECT_DATASETS = ("ade20k", "ade20k-object", "pascal-object")  # Tables 4 and 5


@dataclass(frozen=True)
class StoreUse:
    """A store behind a number; `fingerprint` is shortened as in the name of its directory."""

    role: str
    fingerprint: str
    dataset: str
    split: str
    n_rows: int | None
    exists: bool


@dataclass(frozen=True)
class Measured:
    """One measured number, in percent.

    `interval_method` is the method of `interval`, None without one; `n` values of `unit` come from
    `n_images` images; `stored_as` is the representation in the store, `rows` the digest of the
    tested rows. `per_query` is the table with the scores of the queries, if `queries` is "intact".
    `command` repeats the measurement. `is_worse_vector` marks an encoded representation of which
    the other vector scored better.
    """

    question: Question
    protocol: Protocol
    value: float
    interval: tuple[float, float] | None
    interval_method: str
    chance: float | None
    n: int | None
    n_images: int | None
    unit: str
    stored_as: str
    model: str
    weights: str
    deviations: tuple[Deviation, ...]
    stores: tuple[StoreUse, ...]
    split: str
    rows: str | None
    per_query: Path | None
    queries: State
    path: Path
    file: str
    digest: str
    written: datetime
    versions: tuple[tuple[str, str], ...]
    command: str
    is_worse_vector: bool = False

    @property
    def is_papers(self) -> bool:
        """Whether the number has the setting of the paper: it deviates in nothing but notes."""
        return not self.marks

    @property
    def marks(self) -> tuple[Deviation, ...]:
        return tuple(item for item in self.deviations if item.kind != "note")

    @property
    def notes(self) -> tuple[Deviation, ...]:
        return tuple(item for item in self.deviations if item.kind == "note")

    def deviates(self, kind: str) -> bool:
        return any(item.kind == kind for item in self.deviations)


def measured_in(collection: ResultCollection) -> list[Measured]:
    """Return every number of the workspace that answers a question of the paper's tables."""
    measured = [item for file in collection.results for item in _of_file(file, collection)]
    return _better_encoded(measured)


def _of_file(file: ResultFile, collection: ResultCollection) -> Iterator[Measured]:
    result = file.result
    if not (questions := list(_questions(result))):
        return
    store, state = result.tested, collection.queries.get(file.path, "not stored")
    protocol, rules = protocol_of_result(result)
    deviations = deviations_of(result)
    if rules:
        changed = ", ".join(f"{name} {value}" for name, value in rules.items())
        deviations += (Deviation("recipe", f"patches cut with {changed}"),)
    if state == "damaged":
        deviations += (Deviation("note", "the scores of its queries are damaged"),)
    for question, name, extra in questions:
        score: Score | None = result.scores.get(name)
        if score is None:
            continue
        yield Measured(
            question=question,
            protocol=protocol,
            value=100 * score.value,
            interval=percent_interval(score.interval),
            interval_method=score.interval_method,
            chance=percent(score.chance_level),
            n=score.n,
            n_images=score.n_images,
            unit=UNITS.get(result.task, "test rows"),
            stored_as=result.representation,
            model=model_name(store.architecture),
            weights=store.weights_sha256,
            deviations=(*deviations, *extra),
            stores=tuple(
                StoreUse(
                    role,
                    item.fingerprint[:FINGERPRINT_SHOWN],
                    item.dataset,
                    item.split,
                    item.n_rows,
                    item.fingerprint in collection.fingerprints,
                )
                for role, item in result.stores_by_role.items()
            ),
            split=store.split,
            rows=store.rows_sha256,
            per_query=table_of(file.path) if state == "intact" else None,
            queries=state,
            path=file.path,
            file=collection.relative(file.path),
            digest=result.digest,
            written=file.written,
            versions=tuple(file.versions.items()),
            command=command_of(result),
        )


def _questions(result: Result) -> Iterator[tuple[Question, str, tuple[Deviation, ...]]]:
    """Yield the questions that a result answers, the name of the score, and further deviations."""
    store, stored_as = result.tested, result.representation
    if isinstance(result, RetrievalResult):  # Table 3
        encoded = stored_as in (CLASS_TOKEN, MEAN_PATCH)
        if store.view == "parts" and (encoded or stored_as == PROJECTED):
            kind: Representation = "encoded" if encoded else "projected"
            yield (
                Question(store.encoder, store.dataset, "retrieval", "none", kind, "AP"),
                "ap",
                (),
            )
    elif isinstance(result, LinearProbeResult | AttentiveProbeResult):  # Tables 1 and 3
        tasks: dict[str, Task] = {"parts": "part-classification", "image": "image-classification"}
        if store.view not in tasks:
            return
        is_linear = isinstance(result, LinearProbeResult)
        probe: Probe = "linear" if is_linear else "attentive"
        usual = CLASS_TOKEN if is_linear else "cls+patch"
        extra: tuple[Deviation, ...] = ()
        if stored_as != usual:
            extra = (Deviation("recipe", f"{stored_as} instead of {usual}"),)
        task = tasks[store.view]
        yield (
            Question(store.encoder, store.dataset, task, probe, "encoded", "top-1"),
            "accuracy",
            extra,
        )
    elif isinstance(result, SegmentationProbeResult):
        is_object = result.dataset in OBJECT_DATASETS
        task = "object-segmentation" if is_object else "part-segmentation"
        metrics: tuple[Metric, ...] = ("mIoU", "mAcc", "aAcc")
        for metric in metrics:
            yield (
                Question(store.encoder, result.dataset, task, "linear", "encoded", metric),
                metric,
                (),
            )


def percent_interval(interval: Interval | None) -> tuple[float, float] | None:
    """Return the ends of an interval in percent."""
    return None if interval is None else (100 * interval.low, 100 * interval.high)


def percent(share: float | None) -> float | None:
    """Return a share in percent."""
    return None if share is None else 100 * share


def command_of(result: Result) -> str:
    """Return the command that computes a result from its stores; changes of the recipe follow as
    a comment."""
    protocol, store = result.protocol.name or "paper", result.tested
    of_store = ["--encoder", store.encoder, "--dataset", store.dataset]
    if isinstance(result, RetrievalResult):
        words = ["pa", "evaluate", "retrieval", *of_store, "--split", store.split]
        words += ["--protocol", protocol, "--representation", result.representation]
    else:
        words = ["pa", "probe", result.task.removeprefix("probe-"), *of_store]
        if store.view == "image":
            words += ["--view", "image"]
        words += ["--train-split", result.stores.train.split, "--test-split", store.split]
        words += ["--protocol", protocol]
        if isinstance(result, SegmentationProbeResult):
            words += ["--labels", result.dataset]
        if isinstance(result, LinearProbeResult):
            words += ["--representation", result.representation]
    changed = [f"{name}={value}" for name, value in result.protocol.changed.items()]
    comment = one_line(", ".join(changed))
    return shlex.join(words) + (f"  # with {comment}" if comment else "")


def _better_encoded(measured: Sequence[Measured]) -> list[Measured]:
    """Mark the worse of the class token and the mean patch token of one store.

    The paper reports the better one (A.4).
    """
    kept = []
    for item in measured:
        if item.question.task != "retrieval" or item.question.representation != "encoded":
            kept.append(item)
            continue
        other = next((two for two in measured if _other_vector(item, two)), None)
        title = REPRESENTATION_TITLES[item.stored_as]
        if other is None:
            text = f"{title} only: the paper takes the better of class token and mean patch token"
        elif other.value > item.value:
            text = f"{title}, the worse of the two"
        else:
            text = (
                f"{title}; {REPRESENTATION_TITLES[other.stored_as]} {other.value:.1f}. Chosen on "
                f"the score itself, as in the paper"
            )
        note = Deviation("recipe" if other is None else "note", text)
        worse = other is not None and other.value > item.value
        kept.append(replace(item, deviations=(*item.deviations, note), is_worse_vector=worse))
    return kept


def _other_vector(measured: Measured, two: Measured) -> bool:
    return (
        measured.question == two.question
        and measured.protocol == two.protocol
        and measured.stores == two.stores
        and measured.stored_as != two.stored_as
        and measured.marks == two.marks
    )
