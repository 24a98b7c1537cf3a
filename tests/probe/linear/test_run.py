from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression

from pa.data.store.reader import Store
from pa.data.views.parts import PROTOCOLS
from pa.errors import (
    FingerprintError,
    MismatchError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from pa.evaluate.result_files import read_result
from pa.probe.linear.head import LinearHead
from pa.probe.linear.recipes import LINEAR_PROTOCOLS, PAPER, LinearRecipe
from pa.probe.linear.references import LOGISTIC_STRENGTHS, logistic
from pa.probe.linear.run import LinearOptions
from pa.probe.linear.train import Grid
from pa.probe.selection import LabelledRows, SplitOptions
from tests.support.arrays import Floats, MakeStore, blobs
from tests.support.probes import linear, train_linear

QUICK = replace(PAPER, epochs=10, batch=64)


def rows(features: Floats, labels: list[str]) -> LabelledRows:
    number = np.arange(len(labels))
    targets = np.array([int(label[1:]) for label in labels])
    return LabelledRows(features, targets, number, number)


class Counter:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.notes.append(f"{title}: {total} {unit}")

    def advance(self, n: int) -> None:
        self.notes.append(f"+{n}")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stop(self) -> None:
        self.notes.append("stop")


# -- training --------------------------------------------------------------------------------------


def test_separable_clouds_are_learnt_whole() -> None:
    run = train_linear(rows(*blobs(300)), test := rows(*blobs(90, seed=1)), PAPER)
    assert (run.predicted == test.targets).all()
    assert run.train_accuracy[-1] == 1.0
    assert run.test_accuracy[-1] == 1.0
    assert run.tensors["weight"].shape == (3, 5)
    assert run.tensors["bias"].shape == (3,)
    assert run.train_loss.shape == (90,)
    assert run.train_loss[-1] < 0.05 < run.train_loss[0]


def test_equal_seeds_give_equal_bits_without_global_seeding() -> None:
    train, test = rows(*blobs(200, spread=0.7)), rows(*blobs(50, spread=0.7, seed=1))
    state = torch.random.get_rng_state()
    first, again, other = (
        train_linear(train, test, replace(QUICK, seed=seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.tensors["weight"], again.tensors["weight"])
    np.testing.assert_array_equal(first.train_loss, again.train_loss)
    assert not np.array_equal(first.tensors["weight"], other.tensors["weight"])


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
    assert counter.notes == ["training linear heads: 3 epochs", "+1", "+1", "+1", "stop"]
    torn = replace(train, features=train.features * np.float32("nan"))
    with pytest.raises(VerificationError):
        train_linear(torn, train, QUICK, progress=counter)
    assert counter.notes[-1] == "stop"


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
        VerificationError, match=f"{side} features: 2 rows hold NaN or infinity: rows 3, 7. "
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
def test_missing_gpu_is_reported() -> None:
    train = rows(*blobs(60))
    with pytest.raises(
        UsageError, match=r"device cuda: torch .* finds no CUDA device. Use --device cpu"
    ):
        train_linear(train, train, QUICK, device="cuda")


# -- one call --------------------------------------------------------------------------------------


def test_run_linear_writes_result_and_head(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    train = make_store({"cls": features, "pooled": features}, labels)
    test = make_store({"cls": features[:30], "pooled": features[:30]}, labels[:30], split="val")
    done = linear(train, test, results=tmp_path / "results", representation="pooled", recipe=QUICK)
    assert done.scores.value == 1.0
    assert done.confusion.tolist() == (10 * np.eye(3, dtype=int)).tolist()
    assert done.result_path.parent == tmp_path / "results" / "probe-linear"
    assert done.result_path.name.startswith("toy-grid-timm-ramp-pooled-")

    fields = read_result(done.result_path).result.to_json()
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
    assert set(fields["seconds"]) == {"read", "train", "references"}
    assert fields["versions"]["torch"] == torch.__version__
    assert fields["details"]["runs"][0]["epoch"] == 10
    assert fields["details"]["confusion"] == done.confusion.tolist()
    assert fields["details"]["chosen"] is None
    assert fields["details"]["per_class"][0] == {"class": "c2", "n": 10, "accuracy": 1.0}


def test_saved_head_gives_same_predictions(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60, spread=0.6)
    store = make_store({"cls": features}, labels)
    done = linear(store, results=tmp_path, recipe=QUICK)
    assert done.split.rule == "held out"
    assert done.head_path == done.result_path.with_suffix(".safetensors")
    head = LinearHead.load(done.head_path)
    assert head.classes == ("c2", "c1", "c0")
    assert (head.representation, head.fingerprint) == ("cls", store.fingerprint)
    np.testing.assert_array_equal(head.weight, done.runs[0].tensors["weight"])
    np.testing.assert_array_equal(
        head.predict(done.split.test.read("cls").features), done.runs[0].predicted
    )
    with safe_open(done.head_path, framework="pt") as file:
        assert file.get_tensor("weight").shape == (3, 5)
        assert json.loads(file.metadata()["classes"]) == ["c2", "c1", "c0"]


def test_result_is_replaced_by_same_run_only(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    store = make_store({"cls": features}, labels)
    first = linear(store, results=tmp_path, recipe=QUICK)
    again = linear(store, results=tmp_path, recipe=QUICK)
    assert again.result_path == first.result_path
    others = [
        linear(store, results=tmp_path, recipe=replace(QUICK, seed=1)),
        linear(store, results=tmp_path, recipe=QUICK, split=SplitOptions(seed=1)),
        linear(store, results=tmp_path, recipe=QUICK, split=SplitOptions(where="row > 2")),
    ]
    assert len({first.result_path, *(other.result_path for other in others)}) == 4
    assert len(list((tmp_path / "probe-linear").iterdir())) == 12  # result, head, curves


def test_unknown_protocol_fails_before_training(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store({"cls": blobs(60)[0]}, blobs(60)[1])
    counter = Counter()
    with pytest.raises(UnknownNameError, match="unknown protocol 'releasd'"):
        linear(store, results=tmp_path, recipe=LinearRecipe(protocol="releasd"), progress=counter)
    assert counter.notes == []


def test_random_labels_score_at_chance(make_store: MakeStore, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1200, 4)).astype(np.float32)
    images = np.repeat(np.arange(300), 4).tolist()
    labels = [f"c{index}" for index in generator.integers(0, 3, 1200)]
    store = make_store({"cls": features}, labels, images)
    score = linear(store, results=tmp_path, recipe=QUICK).scores
    assert score.interval.method == "bootstrap over images"
    assert score.interval.low < score.chance.uniform < score.interval.high


def test_class_without_test_rows_is_accepted(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(60)
    store = make_store({"cls": features}, labels)
    options = SplitOptions(train_where="row < 30", test_where="row >= 30 AND label != 'c1'")
    done = linear(store, results=tmp_path, recipe=QUICK, split=options)
    by_class = read_result(done.result_path).result.to_json()["details"]["per_class"]
    assert by_class[1] == {"class": "c1", "n": 0, "accuracy": None}


# -- seeds, choosing, references -------------------------------------------------------------------


@pytest.fixture
def stores(make_store: MakeStore) -> tuple[Store, Store]:
    """Two rows per image; `cls` separates classes with errors, `pooled` is half noise."""
    created = []
    for seed, split in enumerate(("train", "val")):
        features, labels = blobs(120, spread=0.5, seed=seed)
        noise = np.random.default_rng(seed).normal(size=features.shape).astype(np.float32)
        images = (np.arange(120) // 2).tolist()
        both = {"cls": features, "pooled": (features + noise) / 2}
        created.append(make_store(both, labels, images, split=split))
    return created[0], created[1]


def test_seeds_have_a_mean_and_a_spread(stores: tuple[Store, Store], tmp_path: Path) -> None:
    recipe = replace(QUICK, seed=3)
    done = linear(*stores, results=tmp_path, recipe=recipe, seeds=3)
    targets = done.split.test.targets
    alone = [
        train_linear(
            done.split.train.read("cls"), done.split.test.read("cls"), replace(recipe, seed=seed)
        )
        for seed in (3, 4, 5)
    ]
    values = [(run.predicted == targets).mean() for run in alone]
    assert [item.value for item in done.scores.each] == pytest.approx(values)
    fields = read_result(done.result_path).result.to_json()
    score = fields["scores"]["accuracy"]
    assert score["value"] == pytest.approx(np.mean(values))
    assert score["std"] == pytest.approx(np.std(values, ddof=1))
    assert len(score["each"]) == 3
    assert fields["protocol"]["seeds"] == 3
    assert done.confusion.sum() == 3 * len(targets)
    assert [run["seed"] for run in fields["details"]["runs"]] == [3, 4, 5]
    assert len(LinearHead.load_all(done.head_path)) == 3
    curves = pl.read_parquet(done.curves_path)
    assert len(curves) == 3 * 10
    of_one = curves.filter(pl.col("seed") == 4)
    np.testing.assert_allclose(of_one["train_loss"], alone[1].train_loss, atol=1e-5)
    np.testing.assert_allclose(of_one["test_accuracy"], alone[1].test_accuracy)
    assert of_one["epoch"].to_list() == list(range(1, 11))


def test_sweep_selects_on_training_rows_and_is_saved(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    grid = Grid(("cls", "pooled"), (1e-4, 0.4), (0.0, 1e-3), (0, 1))
    done = linear(*stores, results=tmp_path, recipe=QUICK, seeds=2, grid=grid)
    assert done.choice is not None
    fields = read_result(done.result_path).result.to_json()
    chosen = fields["details"]["chosen"]
    assert chosen["by"]["rule"] == "held-out part of train"
    assert chosen["by"]["store"] == stores[0].title
    assert len(chosen["candidates"]) == 8
    assert fields["protocol"]["lr"] == chosen["lr"] == done.recipe.lr
    assert fields["protocol"]["sweep"]["lr"] == [1e-4, 0.4]
    assert fields["representation"] == chosen["representation"] == "cls"
    sweep = pl.read_parquet(done.sweep_path)
    assert len(sweep) == 16
    assert sweep["chosen"].sum() == 2
    # The reported heads are trained again, on all training rows.
    again = train_linear(
        done.split.train.read("cls"),
        done.split.test.read("cls"),
        done.recipe,
    )
    np.testing.assert_allclose(done.runs[0].tensors["weight"], again.tensors["weight"], atol=1e-5)
    assert len(done.split.train.rows) == 120


def test_sweep_selects_on_select_split(
    stores: tuple[Store, Store], make_store: MakeStore, tmp_path: Path
) -> None:
    features, labels = blobs(60, spread=0.5, seed=7)
    dev = make_store({"cls": features, "pooled": features}, labels, split="dev")
    grid = Grid(("cls",), (0.01, 0.4), (0.0,))
    done = linear(*stores, results=tmp_path, recipe=QUICK, grid=grid, select_split=dev)
    by = read_result(done.result_path).result.to_json()["details"]["chosen"]["by"]
    assert (by["rule"], by["store"], by["rows"]) == ("split dev", dev.title, 60)


def test_released_reports_the_best_epoch_and_keeps_the_last(
    make_store: MakeStore, tmp_path: Path
) -> None:
    outcome = {}
    for seed, name in enumerate(("released-train", "released")):
        features, labels = blobs(120, spread=0.8, seed=seed)
        view = PROTOCOLS[name].to_json()
        outcome[name] = make_store({"cls": features}, labels, split=name, view=view)
    recipe = replace(LINEAR_PROTOCOLS["released"], epochs=30)
    done = linear(
        outcome["released-train"],
        outcome["released"],
        results=tmp_path,
        recipe=recipe,
        seeds=2,
        references=False,
    )
    fields = read_result(done.result_path).result.to_json()
    curves = [run.test_accuracy for run in done.runs]
    best = [float(curve.max()) for curve in curves]
    last = [float(curve[-1]) for curve in curves]
    assert fields["protocol"]["reported"] == "best epoch on the test split"
    assert fields["scores"]["accuracy"]["value"] == pytest.approx(np.mean(best))
    assert fields["scores"]["accuracy_last_epoch"]["value"] == pytest.approx(np.mean(last))
    assert np.mean(best) > np.mean(last)
    paper = replace(PAPER, epochs=3)
    with pytest.raises(FingerprintError, match=r"view\.resize"):
        linear(outcome["released-train"], outcome["released"], results=tmp_path, recipe=paper)


def test_references_are_reported_with_scores(stores: tuple[Store, Store], tmp_path: Path) -> None:
    done = linear(*stores, results=tmp_path, recipe=QUICK)
    fields = read_result(done.result_path).result.to_json()
    assert set(done.references) == {"ridge", "logistic"}
    train, test = done.split.train.read("cls"), done.split.test.read("cls")
    reference, scores = done.references["logistic"]
    assert reference.model.strength in LOGISTIC_STRENGTHS
    model = logistic(train.features, train.targets, 3, [reference.model.strength])[0]
    expected = (model.predict(test.features) == test.targets).mean()
    assert scores.value == fields["scores"]["logistic"]["value"] == expected
    assert fields["details"]["references"]["ridge"]["converged"] is True
    without = linear(*stores, results=tmp_path, recipe=QUICK, references=False)
    assert "ridge" not in read_result(without.result_path).result.scores


def test_references_need_rows_to_choose_by(make_store: MakeStore, tmp_path: Path) -> None:
    features, _ = blobs(12)
    labels = ["a"] * 11 + ["b"]
    train = make_store({"cls": features}, labels)
    test = make_store({"cls": features}, labels, split="val")
    counter = Counter()
    done = linear(train, test, results=tmp_path, recipe=QUICK, progress=counter)
    assert done.references == {}
    assert any(
        "no references: a class has too few training images" in line for line in counter.notes
    )
    with pytest.raises(UsageError, match="cannot hold images out for validation"):
        linear(train, test, results=tmp_path, references=True)


def test_large_products_have_no_references_unless_asked(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pa.probe.linear.run.AUTO_SIZE", 120 * 5 * 3 - 1)
    assert linear(*stores, results=tmp_path, recipe=QUICK).references == {}
    assert linear(*stores, results=tmp_path, recipe=QUICK, references=True).references


def test_imagenet_recipe_saves_batch_norm(stores: tuple[Store, Store], tmp_path: Path) -> None:
    recipe = replace(LINEAR_PROTOCOLS["imagenet-cae"], epochs=40, batch=64, warmup=2)
    done = linear(*stores, results=tmp_path, recipe=recipe)
    head = LinearHead.load(done.head_path)
    assert head.norm is not None
    features = done.split.test.read("cls").features
    np.testing.assert_array_equal(head.predict(features), done.runs[0].predicted)
    # After forty steps the running statistics have nearly forgotten where they began.
    x = done.split.train.read("cls").features
    np.testing.assert_allclose(head.norm.mean, x.mean(0), atol=0.1)
    np.testing.assert_allclose(head.norm.var, x.var(0), atol=0.1)


def test_zero_seeds_are_refused() -> None:
    with pytest.raises(UsageError, match="number of seeds must be 1 or more, not 0"):
        LinearOptions(seeds=0)
