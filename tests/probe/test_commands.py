"""`pa probe linear`, `knn` and `predict` as typed: stores, protocols, output, errors."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pa.data.store import find as stores
from pa.data.store.reader import Store
from pa.errors import VerificationError
from pa.probe.attentive.head import AttentiveHead
from pa.probe.linear.head import LinearHead
from pa.probe.linear.recipes import LINEAR_PROTOCOLS
from tests.support.arrays import PutStore
from tests.support.commands import Run
from tests.support.images import noise_image
from tests.support.probes import linear

TWO = ("--train-split", "train", "--test-split", "test")
QUICK = ("--epochs", 5, "--no-references")


@pytest.fixture
def both_protocols(put_store: PutStore) -> dict[str, Store]:
    return {
        "paper train": put_store("train", "paper"),
        "paper test": put_store("test", "paper", 1),
        "released train": put_store("train", "released-train", 2),
        "released test": put_store("test", "released", 3),
    }


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_protocol_means_the_recipe_and_its_stores(
    pa: Run, both_protocols: dict[str, Store], protocol: str
) -> None:
    done = pa("probe", "linear", *TWO, "--protocol", protocol, *QUICK, "--json")
    assert done.code == 0, done.err
    fields = done.json
    for role in ("train", "test"):
        expected = both_protocols[f"{protocol} {role}"].fingerprint
        assert fields["stores"][role]["fingerprint"] == expected
    assert fields["protocol"]["protocol"] == protocol
    assert ("accuracy_last_epoch" in fields["scores"]) == (protocol == "released")
    assert Path(fields["file"]).is_file()


@pytest.mark.usefixtures("both_protocols")
def test_terminal_marks_best_epoch(pa: Run) -> None:
    outcome = pa("probe", "linear", *TWO, "--protocol", "released", *QUICK).out
    assert "this is the best epoch on the test split" in outcome
    assert "chosen on the rows it is scored on and so optimistic; the last epoch gives" in outcome
    assert "best epoch" not in pa("probe", "linear", *TWO, *QUICK).out


def test_protocol_defaults_to_paper(pa: Run, both_protocols: dict[str, Store]) -> None:
    fields = pa("probe", "linear", *TWO, *QUICK, "--json").json
    assert fields["stores"]["train"]["fingerprint"] == both_protocols["paper train"].fingerprint
    cae = pa("probe", "linear", *TWO, "--protocol", "imagenet-cae", "--epochs", 12, "--json").json
    assert cae["stores"]["train"]["fingerprint"] == both_protocols["paper train"].fingerprint
    assert cae["protocol"]["optimizer"] == "lars"


def test_protocol_defaults_to_that_of_dataset(pa: Run, both_protocols: dict[str, Store]) -> None:
    Path("pa.toml").write_text(
        'dataset = "toy"\n[datasets.toy]\nroot = "."\nprotocol = "released"\n'
    )
    fields = pa("probe", "linear", *TWO, *QUICK, "--json").json
    assert fields["protocol"]["protocol"] == "released"
    assert fields["stores"]["train"]["fingerprint"] == both_protocols["released train"].fingerprint


def test_stores_of_another_recipe_are_not_taken_silently(pa: Run, put_store: PutStore) -> None:
    put_store("train", "released-train")
    put_store("test", "released", 1)
    done = pa("probe", "linear", *TWO, *QUICK)
    assert done.code == 2
    assert "holds parts cut by protocol released-train, but the recipe is paper" in done.err
    assert "Add --protocol released" in done.err
    missing = pa("probe", "linear", *TWO, *QUICK, "--protocol", "paper")
    assert missing.code == 3
    assert "--protocol paper" in missing.err


def test_stores_of_different_encoders_do_not_go_together(pa: Run, put_store: PutStore) -> None:
    put_store("train", "paper")
    other = {"name": "timm/ramp", "weights_sha256": "cd" * 32}
    put_store("test", "paper", 1, encoder=other)
    done = pa("probe", "linear", *TWO, *QUICK)
    assert done.code == 4
    assert "encoder.weights_sha256" in done.err


@pytest.mark.usefixtures("both_protocols")
def test_sweep_over_seeds_draws_figure(pa: Run) -> None:
    words = ("--lr", "0.01,0.4", "--weight-decay", "0,1e-4", "--representation", "cls,cls+pooled")
    done = pa(
        *("probe", "linear", *TWO, *words, "--seeds", 2, "--sweep", "--epochs", 5),
        *("--figure", "sweep.png"),
    )
    assert done.code == 0, done.err
    assert "chosen on held-out part of train: " in done.out
    assert "±" in done.out
    assert "ridge" in done.out
    assert "logistic" in done.out
    assert Path("sweep.png").is_file()
    sweep = list(Path("results/probe-linear").glob("*.sweep.parquet"))
    assert len(sweep) == 1
    assert len(pl.read_parquet(sweep[0])) == 16


@pytest.mark.usefixtures("both_protocols")
def test_select_split_is_used(pa: Run, put_store: PutStore) -> None:
    put_store("dev", "paper", 5)
    done = pa(
        *("probe", "linear", *TWO, "--lr", "0.01,0.4", "--sweep", "--select-split", "dev"),
        *(*QUICK, "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["details"]["chosen"]["by"]["rule"] == "split dev"
    direct = pa(*("probe", "linear", *TWO, "--lr", "0.01,0.4", "--sweep", "--select-split", "test"))
    assert direct.code == 2
    assert "are test rows too" in direct.err


@pytest.mark.usefixtures("both_protocols")
def test_few_shots_are_reported(pa: Run) -> None:
    done = pa(
        "probe", "linear", *TWO, "--shots", "1,5", "--draws", 3, *QUICK, "--figure", "few.pdf"
    )
    assert done.code == 0, done.err
    assert "few-shot linear probe" in done.out
    assert "3 draws of regions for each number" in done.out
    assert Path("few.pdf").is_file()


@pytest.mark.usefixtures("both_protocols")
def test_knn(pa: Run, both_protocols: dict[str, Store]) -> None:
    done = pa("probe", "knn", *TWO, "-k", "5,20", "--protocol", "released")
    assert done.code == 0, done.err
    assert "every k is reported, none is chosen" in done.out
    fields = pa("probe", "knn", *TWO, "--protocol", "released", "--json").json
    assert fields["stores"]["test"]["fingerprint"] == both_protocols["released test"].fingerprint
    assert list(fields["scores"]) == ["k=10", "k=20"]


@pytest.mark.usefixtures("both_protocols")
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("linear", *TWO, "--lr", "0.1,0.4"), 2, "--lr 0.1,0.4): --sweep trains all of them"),
        (("linear", *TWO, "--lr", "fast"), 2, "numbers with commas, such as 0.1,0.4,1"),
        (("linear", *TWO, "--lr", "1e39"), 2, "diverged: with learning rate 1e+39"),
        (("linear", *TWO, "--representation", "pooledd"), 2, "Did you mean pooled"),
        (("linear", *TWO, "--protocol", "papre"), 2, "Did you mean paper"),
        (("linear", *TWO, "--select-split", "dev"), 2, "add --sweep"),
        (("linear", *TWO, "--shots", "1", "--seeds", "2"), 2, "excludes --sweep and"),
        (("linear", *TWO, "--shots", "1000"), 2, "1000 shots need as many training rows"),
        (("linear", *TWO, "--figure", "a.jpg"), 2, "expected a file ending in"),
        (("linear", *TWO, "--bn-eval", "off"), 2, "unknown bn_eval of a recipe"),
        (("linear", *TWO, "--device", "gpu"), 2, "unknown device 'gpu'"),
        (("knn", *TWO, "-k", "61"), 2, "the number of training rows, 60, not 61"),
        (("knn", *TWO, "--protocol", "papre"), 2, "Did you mean paper"),
        (("linear", "--train-split", "train"), 2, "name both, or neither"),
    ],
)
def test_faults(pa: Run, words: tuple[object, ...], code: int, text: str) -> None:
    done = pa("probe", *words)
    assert done.code == code
    assert text in done.err.replace("\n", " ")


@pytest.mark.usefixtures("both_protocols")
def test_learning_rate_that_ends_above_chance_loss_is_noted(pa: Run) -> None:
    high = ("--lr", "1e9", "--epochs", 2, "--no-references")
    assert "above the 1.1 of guessing" in pa("probe", "linear", *TWO, *high).out
    assert "of guessing" not in pa("probe", "linear", *TWO, *QUICK).out


def test_run_linear_equals_the_command(pa: Run, both_protocols: dict[str, Store]) -> None:
    typed = pa("probe", "linear", *TWO, "--protocol", "released", *QUICK, "--json").json
    called = linear(
        both_protocols["released train"],
        both_protocols["released test"],
        results=Path("results"),
        recipe=replace(LINEAR_PROTOCOLS["released"], epochs=5),
        references=False,
    )
    assert called.result.digest == typed["digest"]
    assert called.result.to_json()["scores"] == typed["scores"]


# -- predict ---------------------------------------------------------------------------------------


@pytest.fixture
def extracted(pa: Run, in_empty_folder: Path) -> Store:
    """Boxes of noise photographs, encoded by a tiny real network with seeded weights."""
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), "weights.safetensors")
    Path("photos").mkdir()
    lines = ["path,x0,y0,x1,y1,label"]
    for number in range(12):
        noise_image(number).save(f"photos/{number}.png")
        lines += [f"{number}.png,{x},5,{x + 30},45,{('left', 'right')[x > 20]}" for x in (4, 40)]
    Path("boxes.csv").write_text("\n".join(lines))
    Path("pa.toml").write_text(
        'encoder = "timm/test_vit"\nview = "parts"\ndevice = "cpu"\n'
        '[datasets.photos]\nkind = "folder"\nroot = "photos"\nboxes = "boxes.csv"\n'
        '[encoders."timm/test_vit"]\ncheckpoint = "weights.safetensors"\n'
    )
    done = pa("extract", "--features", "cls,pooled", "--storage", "fp32")
    assert done.code == 0, done.err
    return next(stores.find(in_empty_folder / "features"))


def test_predict_gives_what_the_stored_features_give(pa: Run, extracted: Store) -> None:
    probed = pa(
        *("probe", "linear", "--representation", "cls+pooled", "--seeds", 2, *QUICK, "--json")
    )
    assert probed.code == 0, probed.err
    head = Path(probed.json["file"]).with_suffix(".safetensors")
    done = pa(
        *("probe", "predict", "--image", "photos/7.png", "--box", "40,5,70,45"),
        *("--head", head, "--json"),
    )
    assert done.code == 0, done.err
    row = extracted.rows.filter(path="7.png", x0=40.0)["row"].to_list()
    vector = np.concatenate([extracted.read(name, row) for name in ("cls", "pooled")], axis=1)
    expected = np.mean(
        [item.probabilities(vector)[0] for item in LinearHead.load_all(head)], axis=0
    )
    shares = {entry["class"]: entry["probability"] for entry in done.json["classes"]}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert [shares[name] for name in LinearHead.load_all(head)[0].classes] == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    assert (done.json["heads"], done.json["store"]) == (2, extracted.title)
    text = pa("probe", "predict", "--image", "photos/7.png", "--head", head).out
    assert "box 0,0,80,60; cls+pooled, mean of 2 heads trained on photos/" in text
    of_result = pa("probe", "predict", "--image", "photos/7.png", "--head", probed.json["file"])
    assert of_result.out == text


@pytest.mark.usefixtures("extracted")
def test_predict_refuses_a_result_without_a_head(pa: Run) -> None:
    probed = pa("probe", "knn", "-k", 1, "--json")
    assert probed.code == 0, probed.err
    done = pa("probe", "predict", "--image", "photos/7.png", "--head", probed.json["file"])
    assert done.code == 2
    assert "pa probe linear" in done.err


@pytest.mark.usefixtures("extracted")
def test_predict_refuses_wrong_inputs(pa: Run) -> None:
    probed = pa("probe", "linear", *QUICK, "--json").json
    head = Path(probed["file"]).with_suffix(".safetensors")
    image = ("--image", "photos/7.png")
    for words, code, text in [
        (("--image", "none.png", "--head", head), 3, "none.png does not exist"),
        ((*image, "--head", "none.safetensors"), 3, "no trained head at none.safetensors"),
        ((*image, "--head", "weights.safetensors"), 4, "is not a file of trained heads"),
        ((*image, "--head", head, "--box", "0,0,500,20"), 2, "0,0,500,20"),
    ]:
        done = pa("probe", "predict", *words)
        assert done.code == code, done.err
        assert text in done.err

    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), "weights.safetensors")
    other = pa("probe", "predict", *image, "--head", head)
    assert other.code == 4
    assert "weights.safetensors" in other.err
    assert "SHA-256" in other.err
    shutil.rmtree("features")
    gone = pa("probe", "predict", *image, "--head", head)
    assert gone.code == 3
    assert "that the heads were trained on is not in" in gone.err


@pytest.mark.usefixtures("extracted")
def test_predict_reads_attentive_heads_too(pa: Run, in_empty_folder: Path) -> None:
    done = pa("extract", "--features", "cls,patch", "--storage", "fp32", "--replace")
    assert done.code == 0, done.err
    probed = pa("probe", "attentive", "--epochs", 2, "--attention-heads", 2, "--json")
    assert probed.code == 0, probed.err
    path = Path(probed.json["file"]).with_suffix(".safetensors")
    box = ("--image", "photos/7.png", "--box", "40,5,70,45")
    shares = pa("probe", "predict", *box, "--head", path, "--json").json["classes"]
    store = next(stores.find(in_empty_folder / "features"))
    row = store.rows.filter(path="7.png", x0=40.0)["row"].to_list()
    tokens = np.concatenate([store.read("cls", row)[:, None], store.read("patch", row)], axis=1)
    head = AttentiveHead.load(path)
    expected = dict(zip(head.classes, head.probabilities(tokens)[0].tolist(), strict=True))
    actual = {entry["class"]: entry["probability"] for entry in shares}
    assert actual == pytest.approx(expected, abs=1e-5)


def test_predict_refuses_the_head_of_another_result(
    pa: Run, both_protocols: dict[str, Store], tmp_path: Path
) -> None:
    first, second = (
        Path(pa("probe", "linear", *TWO, "--protocol", name, *QUICK, "--json").json["file"])
        for name in ("paper", "released")
    )
    noise_image(0).save(tmp_path / "query.png")
    words = ("probe", "predict", "--image", tmp_path / "query.png", "--head")
    head = first.with_suffix(".safetensors")
    shutil.copy(second.with_suffix(".safetensors"), head)
    refused = pa(*words, head)
    assert refused.code == VerificationError.exit_code
    assert str(first) in refused.err
