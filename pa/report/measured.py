"""Our numbers: what each result of a workspace says of the questions that the paper's tables ask.

Values are in percent, as the paper prints them. Nothing is scored here: every number is read from
a result file.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pa.report.cells import Metric, Probe, Question, Representation, Task
from pa.report.departures import Departure, dataset_of, departures_of, model_name
from pa.report.found import ATTENTIVE, LINEAR, RETRIEVAL, SEGMENTATION, Found, Workspace, short
from pa.report.protocol import Protocol, protocol_of_result
from pa.report.queries import State, table_of
from pa.report.visible import one_line

CLASS_TOKEN, MEAN_PATCH, PROJECTED = "cls", "pooled", "projected"
REPRESENTATION_TITLES = {CLASS_TOKEN: "class token", MEAN_PATCH: "mean patch token"}
UNITS = {RETRIEVAL: "queries", "neighbours": "queries", SEGMENTATION: "pixels"}
OBJECT_DATASETS = ("ade20k", "ade20k-object", "pascal-object")


@dataclass(frozen=True)
class StoreUse:
    """A store behind a number: its role, what it is of, and whether it is still there.

    `fingerprint` is cut as in the name of its directory; `n_rows` is None where it is not known.
    """

    role: str
    fingerprint: str
    dataset: str
    split: str
    n_rows: int | None
    is_there: bool


@dataclass(frozen=True)
class Measured:
    """One number of ours, in percent.

    `interval` is that of the result (its method in `interval_method`), None where there is none;
    `n` values from `n_images` images in `unit`; `stored_as` the representation as the store names
    it; `rows` the digest of the rows that were tested, None where it is not known; `per_query` the
    table of the queries' scores, where `queries` is "there"; `command` repeats the measurement.
    `is_worse_vector` says of an encoded representation that the other one scored better.
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
    departures: tuple[Departure, ...]
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
        """Whether nothing but notes stands between this number and the paper's."""
        return not self.marks

    @property
    def marks(self) -> tuple[Departure, ...]:
        return tuple(one for one in self.departures if one.kind != "note")

    @property
    def notes(self) -> tuple[Departure, ...]:
        return tuple(one for one in self.departures if one.kind == "note")

    def departs(self, kind: str) -> bool:
        return any(one.kind == kind for one in self.departures)


def measured_in(workspace: Workspace) -> list[Measured]:
    """Every number of the workspace that answers a question of the paper's tables."""
    made = [one for found in workspace.results for one in _of_result(found, workspace)]
    return _better_encoded(made)


def _of_result(found: Found, workspace: Workspace) -> Iterator[Measured]:
    readers = {
        RETRIEVAL: _retrieval,
        LINEAR: _probe,
        ATTENTIVE: _probe,
        SEGMENTATION: _segmentation,
    }
    if found.task not in readers:
        return
    shared = _shared(found, workspace)
    for question, name, extra in readers[found.task](found):
        score = found.fields["scores"].get(name)
        if score is None:
            continue
        yield Measured(
            question=question,
            value=100 * score["value"],
            interval=percent_interval(score.get("interval")),
            interval_method=str(score.get("interval_method", "")),
            chance=chance_of(score.get("chance")),
            n=score.get("n"),
            n_images=score.get("n_images", score.get("n_groups")),
            **{**shared, "departures": (*shared["departures"], *extra)},
        )


Question3 = tuple[Question, str, tuple[Departure, ...]]


def _retrieval(found: Found) -> Iterator[Question3]:
    """The score `ap` of the vectors that Table 3 is about."""
    store, stored_as = found.store("gallery"), found.fields["representation"]
    encoded = stored_as in (CLASS_TOKEN, MEAN_PATCH)
    if store.get("view") == "parts" and (encoded or stored_as == PROJECTED):
        kind: Representation = "encoded" if encoded else "projected"
        asked = Question(
            str(store["encoder"]), str(store["dataset"]), "retrieval", "none", kind, "AP"
        )
        yield asked, "ap", ()


def _probe(found: Found) -> Iterator[Question3]:
    """The accuracy of a probe on part patches (Table 3) or whole images (Table 1)."""
    store, stored_as = found.store("test"), found.fields["representation"]
    tasks: dict[str, Task] = {"parts": "part-classification", "image": "image-classification"}
    task = tasks.get(str(store.get("view")))
    if task is None:
        return
    probe: Probe = "linear" if found.task == LINEAR else "attentive"
    usual = {"linear": CLASS_TOKEN, "attentive": "cls+patch"}[probe]
    extra: tuple[Departure, ...] = ()
    if stored_as != usual:
        extra = (Departure("recipe", f"{stored_as} in place of {usual}"),)
    asked = Question(str(store["encoder"]), str(store["dataset"]), task, probe, "encoded", "top-1")
    yield asked, "accuracy", extra


