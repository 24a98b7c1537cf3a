from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn import metrics

from pa.errors import UsageError
from pa.evaluate.classification import (
    Accuracy,
    Chance,
    accuracies,
    accuracy,
    chance_level,
    confusion_matrix,
    per_class_accuracy,
    wilson,
)

CHANCE = Chance(majority=0.5, uniform=0.25)
Ints = npt.NDArray[np.int64]


def predictions(n: int, n_classes: int = 4, right: float = 0.7, seed: int = 0) -> tuple[Ints, Ints]:
    generator = np.random.default_rng(seed)
    target = generator.integers(0, n_classes, n)
    guess = generator.integers(0, n_classes, n)
    return np.where(generator.random(n) < right, target, guess), target


def score(predicted: Ints, target: Ints, groups: Ints) -> Accuracy:
    return accuracy(predicted, target, groups, CHANCE)


def test_value_and_confusion_are_those_of_scikit_learn() -> None:
    predicted, target = predictions(500)
    assert score(predicted, target, np.arange(500)).value == metrics.accuracy_score(
        target, predicted
    )
    confusion = confusion_matrix(predicted, target, 4)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(target, predicted))
    np.testing.assert_allclose(
        per_class_accuracy(confusion), metrics.recall_score(target, predicted, average=None)
    )


def test_class_without_rows_has_no_accuracy() -> None:
    confusion = confusion_matrix(np.array([0, 1]), np.array([0, 0]), 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(per_class_accuracy(confusion), [0.5, np.nan, np.nan])


def test_wilson_by_hand() -> None:
    # 81 of 263: the worked example of Newcombe (1998), Statistics in Medicine 17, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


def test_interval_of_one_row_per_image_is_wilson() -> None:
    predicted, target = predictions(263)
    actual = score(predicted, target, np.arange(263))
    assert actual.interval.method == "wilson over rows"
    assert (actual.interval.low, actual.interval.high) == wilson(actual.value, 263)
    assert (actual.n, actual.n_images) == (263, 263)


def test_bootstrap_resamples_images() -> None:
    """Rows of an image that are right or wrong together count as one."""
    predicted, target = predictions(400, right=0.6)
    repeated = [np.repeat(values, 10) for values in (predicted, target, np.arange(400))]
    actual = score(*repeated)
    assert actual.interval.method == "bootstrap over images"
    assert (actual.n, actual.n_images) == (4000, 400)
    low, high = wilson(actual.value, 400)
    assert (actual.interval.low, actual.interval.high) == pytest.approx((low, high), abs=0.01)


def test_bootstrap_agrees_with_the_plain_one() -> None:
    generator = np.random.default_rng(1)
    groups = np.sort(generator.integers(0, 60, 500))
    predicted, target = predictions(500)
    correct = predicted == target
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    plain = [
        correct[np.concatenate([members[i] for i in generator.integers(0, 60, 60)])].mean()
        for _ in range(2000)
    ]
    actual = score(predicted, target, groups).interval
    assert (actual.low, actual.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)


def test_interval_is_seeded_and_blind_to_the_order_and_names_of_groups() -> None:
    predicted, target = predictions(300)
    groups = np.repeat(np.arange(100), 3)
    first = score(predicted, target, groups)
    assert first == score(predicted, target, groups)
    assert first == score(predicted, target, 7000 - 3 * groups)
    assert first != accuracy(predicted, target, groups, CHANCE, seed=1)


def test_coverage() -> None:
    """About 95 of 100 intervals hold the true rate, 0.7 + 0.3 / 4."""
    inside = 0
    for seed in range(100):
        interval = score(*predictions(400, seed=seed), np.repeat(np.arange(100), 4)).interval
        inside += interval.low < 0.775 < interval.high
    assert 88 <= inside <= 100


@pytest.mark.parametrize("right", [0, 1])
def test_interval_without_spread_is_not_a_point(right: int) -> None:
    target = np.zeros(40, dtype=np.int64)
    actual = score(target + 1 - right, target, np.repeat(np.arange(10), 4))
    assert actual.interval.method == "wilson over images"
    assert actual.interval.high - actual.interval.low == pytest.approx(0.2775, abs=1e-3)


def test_interval_of_one_image_is_wide() -> None:
    predicted, target = predictions(40)
    actual = score(predicted, target, np.zeros(40, dtype=np.int64))
    assert actual.interval.method == "wilson over images"
    assert actual.interval.high - actual.interval.low > 0.7


def test_chance() -> None:
    train, test = np.array([1, 1, 1, 0, 2]), np.array([1, 0, 0, 2])
    assert chance_level(train, test, 5) == Chance(majority=0.25, uniform=0.2)


def test_text_and_json() -> None:
    actual = score(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]), np.arange(4))
    assert str(actual) == (
        "75.00 % (95 % interval 30.06 to 95.44, wilson over rows; n = 4 rows of 4 images; "
        "chance 50.00 %)"
    )
    fields = actual.to_json()
    assert fields["interval"] == [actual.interval.low, actual.interval.high]
    assert fields["interval_method"] == "wilson over rows"
    assert fields["chance"] == {"majority": 0.5, "uniform": 0.25}


