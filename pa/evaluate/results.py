"""Result files: one JSON file per run with its scores, counts, protocol and stores.

`results/<task>/<name>.json`. The name ends in a digest of everything that determines the content
(protocol, stores, representation, selection), so a repeated run replaces its own file and no other.
Versions, times and scores are recorded and not part of the digest.

Each task has a dataclass below, named after the command that writes it. To write a result::

    result = KnnProbeResult(
        protocol=RecordedProtocol({"protocol": "dino", "k": [10, 20], ...}),
        stores=TrainTest(StoreReference.of(train), StoreReference.of(test)),
        representation="cls",
        selection=SplitSelection(rule="two stores", target="label"),
        counts=SplitCounts(classes=3, train_rows=9, ...),
        scores={"k=10": accuracies(...), "k=20": accuracies(...)},
        seconds={"read": 0.1},
        details={"device": "cpu"},
    )
    path = write_result(workspace / "results", result)  # after its tables and heads

`read_result(path).result` is an instance of the same class with equal attributes.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import PlainValidator, TypeAdapter, ValidationError

import pa
from pa.data.files import PARTIAL_SUFFIX, write_json
from pa.data.store import checksums
from pa.data.store.source import FeatureSource
from pa.data.store.spec import digest
from pa.errors import (
    FingerprintError,
    MismatchError,
    MissingError,
    NewerFormatError,
    VerificationError,
    is_newer,
)
from pa.evaluate.bootstrap import Mean
from pa.evaluate.classification import Scores
from pa.evaluate.intervals import Interval
from pa.evaluate.segmentation import Measure

RESULT_FORMAT = 2  # raised with every change of the fields
DIGEST_SHOWN = 12  # hex digits in a file name: collisions need millions of results
VERSIONED = ("torch", "numpy")  # the packages that compute scores
# What a result's name matches and is not a file of it: the JSON itself, and files of work.
NOT_COMPANIONS = (".json", ".state", PARTIAL_SUFFIX)


# -- parts of a result -------------------------------------------------------------------------


@dataclass(frozen=True)
class StoreReference:
    """A store as a result names it: enough to find it, and to read the result without it.

    `checksum` is `Store.checksum`. `spec` holds what made the features: encoder, view, transform,
    precision, and the digest of the rows.
    """

    title: str
    fingerprint: str
    checksum: str | None
    dataset: str
    split: str
    view: str
    encoder: str
    limit: int | None
    spec: dict[str, Any]

    @classmethod
    def of(cls, store: FeatureSource) -> StoreReference:
        """Describe a source of features."""
        recorded = ("encoder", "view", "transform", "precision", "rows")
        return cls(
            title=store.title,
            fingerprint=store.fingerprint,
            checksum=store.checksum,
            dataset=store.spec.dataset,
            split=store.spec.split,
            view=store.view,
            encoder=store.encoder,
            limit=store.spec.limit,
            spec={name: getattr(store.spec, name) for name in recorded},
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """Width, depth, heads and patch size of the encoder, as far as they were recorded."""
        return dict(self.spec["encoder"].get("architecture", {}))

    @property
    def encoder_options(self) -> dict[str, Any]:
        return dict(self.spec["encoder"].get("options", {}))

    @property
    def weights_sha256(self) -> str:
        return str(self.spec["encoder"].get("weights_sha256", ""))

    @property
    def input_size(self) -> int | None:
        """Side of the encoder's input in pixels."""
        side = self.spec["transform"].get("size")
        return None if side is None else int(side)

    @property
    def n_rows(self) -> int | None:
        n: int | None = self.spec["rows"].get("n")
        return n

    @property
    def rows_sha256(self) -> str | None:
        """Digest of the rows: equal for stores of the same regions."""
        sha256: str | None = self.spec["rows"].get("sha256")
        return sha256


@dataclass(frozen=True)
class Gallery:
    """The store of a result that needs no training."""

    gallery: StoreReference

    @property
    def tested(self) -> StoreReference:
        return self.gallery


@dataclass(frozen=True)
class TrainTest:
    """The stores of a probe; both are the same where one store was divided."""

    train: StoreReference
    test: StoreReference

    @property
    def tested(self) -> StoreReference:
        return self.test


