"""The command line: which stores and labels it takes, and that it says what the API says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pa import config as settings
from pa.commands.probe_segmentation import segmentation
from pa.data.store.reader import Store
from pa.errors import (
    AmbiguousError,
    MismatchError,
    MissingError,
    PaError,
    UnknownNameError,
    UsageError,
)
from pa.progress import Silent
from pa.tasks.plan_segmentation import plan_segmentation
from pa.tasks.probe_segmentation import (
    SegmentationRequest,
    encoder_names,
    make_recipe,
    probe_segmentation,
)
from pa.tasks.segmentation_inputs import choose_stores, source_of
from pa.tasks.segmentation_labels import label_maps, read_names

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


def test_command_equals_api(make_store: MakeStore, config: settings.Config) -> None:
    make_store("train", views=2)
    make_store("val")
    request = SegmentationRequest(iterations=3, changes=(("batch", 4),), device="cpu")
    ((run, _),) = probe_segmentation(config, request, Silent())
    (expected,) = run.results
    (said,) = json.loads(invoke(config, *SHORT, "--json").stdout)["heads"]
    assert said["scores"] == expected.result.to_json()["scores"]
    assert said["digest"] == expected.result.digest
    text = invoke(config, *SHORT, "--ceiling").stdout
    assert f"mIoU {expected.score.miou}" in text
    assert "brought to the tokens' grid" in text
    assert "changed: iterations=3" in text


def test_several_heads_and_label_sets_are_trained(
    make_store: MakeStore, config: settings.Config, tree: Path
) -> None:
    make_store("train", views=1)
    make_store("val")
    with config.file.open("a") as file:
        file.write(f'[datasets.again]\nkind = "lip"\nroot = "{tree}"\n')
    words = ["--labels", "lip", "--labels", f"again={tree}", "--lr", "1e-3,1e-2", "--json"]
    heads = json.loads(invoke(config, *SHORT, *words).stdout)["heads"]
    assert [head["protocol"]["lr"] for head in heads] == [1e-3, 1e-2, 1e-3, 1e-2]
    assert [head["selection"]["labels"]["name"] for head in heads] == [*2 * ["lip"], *2 * ["again"]]


def test_masks_of_any_folder_are_accepted(
    make_store: MakeStore, config: settings.Config, tree: Path
) -> None:
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


def test_missing_or_ambiguous_inputs_are_reported(
    make_store: MakeStore, config: settings.Config
) -> None:
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
        (
            SegmentationRequest(masks=tmp_path, names=tmp_path / "no.txt"),
            MissingError,
            "cannot be read",
        ),
    ):
        with pytest.raises(error, match=message):
            label_maps(config, request, "lip", source_of(store))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--masks . --names n.txt --labels lip", "give one or the other"),
        ("--masks .", "go together"),
        ("--names n.txt", "go together"),
        ("--limit 2", "--limit 2 is for --online"),
        ("--views 3", "--views 3 is for --online"),
        ("--plan-views 3", "--plan-views is for --plan"),
        ("--labels lip=", "expected NAME, or NAME=DIR"),
        ("--labels =here", "expected NAME, or NAME=DIR"),
        ("--labels lip --labels lip=here", "--labels names lip more than once"),
        ("--lr 1e-3,2e-3,0.001", "--lr names 0.001 more than once"),
        ("--init-seeds 1,2,1", "--init-seeds names 1 more than once"),
        ("--encoder knowing,knowing", "--encoder names knowing more than once"),
        ("--encoder a,b --train-store ab", "name stores of one encoder"),
        ("--online --train-store ab", "--online encodes anew"),
        ("--batch 4 --recipe batch=5", "the recipe's batch is given twice"),
        ("--iterations 4 --recipe iterations=5", "say the same"),
        ("--lr 0.1 --recipe lr=0.2", "say the same"),
        ("--init-seeds 1 --recipe init_seed=2", "say the same"),
        ("--recipe weight_decay=0 --recipe decay_bias=false", "weight_decay is 0"),
        ("--recipe warmup=0 --recipe warmup_ratio=0.5", "warmup is 0"),
        ("--recipe init_std=0 --init-seeds 1,2", "init_std is 0"),
        ("--lr -1", "must be positive"),
        ("--lr nan", "must be positive"),
        ("--lr inf", "positive and finite"),
        ("--init-seeds -1", "not negative"),
        ("--test-fraction 0.5", "Leave it out, or name one split twice"),
        ("--plan --online", "changes nothing in a plan"),
        ("--plan --figures 2 --ceiling", "--figures, --ceiling changes nothing"),
        ("--plan --encoder a,b", "a plan is of one encoder"),
    ],
)
def test_options_without_an_effect(
    make_store: MakeStore, config: settings.Config, words: str, message: str
) -> None:
    """Refused with all else in order: the same command without them trains."""
    make_store("train", views=1)
    make_store("val")
    found = CliRunner().invoke(segmentation, ["-w", str(config.workspace), *words.split()])
    assert isinstance(found.exception, UsageError), found.output
    assert message in str(found.exception)
    assert not config.results.exists()


@pytest.mark.parametrize("words", ["--figures 0", "--views 0", "--limit 0", "--lr="])
def test_values_that_mean_nothing(config: settings.Config, words: str) -> None:
    found = CliRunner().invoke(segmentation, ["-w", str(config.workspace), *words.split()])
    assert found.exit_code == 2
    assert "Invalid value" in found.stderr


def test_fewer_iterations_shorten_the_warm_up_however_they_are_said() -> None:
    by_option = make_recipe(SegmentationRequest(iterations=1600), "deit")
    by_field = make_recipe(SegmentationRequest(changes=(("iterations", 1600),)), "deit")
    assert by_option == by_field
    assert by_field.warmup == 15


def test_names_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("left wheel\n right wheel \n\n")
    assert read_names(file) == ("left wheel", "right wheel")
    for text, message in (("a\n\nb\n", "line 2 is empty"), ("a\nb\na\n", "lines 1 and 3 both")):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_names(file)


def test_several_encoders_are_trained_in_turn(
    make_store: MakeStore, config: settings.Config
) -> None:
    fields = {"name": "other", "weights_sha256": "cd" * 32}
    for split, views in (("train", 1), ("val", 0)):
        make_store(split, views=views)
    alone = json.loads(invoke(config, *SHORT, "--json").stdout)["heads"]
    assert encoder_names(config, SegmentationRequest(encoder="a, b")) == ("a", "b")
    missing = CliRunner().invoke(
        segmentation, ["-w", str(config.workspace), *SHORT, "--encoder", "knowing,other"]
    )
    assert isinstance(missing.exception, MissingError)
    for split, views in (("train", 1), ("val", 0)):
        make_store(split, views=views, encoder=fields)
    both = json.loads(invoke(config, *SHORT, "--encoder", "knowing,other", "--json").stdout)
    assert [head["stores"]["train"]["encoder"] for head in both["heads"]] == ["knowing", "other"]
    assert both["heads"][0]["digest"] == alone[0]["digest"]


def test_fingerprint_does_not_override_options(
    make_store: MakeStore, config: settings.Config
) -> None:
    train, test = make_store("train", views=1), make_store("val")
    for given in ({"encoder": "other"}, {"dataset": "ade20k"}):
        request = SegmentationRequest(
            train_store=train.spec.short, test_store=test.spec.short, **given
        )
        with pytest.raises(MissingError, match="has a fingerprint that begins so"):
            choose_stores(config, request)


def test_stores_that_hold_what_the_protocol_reads(
    make_store: MakeStore, config: settings.Config
) -> None:
    """Most crops first, but of the stores that have it."""
    whole = make_store("train", views=1)
    few = make_store("train", views=2, keep=("patch",))
    make_store("val")
    for representation, expected in (("layers", whole), ("patch", few)):
        train, _ = choose_stores(config, SegmentationRequest(), representation)
        assert train.fingerprint == expected.fingerprint


def test_changed_image_is_detected_with_folder_of_masks(
    make_store: MakeStore, config: settings.Config, tree: Path
) -> None:
    make_store("train")
    folder = tree.parent / "masks"
    (tree / "ann").rename(folder)
    (folder / "img").mkdir()
    (folder / "train").rename(folder / "img" / "train")
    names = tree.parent / "parts.txt"
    names.write_text("".join(f"part {i}\n" for i in range(19)))
    request = SegmentationRequest(masks=folder, names=names, iterations=2, device="cpu")
    probe_segmentation(config, request, Silent())
    image = tree / "img" / "train" / "0.png"
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(MismatchError, match="of different images"):
        probe_segmentation(config, request, Silent())


def test_recipe_fields_can_all_be_changed() -> None:
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


def test_plan_works_before_and_after_extraction(
    make_store: MakeStore, config: settings.Config
) -> None:
    before = json.loads(invoke(config, "--plan", "--json").stdout)
    assert before["work"]["train_images"] == before["work"]["test_images"] == 6
    assert before["encoder"].startswith("assumed: ViT-B/16")
    assert before["rates"]["cpu"]["encode"]["source"] == "assumed"
    assert before["rates"]["cpu"]["read"]["source"].startswith("measured here, 64 MiB")
    make_store("train", views=2)
    val = make_store("val")
    after = json.loads(invoke(config, "--plan", "--json", "--device", "cpu").stdout)
    assert after["work"]["test_windows"] == val.n_rows
    assert (after["work"]["width"], after["work"]["crop"], after["work"]["patch"]) == (24, 32, 8)
    assert after["rates"]["cpu"]["head"]["source"].startswith("measured here, 2 iterations")
    assert after["work"]["vector_bytes"] == 24 * 4
    assert after["rates"]["gpu"]["read"]["source"] == "assumed"
    text = invoke(config, "--plan", "--device", "cpu").stdout
    # Measured anew, so it may be another way and another reason than before.
    (taken,) = [line for line in text.splitlines() if line.startswith("take: ")]
    assert any(taken.startswith(f"take: {way['name']} (cpu)") for way in after["ways"])
    assert "Decided by " in taken
    assert not (config.results / "probe-segmentation").exists()
    assert not list(config.workspace.rglob(".pa-plan-*"))


def test_plan_counts_every_label_set(
    make_store: MakeStore, config: settings.Config, tree: Path
) -> None:
    names = tree.parent / "names.txt"
    names.write_text("a\nb\n")
    request = SegmentationRequest(masks=tree / "ann", names=names, lrs=(0.1, 0.2), device="cpu")
    made = plan_segmentation(config, request, None, Silent())
    assert made.work.classes == (2, 2)
