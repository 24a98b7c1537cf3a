"""Segmentation scores as mmsegmentation defines them: areas of a whole set, then ratios.

For each image and class, three areas are counted over the labelled pixels: correctly predicted,
predicted and labelled. Summed over the set they give IoU = correct / (predicted + labelled -
correct) and Acc = correct / labelled of each class; mIoU and mAcc are means over the classes where
that is defined, aAcc is all correct pixels over all labelled ones. Source:
mmseg/core/evaluation/metrics.py of mmsegmentation 0.11 (`intersect_and_union`, `mean_iou`).

Shapes: H and W of an image, C classes, N images, R resamples. Scores are fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.datasets.segmentation.labels import IGNORED
from pa.errors import UsageError
from pa.evaluate.intervals import (
    BOOTSTRAP,
    CONFIDENCE,
    RESAMPLES,
    SMALL_SAMPLE,
    T_IMAGES,
    Floats,
    Interval,
    Ints,
    Score,
    percentile_interval,
    t_quantile,
)

if TYPE_CHECKING:
    from scipy import sparse

Map = npt.NDArray[np.uint8]

CORRECT, PREDICTED, LABELLED = 0, 1, 2  # the order of areas
RESAMPLED_AT_ONCE = 100  # limits the counts in memory: 16 MB for 20,000 images


@dataclass(frozen=True)
class Measure(Score):
    """A score of n pixels.

    `majority` is the score of always predicting the commonest class of the training pixels.
    """

    IMAGES = "n_groups"
    NO_INTERVAL = "none: a single image has no spread"

    majority: float

    @property
    def chance_level(self) -> float:
        return self.majority

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "chance": {"majority": self.majority}}

    @classmethod
    def _read_more(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return dict(fields["chance"])

    def __str__(self) -> str:
        interval = ""
        if self.interval is not None:
            interval = f" ({100 * CONFIDENCE:.0f} % interval {self.interval.text()})"
        return f"{100 * self.value:.2f} %{interval}, chance {100 * self.majority:.2f} %"


@dataclass(frozen=True, eq=False)
class SegmentationScore:
    """mIoU, mAcc and aAcc of a set of images, and the areas they are computed from.

    `areas` (3, C), int64: pixels correct, predicted and labelled; `images` (C,): number of images
    in which a class is labelled; `majority`: class that the chance level always predicts.
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
        """Number of scored pixels."""
        return int(self.areas[LABELLED].sum())

    @property
    def n_present(self) -> int:
        """Number of classes in the mean IoU: labelled or predicted somewhere."""
        return int((union(self.areas) > 0).sum())

    @property
    def measures(self) -> dict[str, Measure]:
        """The three scores by name, as a result records them."""
        return {"mIoU": self.miou, "mAcc": self.macc, "aAcc": self.aacc}

    def table(self, names: tuple[str, ...]) -> pl.DataFrame:
        """Return IoU and Acc (null if undefined), areas and images of each class."""
        return pl.DataFrame(
            {
                "class_id": range(len(names)),
                "class": names,
                "iou": pl.Series(iou(self.areas)).fill_nan(None),
                "acc": pl.Series(class_accuracy(self.areas)).fill_nan(None),
                "right": self.areas[CORRECT],
                "predicted": self.areas[PREDICTED],
                "labelled": self.areas[LABELLED],
                "images": self.images,
            }
        )


