from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pa.evaluate.bootstrap import bootstrap_means


def some_values(n_images: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values with an effect of their image, so that rows of one image are alike."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(n_images), rng.integers(1, 6, n_images))
    parts = rng.integers(3, size=len(images))
    values = 0.5 + 0.2 * rng.standard_normal(n_images)[images] + 0.05 * parts
    return values, images, parts


NAMES = ("head", "leg", "tail")


def test_means_are_means() -> None:
    values, images, parts = some_values()
    actual = bootstrap_means(values, images, parts, NAMES)
    of_parts = [values[parts == part].mean() for part in range(3)]
    assert actual.overall.value == pytest.approx(values.mean())
    assert [mean.value for mean in actual.parts.values()] == pytest.approx(of_parts)
    assert actual.over_parts.value == pytest.approx(np.mean(of_parts))
    assert actual.overall.n == len(values)
    assert actual.overall.n_images == 60
    assert sum(mean.n for mean in actual.parts.values()) == len(values)


def test_interval_equals_resampling_with_scipy() -> None:
    values, images, parts = some_values()
    actual = bootstrap_means(values, images, parts, NAMES).overall
    sums, counts = np.bincount(images, values), np.bincount(images)
    reference = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5000,
        random_state=1,
    ).confidence_interval
    width = reference.high - reference.low
    assert actual.low == pytest.approx(reference.low, abs=0.05 * width)
    assert actual.high == pytest.approx(reference.high, abs=0.05 * width)


def test_rows_of_one_image_do_not_count_as_many() -> None:
    values, images, parts = some_values()
    by_image = bootstrap_means(values, images, parts, NAMES).overall
    by_row = bootstrap_means(values, np.arange(len(values)), parts, NAMES).overall
    assert by_image.high - by_image.low > 1.3 * (by_row.high - by_row.low)


def test_equal_differences_have_no_spread() -> None:
    values, images, parts = some_values()
    difference = (values + 0.1) - values
    actual = bootstrap_means(difference, images, parts, NAMES).overall
    assert (actual.low, actual.high) == pytest.approx((0.1, 0.1))


def test_interval_of_one_image_is_missing() -> None:
    actual = bootstrap_means(np.array([0.2, 0.4]), np.array([5, 5]), np.array([0, 2]), NAMES)
    assert actual.overall.value == pytest.approx(0.3)
    assert actual.overall.to_json()["interval"] is None
    assert list(actual.parts) == ["head", "tail"]


def test_chance_is_averaged_as_the_values_are() -> None:
    values, images, parts = some_values()
    chance = np.array([0.2, 0.3, 0.5])[parts]
    actual = bootstrap_means(values, images, parts, NAMES, chance=chance)
    assert actual.overall.chance == pytest.approx(chance.mean())
    assert actual.over_parts.chance == pytest.approx(1 / 3)
    assert actual.parts["tail"].chance == pytest.approx(0.5)
    assert actual.overall.to_json()["above_chance"] == pytest.approx(values.mean() - chance.mean())


def test_interval_of_few_images_is_students_t() -> None:
    """One value of each of 6 images: the textbook interval of a mean."""
    values = np.random.default_rng(3).random(6)
    actual = bootstrap_means(values, np.arange(6), np.zeros(6, dtype=np.int64), ("all",)).overall
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert actual.to_json()["interval"] == pytest.approx([reference.low, reference.high])
    assert actual.to_json()["interval_method"] == "t over images"
    assert type(actual).read(actual.to_json()).to_json() == actual.to_json()


def test_coverage_of_five_images() -> None:
    """Percentiles of resamples of five images hold the mean in some 80 of 100 sets."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        values = 0.5 + 0.1 * np.repeat(rng.standard_normal(5), 3) + 0.05 * rng.standard_normal(15)
        parts = np.zeros(15, dtype=np.int64)
        mean = bootstrap_means(values, np.repeat(np.arange(5), 3), parts, ("all",)).overall
        inside += mean.low <= 0.5 <= mean.high
    assert 182 <= inside <= 198
