"""The measured numbers that answer the questions of the paper's tables.

Values are in percent, as the paper prints them. Nothing is scored here: every number is read from
a result file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.evaluate.intervals import Interval, Score
from pa.evaluate.result_files import ResultFile
from pa.evaluate.results import (
    AttentiveProbeResult,
    LinearProbeResult,
    Result,
    RetrievalResult,
    SegmentationProbeResult,
)
from pa.report.cells import Metric, Probe, Question, Representation, Task
from pa.report.collection import QueryState, ResultCollection
from pa.report.deviations import Deviation, deviations_of, model_name
from pa.report.protocol import Protocol, protocol_of_result
from pa.report.text import one_line

KINDS: dict[str, Representation] = {  # of the representations in Table 3
    "cls": "encoded",
    "pooled": "encoded",
    "projected": "projected",
}
VECTORS = {"cls": "class token", "pooled": "mean patch token"}  # the two encoded representations
PROBED = {"probe-linear": "cls", "probe-attentive": "cls+patch"}  # in Tables 1 and 3, by task
UNITS = {"retrieval": "queries", "neighbours": "queries", "probe-segmentation": "pixels"}
OBJECT_DATASETS = ("ade20k", "ade20k-object", "pascal-object")  # in Tables 2, 5 and 6


@dataclass(frozen=True)
class Measured:
    """One measured number, in percent, and the result file that holds it.

    `interval_method` is the method of `interval`; `n` values of `unit` come from `n_images` images.
    `stored_as` is the representation in the store. `queries` is the state of the table with the
    scores of the queries, `file` the path of the result below the workspace. `command` repeats the
    measurement. `is_worse_vector` marks an encoded representation of which the other vector scored
    better.
    """

    question: Question
    protocol: Protocol
    value: float
    interval: tuple[float, float] | None
    interval_method: str
    chance: float | None
    n: int
    n_images: int
    unit: str
    stored_as: str
    model: str
    deviations: tuple[Deviation, ...]
    queries: QueryState
    source: ResultFile
    file: str
    command: str
    is_worse_vector: bool = False

    @property
    def stores(self) -> dict[str, str]:
        """Fingerprints of the stores by their role, shortened as in names of directories."""
        stores = self.source.result.stores_by_role.items()
        return {role: store.fingerprint[:FINGERPRINT_SHOWN] for role, store in stores}

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
    # Class token and mean patch token of the same stores, scored by the same rules.
    vectors: dict[tuple[object, ...], dict[str, Measured]] = {}
    for item in measured:
        vectors.setdefault(_setting(item), {}).setdefault(item.stored_as, item)
    return [_compare_vectors(item, vectors[_setting(item)]) for item in measured]


def _setting(item: Measured) -> tuple[object, ...]:
    return (item.question, item.protocol, tuple(item.stores.items()), item.marks)


def in_percent(score: Score) -> dict[str, Any]:
    """Return the fields of a score that every list of numbers shows, in percent."""
    chance = score.chance_level
    return {
        "value": 100 * score.value,
        "interval": percent_interval(score.interval),
        "interval_method": score.interval_method,
        "chance": None if chance is None else 100 * chance,
        "n": score.n,
        "n_images": score.n_images,
    }


def percent_interval(interval: Interval | None) -> tuple[float, float] | None:
    """Return the ends of an interval in percent."""
    return None if interval is None else (100 * interval.low, 100 * interval.high)


def _of_file(file: ResultFile, collection: ResultCollection) -> Iterator[Measured]:
    result = file.result
    if not (questions := _questions(result)):
        return
    queries = collection.queries.get(file.path, "not stored")
    protocol, rules = protocol_of_result(result)
    deviations = list(deviations_of(result))
    if rules:
        changed = ", ".join(f"{name} {value}" for name, value in rules.items())
        deviations.append(Deviation("recipe", f"patches cut with {changed}"))
    if queries == "damaged":
        deviations.append(Deviation("note", "the scores of its queries are damaged"))
    # Tables 1 and 3 have one representation for each probe; others get a remark.
    usual = PROBED.get(result.task, result.representation)
    if result.representation != usual:
        deviations.append(Deviation("recipe", f"{result.representation} instead of {usual}"))
    # A segmentation answers three questions, one for each metric.
    for name, question in questions.items():
        if name in result.scores:
            yield Measured(
                question=question,
                protocol=protocol,
                **in_percent(result.scores[name]),
                unit=UNITS.get(result.task, "test rows"),
                stored_as=result.representation,
                model=model_name(result.tested.architecture),
                deviations=tuple(deviations),
                queries=queries,
                source=file,
                file=collection.relative(file.path),
                command=command_of(result),
            )


def _questions(result: Result) -> dict[str, Question]:
    """Return the questions that a result answers, by the name of the score."""
    store = result.tested
    task: Task | None
    if isinstance(result, RetrievalResult):  # Table 3
        if store.view == "parts" and (kind := KINDS.get(result.representation)):
            question = Question(store.encoder, store.dataset, "retrieval", "none", kind, "AP")
            return {"ap": question}
    elif isinstance(result, LinearProbeResult | AttentiveProbeResult):  # Tables 1 and 3
        tasks: dict[str, Task] = {"parts": "part-classification", "image": "image-classification"}
        probe: Probe = "linear" if isinstance(result, LinearProbeResult) else "attentive"
        if task := tasks.get(store.view):
            question = Question(store.encoder, store.dataset, task, probe, "encoded", "top-1")
            return {"accuracy": question}
    elif isinstance(result, SegmentationProbeResult):
        is_object = result.dataset in OBJECT_DATASETS
        task = "object-segmentation" if is_object else "part-segmentation"
        metrics: tuple[Metric, ...] = ("mIoU", "mAcc", "aAcc")
        return {
            metric: Question(store.encoder, result.dataset, task, "linear", "encoded", metric)
            for metric in metrics
        }
    return {}


def command_of(result: Result) -> str:
    """Return the command that computes a result from its stores.

    Changes of the recipe follow as a comment.
    """
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
    # Not all fields of a recipe have an option, so changes are a comment.
    changed = [f"{name}={value}" for name, value in result.protocol.changed.items()]
    comment = one_line(", ".join(changed))
    return shlex.join(words) + (f"  # with {comment}" if comment else "")


def _compare_vectors(item: Measured, vectors: Mapping[str, Measured]) -> Measured:
    """Compare an encoded representation with the other one of the same store.

    The paper reports the better of class token and mean patch token (A.4).
    """
    if item.question.task != "retrieval" or item.question.representation != "encoded":
        return item
    other = next((o for name, o in vectors.items() if name != item.stored_as), None)
    title = VECTORS[item.stored_as]
    is_worse = other is not None and other.value > item.value
    if other is None:
        text = f"{title} only: the paper takes the better of class token and mean patch token"
    elif is_worse:
        text = f"{title}, the worse of the two"
    else:
        text = (
            f"{title}; {VECTORS[other.stored_as]} {other.value:.1f}. Chosen on the score itself, "
            f"as in the paper"
        )
    note = Deviation("recipe" if other is None else "note", text)
    return replace(item, deviations=(*item.deviations, note), is_worse_vector=is_worse)