@dataclass(frozen=True)
class Pair:
    """The stores of a paired difference, first minus second."""

    first: StoreReference
    second: StoreReference

    @property
    def tested(self) -> StoreReference:
        return self.first


Stores = Gallery | TrainTest | Pair


@dataclass(frozen=True)
class RecordedProtocol:
    """All choices that determine a result, as its recipe or protocol wrote them.

    `parameters` differ between tasks; the properties read those that several tasks share.
    """

    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, dict):
            raise ValueError(f"expected an object, not {self.parameters!r}")
        if not isinstance(self.parameters.get("changed", {}), dict):
            raise ValueError(f"changed is {self.parameters['changed']!r}, expected an object")

    @property
    def name(self) -> str | None:
        """The named protocol; None for a task without named protocols."""
        name = self.parameters.get("protocol")
        return None if name is None else str(name)

    @property
    def changed(self) -> dict[str, Any]:
        """Parameters that differ from the named protocol."""
        return dict(self.parameters.get("changed", {}))

    @property
    def reported(self) -> str:
        """Which of several possible scores is reported, such as "last epoch"."""
        return str(self.parameters.get("reported", ""))

    @property
    def seeds(self) -> int:
        """Number of heads whose mean is reported."""
        return int(self.parameters.get("seeds", 1))

    @property
    def sweep(self) -> dict[str, Any] | None:
        """The grid of a sweep and the rows that chose (`by`); None without a sweep."""
        return self.parameters.get("sweep")

    @property
    def is_tuned(self) -> bool:
        """Whether hyper-parameters were chosen by validation scores."""
        return any(self.parameters.get(name) for name in ("sweep", "choosing", "lr_choices"))


@dataclass(frozen=True)
class TargetSelection:
    """The column of the rows table that says which rows are relevant to each other."""

    target: str


@dataclass(frozen=True)
class SplitSelection:
    """How training and test rows of a probe were chosen; see `pa.probe.selection.SplitOptions`."""

    rule: str
    target: str
    where: str | None = None
    train_where: str | None = None
    test_where: str | None = None
    test_fraction: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class LabelsReference:
    """The label set of a segmentation, with its origin as far as it is known."""

    name: str
    classes: int
    dataset: str | None = None
    list: str | None = None
    title: str | None = None
    certainty: str | None = None
    sha256: str | None = None
    masks: str | None = None


@dataclass(frozen=True)
class SegmentationSelection:
    """Which images trained and which were scored, by which labels.

    `test_fraction` and `seed` are given where images of one split were held out, `features` where
    they were not read from a store.
    """

    rule: str
    labels: LabelsReference
    test_fraction: float | None = None
    seed: int | None = None
    features: str | None = None

    def to_json(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in ("test_fraction", "seed", "features")}
        labels = asdict(self.labels)
        return {
            "rule": self.rule,
            **{name: value for name, value in named.items() if value is not None},
            "labels": {name: value for name, value in labels.items() if value is not None},
        }


Selection = TargetSelection | SplitSelection | SegmentationSelection


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Number of rows that were scored, their images and classes, and rows left out."""

    rows: int
    images: int
    classes: int
    left_out_bad: int
    left_out_unlabelled: int

    @property
    def tested_images(self) -> int:
        return self.images

    @property
    def unreadable(self) -> int:
        """Rows of images that could not be read."""
        return self.left_out_bad


@dataclass(frozen=True, kw_only=True)
class RetrievalCounts(RowCounts):
    queries: int
    left_out_without_relevant: int


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Number of rows and images on each side of a probe, and images that both sides share."""

    classes: int
    train_rows: int
    train_images: int
    train_left_out_bad: int
    train_left_out_unlabelled: int
    test_rows: int
    test_images: int
    test_left_out_bad: int
    test_left_out_unlabelled: int
    shared_images: int

    @property
    def tested_images(self) -> int:
        return self.test_images

    @property
    def unreadable(self) -> int:
        """Rows of images that could not be read."""
        return self.train_left_out_bad + self.test_left_out_bad


