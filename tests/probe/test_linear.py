from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from pa.errors import MismatchError, UnknownNameError, UsageError, VerificationError
from pa.evaluate.results import read_result
from pa.probe.head import LinearHead
from pa.probe.linear import LINEAR_PROTOCOLS, PAPER, LinearRecipe, run_linear, train_linear
from pa.probe.selection import LabelledRows, SplitOptions

from .conftest import Floats, MakeStore, blobs

QUICK = replace(PAPER, epochs=10, batch=64)


def rows(features: Floats, labels: list[str]) -> LabelledRows:
    number = np.arange(len(labels))
    targets = np.array([int(label[1:]) for label in labels])
    return LabelledRows(features, targets, number, number)


class Counter:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.said.append(f"{title}: {total} {unit}")

    def advance(self, n: int) -> None:
        self.said.append(f"+{n}")

    def note(self, text: str) -> None:
        self.said.append(text)

    def stop(self) -> None:
        self.said.append("stop")


# -- the recipe ------------------------------------------------------------------------------------


def test_the_paper_protocol() -> None:
    recipe = LINEAR_PROTOCOLS["paper"]
    assert recipe == LinearRecipe()
    assert (recipe.lr, recipe.epochs, recipe.batch) == (0.4, 90, 1024)
    assert (recipe.momentum, recipe.weight_decay, recipe.init_std) == (0.9, 0.0, 0.01)
    rates = [recipe.lr_at(epoch) for epoch in (0, 45, 60)]
    assert rates == pytest.approx([0.4, 0.2, 0.1])