def _segmentation(found: Found) -> Iterator[Question3]:
    dataset, encoder = dataset_of(found), str(found.store("test").get("encoder"))
    task: Task = "object-segmentation" if dataset in OBJECT_DATASETS else "part-segmentation"
    metrics: tuple[Metric, ...] = ("mIoU", "mAcc", "aAcc")
    for metric in metrics:
        yield Question(encoder, dataset, task, "linear", "encoded", metric), metric, ()


def _shared(found: Found, workspace: Workspace) -> dict[str, Any]:
    """What all scores of a result have in common, by the names of `Measured`."""
    test = found.tested
    spec = workspace.spec(test)
    protocol, rules = protocol_of_result(found, workspace)
    departures = departures_of(found, workspace)
    if rules:
        changed = ", ".join(f"{name} {value}" for name, value in rules.items())
        departures += (Departure("recipe", f"patches cut with {changed}"),)
    if found.queries == "damaged":
        departures += (Departure("note", "the scores of its queries are damaged"),)
    return {
        "protocol": protocol,
        "unit": UNITS.get(found.task, "test rows"),
        "stored_as": found.fields["representation"],
        "model": model_name(spec),
        "weights": str((spec or {}).get("encoder", {}).get("weights_sha256", "")),
        "departures": departures,
        "stores": tuple(
            StoreUse(
                role,
                short(store["fingerprint"]),
                str(store.get("dataset")),
                str(store.get("split")),
                (workspace.spec(store) or {}).get("rows", {}).get("n"),
                store["fingerprint"] in workspace.specs,
            )
            for role, store in found.fields["stores"].items()
        ),
        "split": str(test.get("split")),
        "rows": (spec or {}).get("rows", {}).get("sha256"),
        "per_query": table_of(found.path) if found.queries == "there" else None,
        "queries": found.queries,
        "path": found.path,
        "file": workspace.relative(found.path),
        "digest": found.fields["digest"],
        "written": found.written,
        "versions": tuple((str(k), str(v)) for k, v in found.fields["versions"].items()),
        "command": command_of(found),
    }


def percent_interval(ends: Any) -> tuple[float, float] | None:
    """An interval of a result, in percent."""
    return None if ends is None else (100 * ends[0], 100 * ends[1])


def chance_of(chance: Any) -> float | None:
    """Percent: what knowing nothing gives; for a probe, the share of the commonest class."""
    known = chance.get("majority") if isinstance(chance, dict) else chance
    return 100 * known if isinstance(known, int | float) else None


def command_of(found: Found) -> str:
    """The public command that measures this again, from the stores, as it is typed; changes of
    the recipe follow as a comment."""
    protocol, fields = str(found.protocol.get("protocol", "paper")), found.fields
    if found.task == RETRIEVAL:
        store = found.store("gallery")
        words = ["pa", "evaluate", "retrieval", *_choice(store)]
        words += ["--split", str(store.get("split")), "--protocol", protocol]
        words += ["--representation", fields["representation"]]
    else:
        train, test = found.store("train"), found.store("test")
        words = ["pa", "probe", found.task.removeprefix("probe-"), *_choice(test)]
        if test.get("view") == "image":
            words += ["--view", "image"]
        words += ["--train-split", str(train.get("split")), "--test-split", str(test.get("split"))]
        words += ["--protocol", protocol]
        if found.task == SEGMENTATION:
            words += ["--labels", dataset_of(found)]
        if found.task == LINEAR:
            words += ["--representation", fields["representation"]]
    changed = found.protocol.get("changed") or {}
    comment = one_line(", ".join(f"{name}={value}" for name, value in changed.items()))
    return shlex.join(words) + (f"  # with {comment}" if comment else "")


def _choice(store: dict[str, Any]) -> list[str]:
    return ["--encoder", str(store.get("encoder")), "--dataset", str(store.get("dataset"))]


def _better_encoded(made: Sequence[Measured]) -> list[Measured]:
    """Of the class token and the mean patch token of one store, the one that scored better: what
    the paper reports (A.4). The other stays, as one that was not taken."""
    kept = []
    for one in made:
        if one.question.task != "retrieval" or one.question.representation != "encoded":
            kept.append(one)
            continue
        other = next((two for two in made if _other_vector(one, two)), None)
        title = REPRESENTATION_TITLES[one.stored_as]
        if other is None:
            said = f"{title} only: the paper takes the better of class token and mean patch token"
        elif other.value > one.value:
            said = f"{title}, the worse of the two"
        else:
            said = (
                f"{title}; {REPRESENTATION_TITLES[other.stored_as]} {other.value:.1f}. Chosen on "
                f"the score itself, as in the paper"
            )
        note = Departure("recipe" if other is None else "note", said)
        worse = other is not None and other.value > one.value
        kept.append(replace(one, departures=(*one.departures, note), is_worse_vector=worse))
    return kept


def _other_vector(one: Measured, two: Measured) -> bool:
    return (
        one.question == two.question
        and one.protocol == two.protocol
        and one.stores == two.stores
        and one.stored_as != two.stored_as
        and one.marks == two.marks
    )
