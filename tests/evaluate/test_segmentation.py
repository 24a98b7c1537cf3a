"""Areas and scores against scikit-learn's confusion matrix and loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from pa.errors import UsageError
from pa.evaluate.segmentation import (
    CORRECT,
    LABELLED,
    PREDICTED,
    SegmentationAreas,
    always_class,
    image_areas,
    scores,
)

Map = npt.NDArray[np.uint8]


def random_maps(
    seed: int, n_images: int = 6, n_classes: int = 7, ignored: float = 0.3
) -> list[tuple[Map, Map]]:
    """Predictions and labels of images of unlike sizes; some classes never occur."""
    draw = np.random.default_rng(seed)
    used = draw.permutation(n_classes)[: max(2, n_classes - 2)]
    maps = []
    for _ in range(n_images):
        size = draw.integers(3, 30, 2)
        target = draw.choice(used, size).astype(np.uint8)
        predicted = np.where(draw.random(size) < 0.5, target, draw.choice(used, size))
        target[draw.random(size) < ignored] = 255
        maps.append((predicted.astype(np.uint8), target))
    return maps


def collect(maps: list[tuple[Map, Map]], n_classes: int = 7) -> SegmentationAreas:
    areas = SegmentationAreas(n_classes)
    for predicted, target in maps:
        areas.add(predicted, target)
    return areas


def by_confusion(maps: list[tuple[Map, Map]], n_classes: int) -> tuple[float, float, float]:
    """The three scores from one confusion matrix of all labelled pixels."""
    truth = np.concatenate([target[target != 255] for _, target in maps])
    guess = np.concatenate([predicted[target != 255] for predicted, target in maps])
    matrix = confusion_matrix(truth, guess, labels=range(n_classes)).astype(float)
    ious, accs = [], []
    for c in range(n_classes):
        whole = matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]
        if whole > 0:
            ious.append(matrix[c, c] / whole)
        if matrix[c].sum() > 0:
            accs.append(matrix[c, c] / matrix[c].sum())
    return sum(ious) / len(ious), sum(accs) / len(accs), matrix.trace() / matrix.sum()


@pytest.mark.parametrize("seed", range(20))
def test_scores_agree_with_a_confusion_matrix(seed: int) -> None:
    maps = random_maps(seed)
    score = collect(maps).score(majority=0)
    actual = (score.miou.value, score.macc.value, score.aacc.value)
    assert actual == pytest.approx(by_confusion(maps, 7), abs=1e-12)


def test_areas_agree_with_a_loop_over_pixels() -> None:
    predicted, target = random_maps(3)[0]
    expected = np.zeros((3, 7), int)
    for guess, truth in zip(predicted.ravel().tolist(), target.ravel().tolist(), strict=True):
        if truth == 255:
            continue
        expected[PREDICTED, guess] += 1
        expected[LABELLED, truth] += 1
        expected[CORRECT, truth] += guess == truth
    np.testing.assert_array_equal(image_areas(predicted, target, 7), expected)


def test_predictions_on_ignored_pixels_count_nowhere() -> None:
    target = np.array([[0, 255], [1, 255]], np.uint8)
    predicted = np.array([[0, 2], [1, 2]], np.uint8)
    score = collect([(predicted, target)], 3).score(majority=0)
    assert (score.miou.value, score.aacc.value, score.n_pixels) == (1.0, 1.0, 2)
    assert score.n_present == 2


def test_class_predicted_but_not_labelled_counts_in_miou_only() -> None:
    target = np.array([[0, 0, 0, 0]], np.uint8)
    predicted = np.array([[0, 0, 0, 1]], np.uint8)
    score = collect([(predicted, target)], 3).score(majority=0)
    assert score.miou.value == pytest.approx((3 / 4 + 0) / 2)
    assert score.macc.value == pytest.approx(3 / 4)


def test_means_over_the_set_are_not_means_over_images() -> None:
    maps = [
        (np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)),
        (np.ones((1, 99), np.uint8), np.zeros((1, 99), np.uint8)),
    ]
    assert collect(maps, 2).score(majority=0).aacc.value == pytest.approx(0.01)


def test_chance_level_is_that_of_one_predicted_class() -> None:
    maps = random_maps(5)
    always = [(np.full_like(target, 2), target) for _, target in maps]
    score = collect(maps).score(majority=2)
    expected = by_confusion(always, 7)
    actual = tuple(measure.chance_level for measure in score.measures.values())
    assert actual == pytest.approx(expected, abs=1e-12)
    labelled = score.areas[LABELLED]
    np.testing.assert_array_equal(always_class(labelled, 2), collect(always).score(2).areas)


def test_interval_is_spread_over_resampled_images() -> None:
    maps = random_maps(8, n_images=25)
    score = collect(maps).score(majority=0)
    each = np.array([image_areas(predicted, target, 7) for predicted, target in maps])
    draw = np.random.default_rng(99)  # other draws: the two agree within sampling error
    resampled = [scores(each[draw.integers(0, 25, 25)].sum(0)) for _ in range(2000)]
    for index, measure in enumerate((score.miou, score.macc, score.aacc)):
        values = np.array([item[index] for item in resampled])
        assert measure.interval is not None
        ends = (measure.interval.low, measure.interval.high)
        assert ends == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.006)
        assert ends[0] < measure.value < ends[1]


def test_interval_of_few_images_is_students_t_with_jackknife() -> None:
    maps = random_maps(8, n_images=6)
    score = collect(maps).score(majority=0)
    left = [scores(collect(maps[:i] + maps[i + 1 :]).score(0).areas)[0] for i in range(6)]
    error = math.sqrt(5 / 6 * np.square(left - np.mean(left)).sum())
    half = stats.t.ppf(0.975, 5) * error
    assert score.miou.interval is not None
    ends = (score.miou.interval.low, score.miou.interval.high)
    assert ends == pytest.approx((score.miou.value - half, score.miou.value + half))
    assert score.miou.to_json()["interval_method"] == "t over images"


def test_interval_of_one_image_is_missing() -> None:
    score = collect(random_maps(1, n_images=1)).score(majority=0)
    assert score.miou.interval is None
    assert score.miou.to_json()["interval_method"].startswith("none")


def test_unlabelled_images_are_counted_and_change_nothing() -> None:
    maps = random_maps(2)
    empty = (np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    with_empty, without = collect([*maps, empty]).score(0), collect(maps).score(0)
    assert with_empty.n_unlabelled == 1
    assert with_empty.measures == without.measures


def test_table_lists_every_class_and_leaves_empty_ones_unscored() -> None:
    target = np.array([[0, 0], [1, 255]], np.uint8)
    score = collect([(target.clip(0, 1), target)], 3).score(majority=0)
    table = score.table(("sky", "sea", "cat"))
    assert table["iou"].to_list() == [1.0, 1.0, None]
    assert table["labelled"].to_list() == [2, 1, 0]
    assert table["images"].to_list() == [1, 1, 0]
    assert not any(v is not None and math.isnan(v) for v in table["acc"].to_list())


@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "equally large"),
        (np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8), "class id 7"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), 9, np.uint8), "class id 9"),
    ],
)
def test_maps_that_cannot_be_scored(predicted: Map, target: Map, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SegmentationAreas(7).add(predicted, target)


def test_score_without_labelled_pixels_is_refused() -> None:
    areas = SegmentationAreas(3)
    areas.add(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    with pytest.raises(UsageError, match="none of the 1 images"):
        areas.score(0)