@dataclass(frozen=True, kw_only=True)
class SegmentationCounts:
    """Number of windows and images on each side of a segmentation, and of classes."""

    train_windows: int
    train_windows_unlabelled: int
    train_images: int
    train_images_unlabelled: int
    train_images_bad: int
    test_windows: int
    test_images: int
    test_images_unlabelled: int
    test_images_bad: int
    classes: int
    classes_trained: int
    classes_scored: int

    @property
    def tested_images(self) -> int:
        return self.test_images

    @property
    def unreadable(self) -> int:
        """Images that could not be read."""
        return self.train_images_bad + self.test_images_bad


Counts = RowCounts | SplitCounts | SegmentationCounts


class Score(Protocol):
    """What the scores of all tasks have in common; values are fractions of 1."""

    @property
    def value(self) -> float: ...

    @property
    def n(self) -> int:
        """Number of values (rows, queries or pixels) behind the score."""

    @property
    def n_images(self) -> int:
        """Number of images they come from."""

    @property
    def interval(self) -> Interval | None: ...

    @property
    def interval_method(self) -> str:
        """How the interval was computed, or why it is missing."""

    @property
    def chance_level(self) -> float | None:
        """The score without any knowledge of the features; None where it is not defined."""

    def to_json(self) -> dict[str, Any]: ...


def _checked_score(score: Any) -> dict[str, Any]:
    """Raise `ValueError` unless a score has a finite value and an ordered interval."""
    if not isinstance(score, dict) or not _is_finite(score.get("value")):
        raise ValueError("expected a score with a finite value")
    if not -1 <= score["value"] <= 1:
        raise ValueError(f"value is {score['value']}, expected a fraction of 1")
    ends = score.get("interval")
    if ends is not None:
        is_pair = isinstance(ends, list) and len(ends) == 2 and all(map(_is_finite, ends))
        if not is_pair or ends[0] > ends[1]:
            raise ValueError(f"interval is {ends!r}, expected two numbers in order, or null")
    for name in ("n", "n_images", "n_groups"):
        if not isinstance(score.get(name, 0), int):
            raise ValueError(f"{name} is {score[name]!r}, expected a whole number")
    return score


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _reader(kind: Any) -> PlainValidator:
    """Read one score of a result file with `kind.from_json`."""

    def read(score: Any) -> Any:
        try:
            return kind.from_json(_checked_score(score))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a {kind.__name__} ({error!r})") from None

    return PlainValidator(read)


MeanScores = dict[str, Annotated[Mean, _reader(Mean)]]
AccuracyScores = dict[str, Annotated[Scores, _reader(Scores)]]
PixelScores = dict[str, Annotated[Measure, _reader(Measure)]]


# -- the result of each task -------------------------------------------------------------------


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
        """The store whose rows were scored."""
        store: StoreReference = self.stores.tested
        return store

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


@dataclass(frozen=True, kw_only=True)
class LinearProbeResult(ProbeResult):
    """Scores `accuracy`, `accuracy_last_epoch` and those of the references, where fitted."""

    task = "probe-linear"


@dataclass(frozen=True, kw_only=True)
class AttentiveProbeResult(ProbeResult):
    """Scores `accuracy` and `accuracy_last_epoch`."""

    task = "probe-attentive"


@dataclass(frozen=True, kw_only=True)
class KnnProbeResult(ProbeResult):
    """Scores `k=<k>` for each number of neighbours."""

    task = "probe-knn"


@dataclass(frozen=True, kw_only=True)
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
        return self.selection.to_json()


RESULT_TYPES: dict[str, type[Result]] = {
    kind.task: kind
    for kind in (
        RetrievalResult,
        RetrievalDifference,
        NeighboursResult,
        NeighboursDifference,
        LinearProbeResult,
        AttentiveProbeResult,
        KnnProbeResult,
        FewShotProbeResult,
        SegmentationProbeResult,
    )
}


# -- files -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ResultFile:
    """A result as it was read from its file.

    `written` is the time of its last change (UTC), `files` the checksums of the tables and heads
    that were written with it, `versions` those of the packages that computed it.
    """

    path: Path
    result: Result
    written: datetime
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def companion_difference(self, path: Path, *, full: bool = True) -> str | None:
        """Describe how a table or head differs from the one written with the result.

        Files are compared by size, and with `full` by content.
        """
        return checksums.file_difference(path, self.files, full=full)

    def difference(self, *, full: bool) -> str | None:
        """Describe the first of the tables and heads that differs, None if all are intact."""
        for name in self.files:
            reason = self.companion_difference(self.path.with_name(name), full=full)
            if reason is not None:
                return f"{name}: {reason}"
        return None


