"""The command line: which stores and labels it takes, and that it says what the API says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pa import config as settings
from pa.cli_segmentation import segmentation
from pa.commands.probe_segmentation import (
    SegmentationRequest,
    choose_stores,
    label_maps,
    make_recipe,
    probe_segmentation,
)
from pa.data.store import Store
from pa.errors import AmbiguousError, MissingError, PaError, UnknownNameError, UsageError
from pa.progress import Silent

MakeStore = Callable[..., Store]
SHORT = ["--iterations", "3", "--batch", "4", "--device", "cpu"]


@pytest.fixture
def config(tmp_path: Path, tree: Path) -> settings.Config:
    (tmp_path / "pa.toml").write_text(
        f'dataset = "lip"\nencoder = "knowing"\n[datasets.lip]\nroot = "{tree}"\n'
    )
    return settings.load(tmp_path)


def invoke(config: settings.Config, *words: str) -> Result:
    found = CliRunner().invoke(segmentation, ["-w", str(config.workspace), *words])
    if isinstance(found.exception, PaError):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found


def test_the_command_says_what_the_api_says(make_store: MakeStore, config: settings.Config) -> None:
    make_store("train", views=2)
    make_store("val")
    request = SegmentationRequest(iterations=3, changes=(("batch", 4),), device="cpu")
    (expected,) = probe_segmentation(config, request, Silent())
    (said,) = json.loads(invoke(config, *SHORT, "--json").stdout)["heads"]
    assert said["scores"] == expected.result.to_json()["scores"]
    assert said["digest"] == expected.result.digest
    text = invoke(config, *SHORT, "--ceiling").stdout
    assert f"mIoU {expected.score.miou}" in text
    assert "brought to the tokens' grid" in text
    assert "changed: iterations=3" in text


def test_several_heads_and_label_sets(
    make_store: MakeStore, config: settings.Config, tree: Path
) -> None:
    make_store("train", views=1)
    make_store("val")
    words = ["--labels", "lip", "--labels", f"lip={tree}", "--lr", "1e-3,1e-2", "--json"]
    heads = json.loads(invoke(config, *SHORT, *words).stdout)["heads"]
    assert [head["protocol"]["lr"] for head in heads] == [1e-3, 1e-2, 1e-3, 1e-2]


def test_any_folder_of_masks(make_store: MakeStore, config: settings.Config, tree: Path) -> None:
    make_store("train")
    folder = tree.parent / "masks"
    (tree / "ann").rename(folder)
    (folder / "img").mkdir()
    (folder / "train").rename(folder / "img" / "train")
    names = tree.parent / "parts.txt"
    names.write_text("".join(f"part {i}\n" for i in range(19)))
    words = ["--masks", str(folder), "--names", str(names), "--json", "--figures", "1"]
    (head,) = json.loads(invoke(config, *SHORT, *words).stdout)["heads"]
    assert head["selection"]["labels"]["name"] == "parts"
    assert head["counts"]["classes"] == 19


def test_stores_are_chosen_by_what_they_are_for(
    make_store: MakeStore, config: settings.Config
) -> None:
    sliding, plain, crops = (make_store("train", views=n) for n in (0, 1, 3))
    train, test = choose_stores(config, SegmentationRequest())
    assert (train.fingerprint, test.fingerprint) == (crops.fingerprint, sliding.fingerprint)
    chosen = SegmentationRequest(train_store=plain.spec.short)
    assert choose_stores(config, chosen)[0].fingerprint == plain.fingerprint
    val = make_store("val")
    train, test = choose_stores(config, SegmentationRequest())
    assert (train.spec.split, test.fingerprint) == ("train", val.fingerprint)


def test_what_is_missing_or_unclear(make_store: MakeStore, config: settings.Config) -> None:
    with pytest.raises(MissingError, match=r"pa extract .*--view windows .*--views 1"):
        choose_stores(config, SegmentationRequest())
    make_store("train", views=1)
    with pytest.raises(MissingError, match=r"sliding windows .*\n.*--views 0"):
        choose_stores(config, SegmentationRequest())
    make_store("train", views=0)
    make_store("train", views=0, transform={"size": 7})
    with pytest.raises(AmbiguousError, match="--test-store"):
        choose_stores(config, SegmentationRequest())
    with pytest.raises(UsageError, match="name both, or neither"):
        choose_stores(config, SegmentationRequest(train_split="train"))


def test_labels_that_are_not_there(
    make_store: MakeStore, config: settings.Config, tmp_path: Path
) -> None:
    store = make_store("train")
    for request, error, message in (
        (SegmentationRequest(labels=("imagenet",)), UsageError, "has no label maps"),
        (SegmentationRequest(labels=("ade20k",)), UsageError, "where do the masks of ade20k lie"),
        (SegmentationRequest(labels=("ade20k=nowhere",)), MissingError, "is not a folder"),
        (SegmentationRequest(masks=tmp_path), UsageError, "go together"),
        (
            SegmentationRequest(masks=tmp_path, names=tmp_path / "no.txt"),
            MissingError,
            "cannot be read",
        ),
    ):
        with pytest.raises(error, match=message):
            label_maps(config, request, store)


def test_every_field_of_the_recipe_can_be_changed() -> None:
    request = SegmentationRequest(
        protocol="released", iterations=1600, changes=(("weight_decay", 0), ("loss_over", "valid"))
    )
    recipe = make_recipe(request, "mae")
    assert (recipe.iterations, recipe.warmup) == (1600, 15)
    assert (recipe.weight_decay, recipe.loss_over, recipe.decay_bias) == (0, "valid", False)
    for change, error in (
        (("wait_decay", 0.1), UnknownNameError),
        (("protocol", "paper"), UnknownNameError),
        (("batch", 2.5), UsageError),
        (("decay_bias", 1), UsageError),
        (("loss_over", "most"), UsageError),
        (("beta1", 1.0), UsageError),
        (("warmup_ratio", 0.0), UsageError),
    ):
        with pytest.raises(error):
            make_recipe(SegmentationRequest(changes=(change,)), "deit")
    with pytest.raises(UnknownNameError, match="Known: paper, released"):
        make_recipe(SegmentationRequest(protocol="papers"), "deit")


def test_the_plan_before_and_after_the_extraction(
    make_store: MakeStore, config: settings.Config
) -> None:
    before = json.loads(invoke(config, "--plan", "--json").stdout)
    assert before["work"]["train_images"] == before["work"]["test_images"] == 6
    assert before["encoder"].startswith("assumed: ViT-B/16")
    assert before["rates"]["cpu"]["read"]["source"] == "assumed"
    make_store("train", views=2)
    val = make_store("val")
    after = json.loads(invoke(config, "--plan", "--json", "--device", "cpu").stdout)
    assert after["work"]["test_windows"] == val.n_rows
    assert (after["work"]["width"], after["work"]["crop"], after["work"]["patch"]) == (24, 32, 8)
    assert after["rates"]["cpu"]["read"]["source"].startswith("measured here")
    assert after["rates"]["gpu"]["read"]["source"] == "assumed"
    text = invoke(config, "--plan", "--device", "cpu").stdout
    assert "take: cached, 10 random crops on this machine (cpu)" in text
    assert not (config.results / "probe-segmentation").exists()
