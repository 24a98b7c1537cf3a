"""What a result records: its protocol, stores, selection, counts and scores, one class per task.

Each class is named after the command that writes it. `write_result` and `read_result` of
`pa.evaluate.result_files` write a result and read it back as an equal instance of its class;
docs/extending.md shows how a new probe does so.
"""

from __future__ import annotations

import platform
import re
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator

from pa.data.store.spec import digest
from pa.data.version import __version__
from pa.evaluate.bootstrap import Mean
from pa.evaluate.classification import Scores
from pa.evaluate.result_parts import (
    Gallery,
    Pair,
    RecordedProtocol,
    RetrievalCounts,
    RowCounts,
    SegmentationCounts,
    SegmentationSelection,
    SplitCounts,
    SplitSelection,
    StoreReference,
    TargetSelection,
    TrainTest,
)
from pa.evaluate.segmentation import Measure

RESULT_FORMAT = 2  # raised with every change of the fields
VERSIONED = ("torch", "numpy")  # the packages that compute scores
DIGEST_SHOWN = 12  # hex digits in a file name: collisions need millions of results

MeanScores = dict[str, Annotated[Mean, PlainValidator(Mean.read)]]
AccuracyScores = dict[str, Annotated[Scores, PlainValidator(Scores.read)]]
PixelScores = dict[str, Annotated[Measure, PlainValidator(Measure.read)]]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the results of all tasks share.

    `protocol`, `stores` (by role), `representation` and `selection` determine the result;
    `counts`, `scores` (by name), `details` (for a reader of the file) and `seconds` (by stage)
    came out.
    """

    task: ClassVar[str]

    protocol: Annotated[RecordedProtocol, PlainValidator(RecordedProtocol)]
    stores: Any
    representation: str
    selection: Any
    counts: Any
    scores: Any
    seconds: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def tested(self) -> StoreReference:
        """The store whose rows were scored; of a difference, the first."""
        stores = self.stores_by_role
        return stores.get("test") or next(iter(stores.values()))

    @property
    def stores_by_role(self) -> dict[str, StoreReference]:
        """Role, for instance "train", → store."""
        return dict(vars(self.stores))

    @property
    def dataset(self) -> str:
        """The dataset whose question the result answers."""
        return self.tested.dataset

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what determines the result."""
        return digest(
            [
                RESULT_FORMAT,
                self.task,
                self.protocol.parameters,
                {role: store.fingerprint for role, store in self.stores_by_role.items()},
                self.representation,
                self._selection_json(),
            ]
        )

    @property
    def name(self) -> str:
        """File name without suffix: dataset, view, encoder, representation and digest."""
        store = next(iter(self.stores_by_role.values()))
        words = [store.dataset, store.view, store.encoder, self.representation]
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words))
        return f"{readable}-{self.digest[:DIGEST_SHOWN]}"

    def path(self, results: Path) -> Path:
        """Return the path of the result below the directory of results."""
        return results / self.task / f"{self.name}.json"

    def to_json(self) -> dict[str, Any]:
        """Return what is written to the file, without the checksums."""
        return {
            "format": RESULT_FORMAT,
            "task": self.task,
            "digest": self.digest,
            "scores": {name: score.to_json() for name, score in self.scores.items()},
            "representation": self.representation,
            "stores": asdict(self.stores),
            "selection": self._selection_json(),
            "protocol": self.protocol.parameters,
            "counts": asdict(self.counts),
            "seconds": {stage: round(time, 3) for stage, time in self.seconds.items()},
            "versions": versions(),
            "details": self.details,
        }

    def _selection_json(self) -> dict[str, Any]:
        return asdict(self.selection)


@dataclass(frozen=True, kw_only=True)
class RowResult(Result):
    """Mean scores of the rows of a store, without training."""

    selection: TargetSelection
    counts: RowCounts
    scores: MeanScores


@dataclass(frozen=True, kw_only=True)
class RetrievalResult(RowResult):
    """Average precision of part retrieval: `ap`, `ap_over_parts` and `ap/<part>`."""

    task = "retrieval"
    stores: Gallery
    counts: RetrievalCounts


@dataclass(frozen=True, kw_only=True)
class RetrievalDifference(RowResult):
    """Paired difference of two retrieval results, with the same names of scores."""

    task = "retrieval-difference"
    stores: Pair


@dataclass(frozen=True, kw_only=True)
class NeighboursResult(RowResult):
    """Share of each neighbour relation among the k nearest neighbours."""

    task = "neighbours"
    stores: Gallery

    @property
    def k(self) -> int:
        """Number of neighbours of each query."""
        return int(self.protocol.parameters["k"])


@dataclass(frozen=True, kw_only=True)
class NeighboursDifference(RowResult):
    """Paired difference of two representations of one store."""

    task = "neighbours-difference"
    stores: Gallery


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Result):
    """Accuracy of a classifier on stored features."""

    stores: TrainTest
    selection: SplitSelection
    counts: SplitCounts
    scores: AccuracyScores


class LinearProbeResult(ProbeResult):
    """Scores `accuracy`, `accuracy_last_epoch` and those of the references, where fitted."""

    task = "probe-linear"


class AttentiveProbeResult(ProbeResult):
    """Scores `accuracy` and `accuracy_last_epoch`."""

    task = "probe-attentive"


class KnnProbeResult(ProbeResult):
    """Scores `k=<k>` for each number of neighbours."""

    task = "probe-knn"


class FewShotProbeResult(ProbeResult):
    """Scores `shots=<n>` for each number of training regions per class."""

    task = "probe-fewshot"


@dataclass(frozen=True, kw_only=True)
class SegmentationProbeResult(Result):
    """Scores `mIoU`, `mAcc` and `aAcc` over all pixels with a label."""

    task = "probe-segmentation"

    stores: TrainTest
    selection: SegmentationSelection
    counts: SegmentationCounts
    scores: PixelScores

    @property
    def dataset(self) -> str:
        """The label set: one store answers the questions of several of them."""
        return self.selection.labels.name

    def _selection_json(self) -> dict[str, Any]:
        return asdict(self.selection, dict_factory=_without_none)


def _without_none(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}


RESULT_TYPES: dict[str, type[Result]] = {
    kind.task: kind
    for base in (RowResult, ProbeResult, Result)
    for kind in base.__subclasses__()
    if "task" in vars(kind)
}


def versions() -> dict[str, str]:
    """Return the versions of what computes scores, from the installed metadata (without torch)."""
    return {
        "pa": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED},
    }