@dataclass
class SegmentationAreas:
    """The areas of the images of a set, added one by one; zeros are not stored.

    An image has about ten of 200 classes, so that 2,000 images take a few hundred kilobytes.
    """

    n_classes: int
    n_unlabelled: int = 0
    _classes: list[Ints] = field(default_factory=list)
    _areas: list[Ints] = field(default_factory=list)

    def add(self, predicted: Map, target: Map) -> None:
        """Count one image.

        `predicted` and `target` are class ids (H, W), uint8; pixels with 255 in `target` are
        ignored. Raises `UsageError` for maps of different sizes and for unknown class ids.
        """
        areas = image_areas(predicted, target, self.n_classes)
        # mmsegmentation counts such an image, too; it adds nothing to the areas.
        if not areas[LABELLED].any():
            self.n_unlabelled += 1
            return
        present = np.flatnonzero(areas.any(axis=0))
        self._classes.append(present)
        self._areas.append(areas[:, present])

    @property
    def n_images(self) -> int:
        """Number of images with a labelled pixel."""
        return len(self._classes)

    def matrix(self) -> sparse.csr_array:
        """Return all areas, sparse (N, 3·C), int64: C correct, C predicted, C labelled."""
        rows = np.repeat(np.arange(self.n_images), [areas.size for areas in self._areas])
        offsets = self.n_classes * np.arange(3)[:, None]
        columns = np.concatenate([(offsets + present).ravel() for present in self._classes])
        values = np.concatenate([areas.ravel() for areas in self._areas])
        shape = (self.n_images, 3 * self.n_classes)
        from scipy import sparse  # loaded only when masks are scored

        return sparse.csr_array((values, (rows, columns)), shape=shape)

    def score(self, majority: int, *, seed: int = 0) -> SegmentationScore:
        """Score the set; `majority` is the commonest class of the training pixels.

        Intervals are percentiles over resampled images; below 20 images Student's t with the
        jackknife's standard error. Raises `UsageError` if no image has a labelled pixel.
        """
        if not self.n_images:
            raise UsageError(
                f"no pixel to score: none of the {self.n_unlabelled} images has a labelled one."
            )
        matrix = self.matrix()  # (N, 3·C)
        areas: Ints = matrix.sum(axis=0).reshape(3, self.n_classes)
        values, always = scores(areas), scores(always_class(areas[LABELLED], majority))
        ends: list[tuple[float, float]] = []  # none of a single image
        method = T_IMAGES if self.n_images < SMALL_SAMPLE else BOOTSTRAP
        if method == BOOTSTRAP:
            resamples = _bootstrap(matrix, self.n_classes, seed)  # (R, 3)
            ends = [percentile_interval(draws) for draws in resamples.T]
        elif self.n_images > 1:
            ends = _jackknife(matrix, values)
        n_pixels = int(areas[LABELLED].sum())
        miou, macc, aacc = (
            Measure(
                value=float(values[i]),
                n=n_pixels,
                n_images=self.n_images,
                interval=Interval(*ends[i], method) if ends else None,
                majority=float(always[i]),
            )
            for i in range(3)
        )
        labelled = matrix[:, 2 * self.n_classes :]  # (N, C)
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
    """Count the correct, predicted and labelled pixels of one image, (3, C), int64.

    Raises `UsageError` for maps of different sizes and for unknown class ids.
    """
    if predicted.shape != target.shape:
        raise UsageError(
            f"a prediction of {predicted.shape} pixels cannot be scored by labels of "
            f"{target.shape}: the two maps must be equally large."
        )
    # Pixels without a label count nowhere, as with `ignore_index` of mmsegmentation.
    scored = target != IGNORED  # (H, W)
    guess, truth = predicted[scored], target[scored]  # (scored pixels,) each
    largest = max(int(guess.max(initial=0)), int(truth.max(initial=0)))
    if largest >= n_classes:
        raise UsageError(f"class id {largest} is beyond the {n_classes} classes (0 to n - 1).")
    counted = (truth[truth == guess], guess, truth)
    return np.stack([np.bincount(ids, minlength=n_classes) for ids in counted]).astype(np.int64)


def union(areas: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels predicted or labelled, (…, C), of areas (…, 3, C)."""
    covered: npt.NDArray[Any] = areas[..., PREDICTED, :] + areas[..., LABELLED, :]
    covered -= areas[..., CORRECT, :]
    return covered


def iou(areas: npt.NDArray[Any]) -> Floats:
    """Return intersection over union, (…, C); NaN for a class neither labelled nor predicted."""
    return _ratio(areas[..., CORRECT, :], union(areas))


def class_accuracy(areas: npt.NDArray[Any]) -> Floats:
    """Return the accuracy over the pixels of each class, (…, C); NaN for one without pixels."""
    return _ratio(areas[..., CORRECT, :], areas[..., LABELLED, :])


def scores(areas: npt.NDArray[Any]) -> Floats:
    """Return mIoU, mAcc and aAcc, (3, …), of areas (…, 3, C); means skip undefined classes."""
    aacc = areas[..., CORRECT, :].sum(axis=-1) / areas[..., LABELLED, :].sum(axis=-1)
    means = [np.nanmean(iou(areas), axis=-1), np.nanmean(class_accuracy(areas), axis=-1)]
    return np.stack([*means, aacc])


def always_class(labelled: Ints, majority: int) -> Ints:
    """Return the areas (3, C) of a prediction of `majority` everywhere."""
    areas = np.zeros((3, len(labelled)), np.int64)  # (3, C)
    areas[CORRECT, majority] = labelled[majority]
    areas[PREDICTED, majority] = labelled.sum()
    areas[LABELLED] = labelled
    return areas


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    out: Floats = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _bootstrap(matrix: sparse.csr_array, n_classes: int, seed: int) -> Floats:
    """Return mIoU, mAcc and aAcc of each resample of the images, (R, 3)."""
    n_images = matrix.shape[0]
    draw = np.random.default_rng(seed)
    transposed = matrix.T.tocsr()  # (3·C, N)
    blocks = []
    for start in range(0, RESAMPLES, RESAMPLED_AT_ONCE):
        n = min(RESAMPLED_AT_ONCE, RESAMPLES - start)
        times = draw.multinomial(n_images, np.full(n_images, 1 / n_images), size=n)  # (n, N)
        areas = (transposed @ times.T).T.reshape(n, 3, n_classes)  # (n, 3, C)
        blocks.append(scores(areas).T)
    return np.concatenate(blocks)


def _jackknife(matrix: sparse.csr_array, values: Floats) -> list[tuple[float, float]]:
    """Return t intervals of mIoU, mAcc and aAcc from the scores without each image."""
    each = matrix.toarray()  # (N, 3·C)
    n_images = len(each)
    without = scores((each.sum(axis=0) - each).reshape(n_images, 3, -1))  # (3, N)
    spread = without - without.mean(axis=1, keepdims=True)
    error = np.sqrt((n_images - 1) / n_images * (spread**2).sum(axis=1))  # (3,)
    half = t_quantile(n_images) * error
    ends = zip(np.maximum(0, values - half), np.minimum(1, values + half), strict=True)
    return [(float(low), float(high)) for low, high in ends]
