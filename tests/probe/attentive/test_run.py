from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pa.data.store.reader import Store
from pa.data.store.stream import BlockShuffle
from pa.errors import CheckpointError, MismatchError, MissingError, UnknownNameError, UsageError
from pa.evaluate.result_files import read_result
from pa.probe.attentive.head import AttentiveHead
from pa.probe.attentive.recipes import ATTENTIVE_PROTOCOLS, PAPER
from pa.probe.attentive.run import AttentiveOptions, AttentiveResult
from pa.probe.heads import save_heads
from pa.probe.linear.head import LinearHead
from pa.probe.selection import SplitOptions
from tests.support.arrays import MakeStore
from tests.support.probes import attentive
from tests.support.tokens import WIDTH, token_maps

QUICK = replace(PAPER, epochs=12, batch=16, lr=0.4, order=BlockShuffle(0, 8, 32))


@pytest.fixture
def stores(make_store: MakeStore) -> tuple[Store, Store]:
    """Training and test stores, two regions of each image."""
    created = []
    for split, n, seed in (("train", 90, 0), ("test", 60, 1)):
        tokens, labels = token_maps(n, seed)
        features = {"cls": tokens[:, 0], "patch": tokens[:, 1:]}
        images = [row // 2 for row in range(n)]
        created.append(make_store(features, labels, images, split=split))
    return created[0], created[1]


def run(stores: tuple[Store, Store], tmp_path: Path, **args: Any) -> AttentiveResult:
    args = {"recipe": QUICK, "results": tmp_path / "results", **args}
    return attentive(*stores, **args)


def test_result_records_run(stores: tuple[Store, Store], tmp_path: Path) -> None:
    outcome = run(stores, tmp_path, seeds=3)
    predicted = np.stack([run.predicted for run in outcome.runs])
    truth = outcome.split.test.targets
    shares = (predicted == truth).mean(axis=1)
    assert outcome.scores.value == pytest.approx(shares.mean())
    assert outcome.scores.std == pytest.approx(np.std(shares, ddof=1))
    assert outcome.scores.value > 0.8
    assert outcome.scores.chance.majority == pytest.approx(1 / 3)
    assert outcome.scores.n_images == 30
    fields = read_result(outcome.result_path).result.to_json()
    assert fields["task"] == "probe-attentive"
    assert fields["representation"] == "cls+patch"
    assert fields["protocol"]["changed"] == {
        "epochs": 12, "batch": 16, "lr": 0.4,
        "order": {"seed": 0, "block_rows": 8, "buffer_rows": 32},
    }  # fmt: skip
    assert fields["protocol"]["seeds"] == 3
    assert fields["scores"]["accuracy"]["value"] == outcome.scores.value
    assert len(fields["scores"]["accuracy"]["each"]) == 3
    details = fields["details"]
    confusion = np.array(details["confusion"])
    assert confusion.sum() == 3 * 60
    for index, entry in enumerate(details["per_class"]):
        assert entry["n"] == (truth == index).sum()
        right = (predicted[:, truth == index] == index).mean()
        assert entry["accuracy"] == pytest.approx(right)
    assert details["lr"] == 0.4
    assert details["chosen"] is None
    assert details["resumed_after_epoch"] is None
    patch_bytes = 90 * 9 * WIDTH * 4
    assert details["memory"] == {"kept": True, "bytes": patch_bytes}
    curves = pl.read_parquet(outcome.curves_path)
    assert curves.height == 36
    assert curves["test_accuracy"].is_nan().all()
    assert curves.filter(seed=2)["train_loss"].to_list() == outcome.runs[2].train_loss.tolist()
    assert sorted(path.suffix for path in outcome.result_path.parent.iterdir()) == [
        ".json", ".parquet", ".safetensors",
    ]  # fmt: skip


def test_saved_head_gives_scored_predictions(stores: tuple[Store, Store], tmp_path: Path) -> None:
    outcome = run(stores, tmp_path, seeds=2)
    test = stores[1]
    tokens = np.concatenate([test.read("cls")[:, None], test.read("patch")], axis=1)
    heads = AttentiveHead.load_all(outcome.head_path)
    assert len(heads) == 2
    for index, head in enumerate(heads):
        assert np.array_equal(head.predict(tokens), outcome.runs[index].predicted)
        assert head.classes == outcome.split.classes
        assert head.representation == "cls+patch"
        assert head.fingerprint == stores[0].fingerprint
        shares = head.probabilities(tokens)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
        assert np.array_equal(shares.argmax(axis=1), head.predict(tokens))
    np.testing.assert_array_equal(
        AttentiveHead.load(outcome.head_path).logits(tokens), outcome.heads[0].logits(tokens)
    )
    halves = tokens.astype(np.float16)
    np.testing.assert_allclose(heads[0].logits(halves), heads[0].logits(tokens), atol=0.05)
    with pytest.raises(MismatchError, match=r"\(n, 1 \+ L, 64\), not \(60, 10, 63\)"):
        heads[0].logits(tokens[:, :, :63])
    with pytest.raises(MismatchError, match=r"not \(60, 64\)"):
        heads[0].logits(tokens[:, 0])


def test_foreign_file_is_not_an_attentive_head(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    with pytest.raises(MissingError, match="`pa probe attentive` train heads"):
        AttentiveHead.load_all(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a file of attentive heads"):
        AttentiveHead.load_all(path)
    weight = np.zeros((2, 3), np.float32)
    LinearHead(weight, weight[:, 0], ("a", "b"), "cls", "f").save(path)
    with pytest.raises(CheckpointError, match="holds linear heads, expected attentive heads"):
        AttentiveHead.load_all(path)


def test_equal_heads_are_equal_files(tmp_path: Path) -> None:
    """Safetensors writes its metadata in another order in every process."""
    code = (
        "import sys, torch; from pa.probe.tensorfile import tensor_bytes;"
        "fields = {name: name.upper() for name in 'abcdefgh'};"
        "sys.stdout.buffer.write(tensor_bytes({'y': torch.arange(3), 'x': torch.ones(2)}, fields))"
    )
    command = [sys.executable, "-c", code]
    result = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)]
    assert result[0] == result[1] == result[2]
    path = tmp_path / "file.safetensors"
    path.write_bytes(result[0])
    assert load_file(path)["y"].tolist() == [0, 1, 2]
    with safe_open(path, framework="pt") as file:
        assert file.metadata().items() > {name: name.upper() for name in "abcdefgh"}.items()


# -- choosing a learning rate ----------------------------------------------------------------------


def test_learning_rate_is_selected_on_training_images(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    outcome = run(stores, tmp_path, seeds=2, lr=(1e30, 1e-5, 0.4))
    assert outcome.choice is not None
    sweep = outcome.choice.sweep
    means = sweep.group_by("lr").agg(pl.col("accuracy").mean()).sort("accuracy")
    assert outcome.recipe.lr == means["lr"][-1] == 0.4
    assert sweep.filter(lr=1e30)["diverged"].to_list() == [1, 1]
    assert sweep.filter(lr=1e30)["accuracy"].null_count() == 2
    assert sweep["chosen"].to_list() == [False] * 4 + [True] * 2
    chosen = read_result(outcome.result_path).result.to_json()["details"]["chosen"]
    assert chosen["rule"] == "held-out part of train"
    assert chosen["rows"] + chosen["fit_rows"] == 90
    assert chosen["rows"] % 2 == 0  # whole images, of two rows each
    # The reported heads are those of this rate alone, trained on all rows.
    alone = run(stores, tmp_path / "alone", recipe=replace(QUICK, lr=0.4),
                seeds=2)  # fmt: skip
    assert outcome.head_path.name != alone.head_path.name
    for name, tensor in load_file(alone.head_path).items():
        assert torch.equal(tensor, load_file(outcome.head_path)[name]), name


def test_divergence_of_every_rate_is_an_error(stores: tuple[Store, Store], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training diverged: with learning rate 1e\+30, 1e\+31"):
        run(stores, tmp_path, lr=(1e30, 1e31))


def test_select_split_with_test_rows_is_refused(
    stores: tuple[Store, Store], tmp_path: Path, make_store: MakeStore
) -> None:
    tokens, labels = token_maps(30, 2)
    val = make_store({"cls": tokens[:, 0], "patch": tokens[:, 1:]}, labels, split="val")
    outcome = run(stores, tmp_path, lr=(1e-5, 0.4), select_split=val)
    assert outcome.recipe.lr == 0.4
    assert (
        read_result(outcome.result_path).result.to_json()["details"]["chosen"]["rule"]
        == "split val"
    )
    with pytest.raises(UsageError, match="are test rows too"):
        run(stores, tmp_path, lr=(1e-5, 0.4), select_split=stores[1])


# -- recipes ---------------------------------------------------------------------------------------


def test_released_reports_the_best_epoch_and_says_so(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    released = replace(ATTENTIVE_PROTOCOLS["released"], epochs=5, batch=32, lr=0.4)
    outcome = run(stores, tmp_path, recipe=released, seeds=2)
    fields = read_result(outcome.result_path).result.to_json()
    assert fields["protocol"]["reported"] == "best epoch on the test split"
    curves = pl.read_parquet(outcome.curves_path)
    best = curves.group_by("seed").agg(pl.col("test_accuracy").max())["test_accuracy"].mean()
    last = curves.filter(epoch=5)["test_accuracy"].mean()
    assert fields["scores"]["accuracy"]["value"] == pytest.approx(best)
    assert fields["scores"]["accuracy_last_epoch"]["value"] == pytest.approx(last)


def test_held_out_images_of_one_store(stores: tuple[Store, Store], tmp_path: Path) -> None:
    result = attentive(
        stores[0],
        results=tmp_path / "results",
        recipe=replace(QUICK, epochs=1),
        split=SplitOptions(test_fraction=0.3),
    )
    images = result.split.train.images, result.split.test.images
    assert not set(images[0].tolist()) & set(images[1].tolist())
    assert result.split.rule == "held out"


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missing", "kept"), [("patch", "cls"), ("cls", "patch")])
def test_stores_without_the_tokens(
    make_store: MakeStore, tmp_path: Path, missing: str, kept: str
) -> None:
    tokens, labels = token_maps(30)
    features = {"cls": tokens[:, 0], "patch": tokens[:, 1:]}
    store = make_store({kept: features[kept]}, labels)
    with pytest.raises(UnknownNameError) as caught:
        attentive(store, results=tmp_path)
    message = str(caught.value)
    assert f"unknown representation '{missing}'" in message
    assert "reads class and patch tokens" in message
    wanted = ",".join(dict.fromkeys([kept, "cls", "patch"]))
    assert f"--features {wanted}" in message
    assert "--replace" in message


def test_tokens_of_two_widths(make_store: MakeStore, tmp_path: Path) -> None:
    tokens, labels = token_maps(30)
    store = make_store({"cls": tokens[:, 0, :32], "patch": tokens[:, 1:]}, labels)
    with pytest.raises(UsageError, match=r"class tokens have the shape \(32,\) and patch tokens"):
        attentive(store, results=tmp_path)


def test_width_not_divisible_by_heads_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    tokens, labels = token_maps(30)
    store = make_store({"cls": tokens[:, 0, :48], "patch": tokens[:, 1:, :48]}, labels)
    with pytest.raises(UsageError, match="heads of width 64 do not divide the tokens' width 48"):
        attentive(store, results=tmp_path)
    result = attentive(store, results=tmp_path, recipe=replace(QUICK, attention_heads=4, epochs=1))
    assert result.heads[0].geometry.attention_heads == 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"seeds": 0}, "the number of seeds must be 1 or more, not 0"),
        ({"lr": (0.1, 0.1)}, r"positive and different: \[0.1, 0.1\]"),
        ({"lr": (0.1, -1.0)}, "positive and different"),
        ({"memory": -1.0}, "must not be negative: -1 bytes"),
    ],
)
def test_options_out_of_range(values: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        AttentiveOptions(**values)


# -- killed and resumed ----------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from pa.data.store.reader import Store
from pa.data.store.stream import BlockShuffle
from pa.probe.attentive.recipes import PAPER
from pa.probe.attentive.run import AttentiveOptions, run_attentive
from pa.probe.selection import ProbeStores
from pa.progress import Silent

class KillsItself(Silent):
    steps = 0
    def advance(self, n):
        self.steps += n
        if self.steps == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)