def test_unscorable_input_is_refused() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(UsageError, match="accuracy of no rows is not defined"):
        score(none, none, none)
    with pytest.raises(UsageError, match="equally long, not 3, 3 and 2"):
        score(np.arange(3), np.arange(3), np.arange(2))


# -- several heads on the same rows ----------------------------------------------------------------


def test_scores_of_several_heads_have_mean_and_spread() -> None:
    target = predictions(300)[1]
    predicted = np.stack(
        [np.where(np.random.default_rng(s).random(300) < 0.8, target, 0) for s in range(4)]
    )
    groups = np.arange(300) // 3
    scores = accuracies(predicted, target, groups, CHANCE)
    values = [metrics.accuracy_score(target, item) for item in predicted]
    assert [item.value for item in scores.each] == pytest.approx(values)
    assert scores.each[2] == score(predicted[2], target, groups)
    assert scores.value == pytest.approx(np.mean(values))
    assert scores.std == pytest.approx(np.std(values, ddof=1))
    assert (scores.n, scores.n_images) == (300, 100)
    written = scores.to_json()
    assert written["value"] == scores.value
    assert [item["value"] for item in written["each"]] == pytest.approx(values)
    assert str(scores).startswith(
        f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f} %"
    )


def test_interval_of_mean_resamples_images_of_all_heads() -> None:
    predicted, target = predictions(400)
    groups = np.arange(400) // 4
    stack = np.stack([predicted, np.roll(predicted, 40)])
    mean = accuracies(stack, target, groups, CHANCE)
    # The plain bootstrap: draw images, average over heads and rows.
    right = (stack == target).mean(axis=0).reshape(100, 4)
    generator = np.random.default_rng(5)
    draws = [right[generator.integers(100, size=100)].mean() for _ in range(4000)]
    expected = np.quantile(draws, [0.025, 0.975])
    assert (mean.interval.low, mean.interval.high) == pytest.approx(expected, abs=0.006)
    # Equal heads give the scores of a single head.
    same = accuracies(np.stack([predicted] * 3), target, groups, CHANCE)
    assert same.std == 0
    assert same.interval == same.each[0].interval


def test_mean_of_one_head_is_its_score() -> None:
    predicted, target = predictions(50)
    scores = accuracies(predicted[None], target, np.arange(50), CHANCE)
    assert scores.each == (score(predicted, target, np.arange(50)),)
    assert scores.std is None
    assert str(scores) == str(scores.each[0])


def test_interval_of_few_images_is_students_t() -> None:
    """Images of ten rows each: the textbook interval of the mean of their accuracies."""
    predicted, target = predictions(80, right=0.6)
    groups = np.repeat(np.arange(8), 10)
    actual = score(predicted, target, groups).interval
    each = (predicted == target).reshape(8, 10).mean(axis=1)
    reference = stats.ttest_1samp(each, 0).confidence_interval()
    assert (actual.low, actual.high) == pytest.approx((reference.low, reference.high))
    assert actual.method == "t over images"


def test_draws_widen_the_interval_of_their_mean() -> None:
    """Images of many rows, so that only the draws differ: their t interval remains."""
    rng = np.random.default_rng(0)
    groups, target = np.repeat(np.arange(400), 5), np.zeros(2000, dtype=np.int64)
    rates = np.array([0.5, 0.6, 0.7, 0.8])
    predicted = (rng.random((4, 2000)) > rates[:, None]).astype(np.int64)
    fixed = accuracies(predicted, target, groups, CHANCE)
    actual = accuracies(predicted, target, groups, CHANCE, of_draws=True)
    assert actual.value == fixed.value
    values = [item.value for item in actual.each]
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    low, high = actual.interval.low, actual.interval.high
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.01)
    assert high - low > 5 * (fixed.interval.high - fixed.interval.low)
    assert "4 draws" in actual.interval.method
    single = accuracies(predicted[:1], target, groups, CHANCE, of_draws=True)
    assert "one draw" in single.interval.method
