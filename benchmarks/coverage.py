"""How often intervals hold the truth: simulated sets of images, fixed seeds.

    python benchmarks/coverage.py [--sets 300]

Each set has images of one to four parts; the rows of an image share a random direction. The truth
is the mean over all sets. Printed for each number of images: the share of the sets whose 95 %
interval holds the truth, and the mean half width in points, of

- part retrieval for new images (queries and gallery), the default interval;
- part retrieval with the gallery fixed, images resampled as queries only;
- the mean accuracy of a classifier, as `pa` states it, and by percentiles of resamples alone.
"""

from __future__ import annotations

import argparse

import numpy as np

from pa.evaluate.bootstrap import bootstrap_means
from pa.evaluate.classification import Chance, accuracy
from pa.evaluate.intervals import Interval
from pa.evaluate.retrieval import evaluate_all_pairs

IMAGES = (5, 10, 15, 20, 60)
PARTS = ("head", "leg", "tail", "wing")
CHANCE = Chance(0.25, 0.25)
RESAMPLES = 2000


def retrieval_of(n_images: int, rng: np.random.Generator) -> tuple[float, Interval, Interval]:
    """AP of one set of images, its interval for new images, and that with the gallery fixed."""
    images = np.repeat(np.arange(n_images), rng.integers(1, 5, n_images))
    parts = np.concatenate([rng.choice(4, n, replace=False) for n in np.bincount(images)])
    centres = np.random.default_rng(5).standard_normal((4, 8))
    features = centres[parts] + rng.standard_normal((n_images, 8))[images]
    features += rng.standard_normal((len(parts), 8))
    actual = evaluate_all_pairs(features.astype(np.float32), parts, with_effects=True)
    mean = bootstrap_means(actual.ap, images, parts, PARTS, effects=actual.effects).overall
    assert mean.interval is not None
    assert mean.fixed_gallery is not None
    return mean.value, mean.interval, mean.fixed_gallery


def accuracy_of(n_images: int, rng: np.random.Generator) -> tuple[float, Interval, Interval]:
    """Accuracy on ten rows of each image, its interval, and percentiles of resampled images."""
    rates = rng.beta(6, 2, n_images)
    right = rng.random((n_images, 10)) < rates[:, None]
    target = np.zeros(right.size, dtype=np.int64)
    images = np.repeat(np.arange(n_images), 10)
    score = accuracy(1 - right.ravel().astype(np.int64), target, images, CHANCE)
    each = right.mean(axis=1)[rng.integers(n_images, size=(RESAMPLES, n_images))].mean(axis=1)
    low, high = np.quantile(each, [0.025, 0.975])
    ours = Interval(score.interval.low, score.interval.high, score.interval.method)
    return score.value, ours, Interval(float(low), float(high), "percentiles")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=300, help="Simulated sets of each size.")
    sets = parser.parse_args().sets
    kinds = {
        "retrieval": (retrieval_of, ("new images", "gallery fixed")),
        "accuracy": (accuracy_of, ("as stated", "percentiles only")),
    }
    print(f"{'score':10} {'images':>6} {'interval':17} {'holds the truth':>16} {'± points':>9}")
    for score, (draw, names) in kinds.items():
        for n_images in IMAGES:
            rng = np.random.default_rng(n_images)
            drawn = [draw(n_images, rng) for _ in range(sets)]
            truth = float(np.mean([value for value, *_ in drawn]))
            for index, name in enumerate(names, start=1):
                chosen = [item[index] for item in drawn]
                held = np.mean([item.low <= truth <= item.high for item in chosen])
                half = 50 * np.mean([item.high - item.low for item in chosen])
                print(f"{score:10} {n_images:6} {name:17} {100 * held:14.1f} % {half:9.2f}")


if __name__ == "__main__":
    main()