train, test, results, KILL_AT = *map(Path, sys.argv[1:4]), int(sys.argv[4])
recipe = replace(PAPER, epochs=12, batch=16, lr=0.4, order=BlockShuffle(0, 8, 32))
run_attentive(
    ProbeStores(Store.open(train), Store.open(test)),
    AttentiveOptions(recipe=recipe, seeds=2, lr=LRS),
    results=results, progress=KillsItself(),
)
"""


@pytest.mark.parametrize(("lr", "kill_at"), [((0.4,), 33), ((0.1, 0.4), 41), ((0.1, 0.4), 97)])
def test_kill_minus_nine_in_the_middle_and_type_it_again(
    stores: tuple[Store, Store], tmp_path: Path, lr: tuple[float, ...], kill_at: int
) -> None:
    """Killed while training, while choosing, and while training after a choice."""
    undisturbed = run(stores, tmp_path / "whole", seeds=2, lr=lr)
    results = tmp_path / "killed"
    words = [str(stores[0].path), str(stores[1].path), str(results), str(kill_at)]
    code = KILLED.replace("LRS", repr(lr))
    done = subprocess.run([sys.executable, "-c", code, *words], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    left = sorted(path.suffixes[-2] for path in (results / "probe-attentive").iterdir())
    assert left[-1] == (".choosing" if kill_at == 41 else ".training")
    resumed = run(stores, tmp_path, results=results, seeds=2, lr=lr)
    assert resumed.head_path.name == undisturbed.head_path.name
    assert resumed.head_path.read_bytes() == undisturbed.head_path.read_bytes()
    assert resumed.scores == undisturbed.scores
    names = {path.name for path in resumed.result_path.parent.iterdir()}
    assert names == {path.name for path in undisturbed.result_path.parent.iterdir()}
    if kill_at != 41:
        details = json.loads(resumed.result_path.read_text())["details"]
        assert details["resumed_after_epoch"] >= 1


def test_no_resume_restarts(stores: tuple[Store, Store], tmp_path: Path) -> None:
    results = tmp_path / "killed"
    words = [str(stores[0].path), str(stores[1].path), str(results), "33"]
    code = KILLED.replace("LRS", "()")
    subprocess.run([sys.executable, "-c", code, *words], check=False, timeout=120)
    assert list((results / "probe-attentive").glob("*.state"))
    outcome = run(stores, tmp_path, results=results, seeds=2, resume=False)
    assert outcome.runs[0].resumed == 0
    assert not list((results / "probe-attentive").glob("*.state"))


def test_heads_of_all_seeds_share_a_file(stores: tuple[Store, Store], tmp_path: Path) -> None:
    outcome = run(stores, tmp_path, recipe=replace(QUICK, epochs=1))
    outcome.heads[0].save(tmp_path / "one.safetensors")
    assert load_file(tmp_path / "one.safetensors")["weight"].shape == (1, 3, WIDTH)
    save_heads(tmp_path / "two.safetensors", [outcome.heads[0], outcome.heads[0]])
    assert load_file(tmp_path / "two.safetensors")["query"].shape == (2, WIDTH)
