"""Segmentation scores as mmsegmentation defines them: areas of a whole set, then ratios.

Of every image three areas per class are kept, counted over the pixels that have a label: pixels
predicted rightly, pixels predicted, pixels labelled. Summed over the set they give
IoU = right / (predicted + labelled - right) and Acc = right / labelled of each class; mIoU and mAcc
are means over the classes where that is defined, aAcc is all right pixels over all labelled ones.
Source: mmseg/core/evaluation/metrics.py of mmsegmentation 0.11 (`intersect_and_union`,
`mean_iou`).

Shapes: H and W of an image, C classes, N images, R resamples. Scores are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from pa.data.datasets.segmentation.labels import IGNORED
from pa.errors import UsageError
from pa.evaluate.classification import RESAMPLES
from pa.evaluate.intervals import BOOTSTRAP, CONFIDENCE, SMALL_SAMPLE, T_IMAGES, t_quantile

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Map = npt.NDArray[np.uint8]

RIGHT, PREDICTED, LABELLED = 0, 1, 2  # the order of areas
RESAMPLED_AT_ONCE = 100  # bounds the counts in memory: 16 MB for 20,000 images

ONE_IMAGE = "none: a single image has no spread"


@dataclass(frozen=True)
class Measure:
    """One score, its interval (none for a single image), and what the commonest class gives."""

    value: float
    interval: tuple[float, float] | None
    majority: float

    def __str__(self) -> str:
        between = "" if self.interval is None else f" ({_percent(*self.interval)})"
        return f"{100 * self.value:.2f} %{between}, chance {100 * self.majority:.2f} %"


@dataclass(frozen=True, eq=False)
class SegmentationScore:
    """mIoU, mAcc and aAcc of a set of images, and the areas behind them.

    `areas` (3, C): pixels right, predicted and labelled, int64; `images` (C,): in how many images
    a class is labelled; `majority` is the class that the chance level always predicts.
    """

    miou: Measure
    macc: Measure
    aacc: Measure
    areas: Ints
    images: Ints
    n_images: int
    n_unlabelled: int
    majority: int

    @property
    def n_pixels(self) -> int:
        """Pixels scored."""
        return int(self.areas[LABELLED].sum())

    @property
    def n_present(self) -> int:
        """Classes that are in the mean of IoU: labelled or predicted somewhere."""
        return int((union(self.areas) > 0).sum())

    @property
    def interval_method(self) -> str:
        """How the intervals were found, or why there is none."""
        if self.n_images < SMALL_SAMPLE:
            return ONE_IMAGE if self.n_images == 1 else T_IMAGES
        return BOOTSTRAP

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Name of each score → value, n (pixels), images, interval, chance level."""
        named = {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc}
        return {
            name: {
                "value": measure.value,
                "n": self.n_pixels,
                "n_groups": self.n_images,
                "interval": None if measure.interval is None else list(measure.interval),
                "interval_method": self.interval_method,
                "confidence": CONFIDENCE,
                "chance": {"majority": measure.majority},
            }
            for name, measure in named.items()
        }

    def table(self, names: tuple[str, ...]) -> pl.DataFrame:
        """One line per class: IoU and Acc (null where not defined), areas in pixels, images."""
        return pl.DataFrame(
            {
                "class_id": range(len(names)),
                "class": names,
                "iou": pl.Series(iou(self.areas)).fill_nan(None),
                "acc": pl.Series(class_accuracy(self.areas)).fill_nan(None),
                "right": self.areas[RIGHT],
                "predicted": self.areas[PREDICTED],
                "labelled": self.areas[LABELLED],
                "images": self.images,
            }
        )


@dataclass
class SegmentationAreas:
    """The areas of every image of a set, added one by one; only what is not zero is kept.

    A class map beside 200 classes holds some ten: 2,000 images take a few hundred kilobytes.
    """

    n_classes: int
    n_unlabelled: int = 0
    _classes: list[Ints] = field(default_factory=list)
    _areas: list[Ints] = field(default_factory=list)

    def add(self, predicted: Map, target: Map) -> None:
        """Count one image: class ids (H, W), uint8 both; 255 in `target` is left out of all areas.

        Raises `UsageError` for maps of unlike sizes and for class ids beyond the classes.
        """
        areas = image_areas(predicted, target, self.n_classes)
        if not areas[LABELLED].any():
            self.n_unlabelled += 1
            return
        present = np.flatnonzero(areas.any(axis=0))
        self._classes.append(present)
        self._areas.append(areas[:, present])

    @property
    def n_images(self) -> int:
        """Images with a labelled pixel."""
        return len(self._classes)

    def matrix(self) -> sparse.csr_array:
        """All areas, (N, 3·C), int64, sparse: C of right, C of predicted, C of labelled pixels."""
        rows = np.repeat(np.arange(self.n_images), [areas.size for areas in self._areas])
        offsets = self.n_classes * np.arange(3)[:, None]
        columns = np.concatenate([(offsets + present).ravel() for present in self._classes])
        values = np.concatenate([areas.ravel() for areas in self._areas])
        shape = (self.n_images, 3 * self.n_classes)
        return sparse.csr_array((values, (rows, columns)), shape=shape)

    def score(self, majority: int, *, seed: int = 0) -> SegmentationScore:
        """Score the set; `majority` is the commonest class of the training pixels.

        Intervals are percentiles over resampled images, and below 20 images Student's t with the
        jackknife's standard error. Raises `UsageError` where no image has a labelled pixel.
        """
        if not self.n_images:
            raise UsageError(
                f"no pixel to score: none of the {self.n_unlabelled} images has a labelled one."
            )
        matrix = self.matrix()
        areas: Ints = matrix.sum(axis=0).reshape(3, self.n_classes)
        values, always = scores(areas), scores(always_class(areas[LABELLED], majority))
        intervals: list[tuple[float, float] | None] = [None] * 3
        if 1 < self.n_images < SMALL_SAMPLE:
            intervals = _jackknife(matrix, values)
        elif self.n_images > 1:
            intervals = [_interval(of) for of in _bootstrap(matrix, self.n_classes, seed).T]
        miou, macc, aacc = (
            Measure(float(values[i]), intervals[i], float(always[i])) for i in range(3)
        )
        labelled = matrix[:, 2 * self.n_classes :]
        return SegmentationScore(
            miou,
            macc,
            aacc,
            areas=areas,
            images=np.asarray((labelled > 0).sum(axis=0), dtype=np.int64),
            n_images=self.n_images,
            n_unlabelled=self.n_unlabelled,
            majority=majority,
        )


