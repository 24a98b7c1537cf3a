"""The parts of a result: stores, protocol, selection of rows, and counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pa.data.store.source import FeatureSource


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


@dataclass(frozen=True)
class TrainTest:
    """The stores of a probe; both are the same where one store was divided."""

    train: StoreReference
    test: StoreReference


@dataclass(frozen=True)
class Pair:
    """The stores of a paired difference, first minus second."""

    first: StoreReference
    second: StoreReference


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


@dataclass(frozen=True, kw_only=True)
class SegmentationSelection:
    """Which images trained and which were scored, by which labels.

    `test_fraction` and `seed` are given where images of one split were held out, `features` where
    they were not read from a store.
    """

    rule: str
    test_fraction: float | None = None
    seed: int | None = None
    features: str | None = None
    labels: LabelsReference


class Counts:
    """What the counts of all tasks have in common."""

    @property
    def tested_images(self) -> int:
        """Number of images that were scored."""
        counts = vars(self)
        return int(counts["test_images"] if "test_images" in counts else counts["images"])

    @property
    def unreadable(self) -> int:
        """Number of rows, or of images of a segmentation, that could not be read."""
        return sum(count for name, count in vars(self).items() if name.endswith("_bad"))


@dataclass(frozen=True, kw_only=True)
class RowCounts(Counts):
    """Number of rows that were scored, their images and classes, and skipped rows."""

    rows: int
    images: int
    classes: int
    left_out_bad: int
    left_out_unlabelled: int


@dataclass(frozen=True, kw_only=True)
class RetrievalCounts(RowCounts):
    queries: int
    left_out_without_relevant: int


@dataclass(frozen=True, kw_only=True)
class SplitCounts(Counts):
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


@dataclass(frozen=True, kw_only=True)
class SegmentationCounts(Counts):
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