def test_what_left_the_protocol_is_recorded() -> None:
    assert PAPER.to_json()["changed"] == {}
    assert replace(PAPER, seed=4).to_json()["changed"] == {}
    assert replace(PAPER, lr=0.1, epochs=5).to_json()["changed"] == {"lr": 0.1, "epochs": 5}
    with pytest.raises(UnknownNameError, match=r"unknown protocol 'papre'. Did you mean paper"):
        LINEAR_PROTOCOLS["papre"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"epochs": 0}, "epochs and batch must be 1 or more, not 0 and 1024"),
        ({"batch": 0}, "epochs and batch must be 1 or more, not 90 and 0"),
        ({"lr": 0.0}, "the learning rate must be positive"),
        ({"lr": float("nan")}, "the learning rate must be positive"),
        ({"momentum": 1.0}, "momentum at least 0 and below 1, not 0.4 and 1.0"),
        ({"weight_decay": -1.0}, "must not be negative: -1.0, 0.01, 0"),
        ({"seed": -1}, "must not be negative: 0.0, 0.01, -1"),
    ],
)
def test_recipe_out_of_range(changed: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        LinearRecipe(**changed)  # type: ignore[arg-type]
    assert text in str(caught.value)


# -- training --------------------------------------------------------------------------------------


def test_separable_clouds_are_learnt_whole() -> None:
    run = train_linear(rows(*blobs(300)), test := rows(*blobs(90, seed=1)), PAPER)
    assert (run.predicted == test.targets).all()
    assert run.train_accuracy == 1.0
    assert run.weight.shape == (3, 5)
    assert run.bias.shape == (3,)
    assert run.train_loss.shape == (90,)
    assert run.train_loss[-1] < 0.05 < run.train_loss[0]


def test_equal_bits_for_equal_seeds_and_no_global_seeding() -> None:
    train, test = rows(*blobs(200, spread=0.7)), rows(*blobs(50, spread=0.7, seed=1))
    state = torch.random.get_rng_state()
    first, again, other = (
        train_linear(train, test, replace(QUICK, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.weight, again.weight)
    np.testing.assert_array_equal(first.train_loss, again.train_loss)
    assert not np.array_equal(first.weight, other.weight)


def test_near_logistic_regression() -> None:
    train, test = rows(*blobs(600, spread=0.5)), rows(*blobs(600, spread=0.5, seed=1))
    run = train_linear(train, test, PAPER)
    convex = LogisticRegression(C=1e4, max_iter=1000).fit(train.features, train.targets)
    expected = convex.score(test.features, test.targets)
    assert 0.6 < expected < 0.95
    assert (run.predicted == test.targets).mean() == pytest.approx(expected, abs=0.01)


def test_inputs_stay_as_they_are() -> None:
    train = rows(*blobs(60))
    before = train.features.copy()
    train.features.flags.writeable = False
    train_linear(train, train, QUICK)
    np.testing.assert_array_equal(train.features, before)


def test_progress_counts_epochs_and_always_stops() -> None:
    train = rows(*blobs(60))
    counter = Counter()
    train_linear(train, train, replace(QUICK, epochs=3), progress=counter)
    assert counter.said == ["training a linear head: 3 epochs", "+1", "+1", "+1", "stop"]
    with pytest.raises(UsageError):
        train_linear(train, train, replace(QUICK, lr=1e39), progress=counter)
    assert counter.said[-1] == "stop"


def test_divergence() -> None:
    train = rows(100 * blobs(60)[0], blobs(60)[1])
    with pytest.raises(UsageError, match="training diverged: with learning rate") as caught:
        train_linear(train, train, replace(QUICK, lr=1e38))
    assert "epoch 1 of 10. Lower the learning rate with --lr" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("side", "value"), [("training", np.nan), ("test", -np.inf)])
def test_features_that_are_not_finite(side: str, value: float) -> None:
    sides = {"training": rows(*blobs(60)), "test": rows(*blobs(60))}
    sides[side].features[[3, 7], 1] = value
    with pytest.raises(
        VerificationError, match=f"2 {side} rows hold NaN or infinity: rows 3, 7. "
    ) as e:
        train_linear(sides["training"], sides["test"], QUICK)
    assert "pa verify" in str(e.value)
    assert e.value.exit_code == 5


def test_sides_that_do_not_fit() -> None:
    train = rows(*blobs(60))
    with pytest.raises(MismatchError, match="have width 5, test features 7"):
        train_linear(train, rows(*blobs(60, width=7)), QUICK)
    with pytest.raises(UsageError, match="class 3, but the training rows have classes 0 to 2"):
        train_linear(train, rows(*blobs(60, n_classes=4)), QUICK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    train = rows(*blobs(60))
    with pytest.raises(UsageError, match=r"no device 'cuda': torch finds no GPU. Use --device cpu"):
        train_linear(train, train, QUICK, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_the_cpu() -> None:
    train, test = rows(*blobs(600, spread=0.5)), rows(*blobs(600, spread=0.5, seed=1))
    runs = [train_linear(train, test, PAPER, device=device) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(runs[0].weight, runs[1].weight, atol=1e-4)
    assert (runs[0].predicted == runs[1].predicted).mean() > 0.995


# -- one call --------------------------------------------------------------------------------------


def test_run_linear_writes_result_and_head(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    train = make_store({"cls": features, "pooled": features}, labels)
    test = make_store({"cls": features[:30], "pooled": features[:30]}, labels[:30], split="val")
    done = run_linear(
        train, test, results=tmp_path / "results", representation="pooled", recipe=QUICK
    )
    assert done.score.value == 1.0
    assert done.confusion.tolist() == (10 * np.eye(3, dtype=int)).tolist()
    assert done.result_path.parent == tmp_path / "results" / "probe-linear"
    assert done.result_path.name.startswith("toy-grid-timm-ramp-pooled-")

    fields = read_result(done.result_path)
    assert fields["task"] == "probe-linear"
    assert fields["representation"] == "pooled"
    assert fields["protocol"]["changed"] == {"epochs": 10, "batch": 64}
    assert fields["stores"]["train"]["fingerprint"] == train.fingerprint
    assert fields["stores"]["test"]["title"] == test.title
    assert fields["selection"]["rule"] == "two stores"
    assert fields["counts"]["test_rows"] == 30
    assert fields["scores"]["accuracy"]["value"] == 1.0
    assert fields["scores"]["accuracy"]["chance"] == pytest.approx(
        {"majority": 1 / 3, "uniform": 1 / 3}
    )
    assert set(fields["seconds"]) == {"read", "train", "score"}
    assert fields["versions"]["torch"] == torch.__version__
    assert len(fields["details"]["train_loss"]) == 10
    assert fields["details"]["per_class"][0] == {"class": "c2", "n": 10, "accuracy": 1.0}


def test_the_head_is_saved_and_gives_the_same_predictions(
    make_store: MakeStore, tmp_path: Path
) -> None:
    features, labels = blobs(60, spread=0.6)
    store = make_store({"cls": features}, labels)
    done = run_linear(store, results=tmp_path, recipe=QUICK)
    assert done.split.rule == "held out"
    assert done.head_path == done.result_path.with_suffix(".safetensors")
    head = LinearHead.load(done.head_path)
    assert head.classes == ("c2", "c1", "c0")
    assert (head.representation, head.fingerprint) == ("cls", store.fingerprint)
    np.testing.assert_array_equal(head.weight, done.run.weight)
    np.testing.assert_array_equal(
        head.predict(done.split.test.read("cls").features), done.run.predicted
    )
    with safe_open(done.head_path, framework="pt") as file:
        assert file.get_tensor("weight").shape == (3, 5)
        assert json.loads(file.metadata()["classes"]) == ["c2", "c1", "c0"]


def test_the_same_run_replaces_itself_and_another_does_not(
    make_store: MakeStore, tmp_path: Path
) -> None:
    features, labels = blobs(60)
    store = make_store({"cls": features}, labels)
    first = run_linear(store, results=tmp_path, recipe=QUICK)
    again = run_linear(store, results=tmp_path, recipe=QUICK)
    assert again.result_path == first.result_path
    others = [
        run_linear(store, results=tmp_path, recipe=replace(QUICK, seed=1)),
        run_linear(store, results=tmp_path, recipe=QUICK, options=SplitOptions(seed=1)),
        run_linear(store, results=tmp_path, recipe=QUICK, options=SplitOptions(where="row > 2")),
    ]
    assert len({first.result_path, *(other.result_path for other in others)}) == 4
    assert len(list((tmp_path / "probe-linear").iterdir())) == 8


def test_unknown_protocol_fails_before_training(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store({"cls": blobs(60)[0]}, blobs(60)[1])
    counter = Counter()
    with pytest.raises(UnknownNameError, match="unknown protocol 'releasd'"):
        run_linear(
            store, results=tmp_path, recipe=LinearRecipe(protocol="releasd"), progress=counter
        )
    assert counter.said == []


def test_random_labels_score_at_chance(make_store: MakeStore, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1200, 4)).astype(np.float32)
    images = np.repeat(np.arange(300), 4).tolist()
    labels = [f"c{index}" for index in generator.integers(0, 3, 1200)]
    store = make_store({"cls": features}, labels, images)
    score = run_linear(store, results=tmp_path, recipe=QUICK).score
    assert score.interval.method == "bootstrap over images"
    assert score.interval.low < score.chance.uniform < score.interval.high


def test_a_class_without_test_rows(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    store = make_store({"cls": features}, labels)
    options = SplitOptions(train_where="row < 30", test_where="row >= 30 AND label != 'c1'")
    done = run_linear(store, results=tmp_path, recipe=QUICK, options=options)
    by_class = read_result(done.result_path)["details"]["per_class"]
    assert by_class[1] == {"class": "c1", "n": 0, "accuracy": None}