def write_result(results: Path, result: Result) -> Path:
    """Write a result below `results` atomically and return its path. Raises `StorageError`.

    Call it last: the file records the checksums of the tables and heads that exist by then.
    """
    path = result.path(results)
    content = {**result.to_json(), "files": checksums.of_files(companion_files(path))}
    write_json(path, checksums.with_checksum(content))
    return path


def companion_files(path: Path) -> Iterator[Path]:
    """Yield the tables and heads of the result at `path`, in order of their names."""
    for file in sorted(path.parent.glob(f"{path.stem}.*")):
        if not file.name.endswith(NOT_COMPANIONS):
            yield file


def read_result(path: Path) -> ResultFile:
    """Read a result file and compare it with its checksum.

    Raises
    ------
    MissingError
        The file does not exist.
    MismatchError
        It is not a result of this format.
    VerificationError
        It has changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        raise MissingError(f"no result at {path}.") from None
    except ValueError as error:
        raise MismatchError(f"{path} is not readable JSON ({error}).") from None
    version = content.get("format") if isinstance(content, dict) else None
    if is_newer(version, RESULT_FORMAT):
        raise NewerFormatError(path, "result", version, RESULT_FORMAT)
    if not isinstance(content, dict) or version != RESULT_FORMAT:
        raise MismatchError(
            f"{path}: result format {version}, this version reads {RESULT_FORMAT}. "
            f"Run the same command again."
        )
    if (reason := _json_difference(path, content)) is not None:
        raise VerificationError(
            f"{path}: {reason}. Run the command that wrote it again, or delete the file; "
            f"`pa verify` checks all of them."
        )
    try:
        task = str(content["task"])
        names = {item.name for item in fields(Result)}
        result = _adapter(task).validate_python({k: v for k, v in content.items() if k in names})
        computed_by = {str(name): str(value) for name, value in content["versions"].items()}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where, value = ".".join(map(str, first["loc"])), repr(first["input"])
        shown = value if len(value) <= 40 else value[:39] + "…"
        reason = f"{where} is {shown}: {first['msg'].removeprefix('Value error, ')}"
    except (LookupError, TypeError, AttributeError) as error:
        reason = f"it is not a result of a known task ({error!r})"
    else:
        return ResultFile(path, result, written, dict(content["files"]), computed_by)
    raise MismatchError(
        f"{path}: {reason}. Run the command that wrote it again, or delete the file."
    )


def _json_difference(path: Path, content: dict[str, Any]) -> str | None:
    """Describe how the JSON of a result differs from what was written."""
    digest = str(content.get("digest"))[:DIGEST_SHOWN]
    if not path.stem.endswith(digest):
        return f"it is the result {digest}, whose file has another name"
    if not checksums.has_checksum(content):
        return "its checksum does not match"
    return None


@cache
def _adapter(task: str) -> TypeAdapter[Result]:
    # Any other task is a probe that a user added with a subclass of `ProbeResult`.
    kind = RESULT_TYPES.get(task) or type("OtherProbeResult", (ProbeResult,), {"task": task})
    return TypeAdapter(kind)


def check_stores(file: ResultFile, stores: Mapping[str, str]) -> None:
    """Raise `FingerprintError` if a store of a result now holds other features.

    `stores` maps fingerprints to checksums (`pa.data.store.find.checksums`). A result remains
    valid after its store is deleted.
    """
    for store in file.result.stores_by_role.values():
        now = stores.get(store.fingerprint)
        if now is not None and store.checksum not in (now, None):
            raise FingerprintError(
                f"{file.path} was computed from other features of {store.title} than the store "
                f"holds now: it was extracted again, or repaired. Run the command that wrote the "
                f"result again."
            )


def versions() -> dict[str, str]:
    """Return the versions of what computes scores, from the installed metadata (without torch)."""
    return {
        "pa": pa.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONED},
    }
