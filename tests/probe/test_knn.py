from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from pa.errors import MismatchError, OutOfRangeError, UsageError, VerificationError
from pa.evaluate.result_files import read_result
from pa.probe import knn
from pa.probe.knn import KnnOptions, nearest_votes, run_knn
from pa.probe.selection import LabelledRows, ProbeStores
from tests.support.arrays import MakeStore, blobs


def rows(n: int, seed: int, dtype: type = np.float32) -> LabelledRows:
    features, labels = blobs(n, 4, 8, spread=0.8, seed=seed)
    scales = np.random.default_rng(seed).uniform(0.5, 2, (n, 1))
    number = np.arange(n)
    targets = np.array([int(label[1:]) for label in labels])
    return LabelledRows((scales * features).astype(dtype), targets, number, number)


TRAIN, TEST = rows(300, 0), rows(150, 1)


def unit(features: np.ndarray) -> np.ndarray:
    x = features.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def by_formula(k: int, temperature: float) -> np.ndarray:
    cosines = unit(TEST.features) @ unit(TRAIN.features).T
    votes = np.zeros((len(cosines), 4))
    for row, line in enumerate(cosines):
        for neighbour in np.argsort(-line)[:k]:
            votes[row, TRAIN.targets[neighbour]] += np.exp(line[neighbour] / temperature)
    return votes.argmax(1)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_the_formula(temperature: float) -> None:
    ks = (1, 10, 50, 300)
    predicted = nearest_votes(TRAIN, TEST, 4, ks, temperature)
    assert predicted.shape == (4, 150)
    for k, values in zip(ks, predicted, strict=True):
        np.testing.assert_array_equal(values, by_formula(k, temperature))


def test_equals_scikit_learn_with_the_weights_as_a_callable() -> None:
    reference = KNeighborsClassifier(
        20,
        weights=lambda distance: np.exp((1 - distance) / 0.07),
        metric="cosine",
        algorithm="brute",
    ).fit(TRAIN.features, TRAIN.targets)
    actual = nearest_votes(TRAIN, TEST, 4, (20,))[0]
    np.testing.assert_array_equal(actual, reference.predict(TEST.features))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest_votes(TRAIN, TEST, 4, (10, 200))
    monkeypatch.setattr(knn, "TEST_BLOCK", 7)
    monkeypatch.setattr(knn, "TRAIN_BLOCK", 41)
    np.testing.assert_array_equal(nearest_votes(TRAIN, TEST, 4, (10, 200)), whole)


def test_votes_with_small_temperature_do_not_overflow() -> None:
    first = nearest_votes(TRAIN, TEST, 4, (1,))
    np.testing.assert_array_equal(nearest_votes(TRAIN, TEST, 4, (50,), 1e-4), first)


def test_knn_accepts_half_precision_rows() -> None:
    train, test = rows(300, 0, np.float16), rows(150, 1, np.float16)
    actual = nearest_votes(train, test, 4, (20,))
    np.testing.assert_array_equal(
        actual,
        nearest_votes(
            replace(train, features=train.features.astype(np.float32)),
            replace(test, features=test.features.astype(np.float32)),
            4,
            (20,),
        ),
    )


@pytest.mark.parametrize(("ks", "shown"), [((10, 301), "301"), ((0,), "0"), ((), "an empty list")])
def test_k_out_of_range(ks: tuple[int, ...], shown: str) -> None:
    with pytest.raises(OutOfRangeError) as caught:
        nearest_votes(TRAIN, TEST, 4, ks)
    text = f"k must be between 1 and the number of training rows, 300, not {shown}."
    assert text in str(caught.value)
    assert caught.value.exit_code == 2


def test_knn_refuses_wrong_options() -> None:
    with pytest.raises(UsageError, match="the temperature must be positive, not 0"):
        nearest_votes(TRAIN, TEST, 4, (5,), 0)
    narrow = replace(TEST, features=TEST.features[:, :5])
    with pytest.raises(MismatchError, match="have width 8, test features 5"):
        nearest_votes(TRAIN, narrow, 4, (5,))
    torn = replace(TEST, features=TEST.features.copy())
    torn.features[9, 3] = np.nan
    with pytest.raises(
        VerificationError, match="test features: 1 rows hold NaN or infinity: rows 9"
    ):
        nearest_votes(TRAIN, torn, 4, (5,))


def test_run_knn_reports_every_k(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features[:30]}, labels[:30], split="val")
    done = run_knn(ProbeStores(train, test), results=tmp_path)
    assert list(done.scores) == [10, 20]  # 100 and 200 are more than there are rows
    fields = read_result(done.result_path).result.to_json()
    assert fields["task"] == "probe-knn"
    assert fields["protocol"]["temperature"] == 0.07
    assert fields["scores"]["k=10"]["value"] == 1.0
    assert fields["scores"]["k=10"]["chance"]["uniform"] == pytest.approx(1 / 3)
    with pytest.raises(OutOfRangeError, match="the number of training rows, 60, not 100"):
        run_knn(ProbeStores(train, test), KnnOptions(ks=(100,)), results=tmp_path)