def image_areas(predicted: Map, target: Map, n_classes: int) -> Ints:
    """Pixels right, predicted and labelled of one image, (3, C), int64, over labelled pixels.

    Raises `UsageError` for maps of unlike sizes and for class ids beyond the classes.
    """
    if predicted.shape != target.shape:
        raise UsageError(
            f"a prediction of {predicted.shape} pixels cannot be scored by labels of "
            f"{target.shape}: the two maps must be equally large."
        )
    scored = target != IGNORED
    guess, truth = predicted[scored], target[scored]
    largest = max(int(guess.max(initial=0)), int(truth.max(initial=0)))
    if largest >= n_classes:
        raise UsageError(f"class id {largest} is beyond the {n_classes} classes (0 to n - 1).")
    picked = (truth[truth == guess], guess, truth)
    return np.stack([np.bincount(ids, minlength=n_classes) for ids in picked]).astype(np.int64)


def union(areas: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels predicted or labelled, (…, C), of areas (…, 3, C)."""
    covered: npt.NDArray[Any] = areas[..., PREDICTED, :] + areas[..., LABELLED, :]
    covered -= areas[..., RIGHT, :]
    return covered


def iou(areas: npt.NDArray[Any]) -> Floats:
    """Intersection over union, (…, C); NaN for a class neither labelled nor predicted."""
    return _ratio(areas[..., RIGHT, :], union(areas))


def class_accuracy(areas: npt.NDArray[Any]) -> Floats:
    """Share of each class's pixels predicted rightly, (…, C); NaN for a class without pixels."""
    return _ratio(areas[..., RIGHT, :], areas[..., LABELLED, :])


def scores(areas: npt.NDArray[Any]) -> Floats:
    """mIoU, mAcc and aAcc, (3, …), of areas (…, 3, C); means leave out what is not defined."""
    all_right = areas[..., RIGHT, :].sum(axis=-1) / areas[..., LABELLED, :].sum(axis=-1)
    means = [np.nanmean(iou(areas), axis=-1), np.nanmean(class_accuracy(areas), axis=-1)]
    return np.stack([*means, all_right])


def always_class(labelled: Ints, majority: int) -> Ints:
    """The areas (3, C) of a prediction that says `majority` everywhere."""
    areas = np.zeros((3, len(labelled)), np.int64)
    areas[RIGHT, majority] = labelled[majority]
    areas[PREDICTED, majority] = labelled.sum()
    areas[LABELLED] = labelled
    return areas


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    out: Floats = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _bootstrap(matrix: sparse.csr_array, n_classes: int, seed: int) -> Floats:
    """mIoU, mAcc and aAcc of each resample of the images, (R, 3)."""
    n_images = matrix.shape[0]
    draw = np.random.default_rng(seed)
    transposed = matrix.T.tocsr()
    blocks = []
    for start in range(0, RESAMPLES, RESAMPLED_AT_ONCE):
        n = min(RESAMPLED_AT_ONCE, RESAMPLES - start)
        times = draw.multinomial(n_images, np.full(n_images, 1 / n_images), size=n)  # (n, N)
        areas = (transposed @ times.T).T.reshape(n, 3, n_classes)
        blocks.append(scores(areas).T)
    return np.concatenate(blocks)


def _jackknife(matrix: sparse.csr_array, values: Floats) -> list[tuple[float, float] | None]:
    """t intervals of mIoU, mAcc and aAcc (3,), from the scores without each of the images."""
    each = matrix.toarray()  # (N, 3·C)
    n_images = len(each)
    without = scores((each.sum(axis=0) - each).reshape(n_images, 3, -1))  # (3, N)
    spread = without - without.mean(axis=1, keepdims=True)
    error = np.sqrt((n_images - 1) / n_images * (spread**2).sum(axis=1))
    half = t_quantile(n_images) * error
    ends = zip(np.maximum(0, values - half), np.minimum(1, values + half), strict=True)
    return [(float(low), float(high)) for low, high in ends]


def _interval(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _percent(low: float, high: float) -> str:
    return f"{100 * CONFIDENCE:.0f} % interval {100 * low:.2f} to {100 * high:.2f}"
