"""The command line: which stores and labels it takes, and that it says what the API says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import Command
from click.testing import CliRunner, Result

from pa.commands.plan.probe_segmentation import plan_segmentation
from pa.commands.probe.segmentation import segmentation
from pa.commands.probe.segmentation_inputs import (
    SegmentationInputs,
    choose_stores,
    encoder_names,
    label_maps,
    source_root,
)
from pa.data.store.reader import Store
from pa.errors import (
    AmbiguousError,
    MismatchError,
    MissingError,
    PaError,
    UnknownNameError,
    UsageError,
)
from pa.probe.segmentation.labels import read_names
from pa.probe.segmentation.recipes import RecipeOptions
from pa.probe.segmentation.run import SegmentationOptions, run_segmentation
from pa.workspace import Workspace

MakeStore = Callable[..., Store]
SHORT = ["--iterations", "3", "--batch", "4", "--device", "cpu"]


@pytest.fixture
def workspace(tmp_path: Path, tree: Path) -> Workspace:
    (tmp_path / "pa.toml").write_text(
        f'dataset = "lip"\nencoder = "knowing"\n[datasets.lip]\nroot = "{tree}"\n'
    )
    return Workspace(tmp_path)


def invoke(workspace: Workspace, *words: str, command: Command = segmentation) -> Result:
    actual = CliRunner().invoke(command, ["-w", str(workspace.path), *words])
    if isinstance(actual.exception, PaError):
        raise actual.exception
    assert actual.exit_code == 0, actual.output
    return actual


def test_command_equals_api(make_store: MakeStore, workspace: Workspace) -> None:
    make_store("train", views=2)
    make_store("val")
    inputs = SegmentationInputs()
    train, test = choose_stores(workspace, inputs)
    (expected,) = run_segmentation(
        train,
        test,
        label_maps(workspace, inputs, "lip", source_root(train)),
        workspace.config.results,
        SegmentationOptions(recipe=RecipeOptions(iterations=3, batch=4).recipe("knowing")),
    ).results
    (output,) = json.loads(invoke(workspace, *SHORT, "--json").stdout)["heads"]
    assert output["scores"] == expected.result.to_json()["scores"]
    assert output["digest"] == expected.result.digest
    text = invoke(workspace, *SHORT, "--ceiling").stdout
    assert f"mIoU {expected.score.miou}" in text
    assert "labels at token resolution" in text
    assert "changed: iterations=3" in text


def test_several_heads_and_label_sets_are_trained(
    make_store: MakeStore, workspace: Workspace, tree: Path
) -> None:
    make_store("train", views=1)
    make_store("val")
    with workspace.config.file.open("a") as file:
        file.write(f'[datasets.again]\nkind = "lip"\nroot = "{tree}"\n')
    words = ["--labels", "lip", "--labels", f"again={tree}", "--lr", "1e-3,1e-2", "--json"]
    heads = json.loads(invoke(workspace, *SHORT, *words).stdout)["heads"]
    assert [head["protocol"]["lr"] for head in heads] == [1e-3, 1e-2, 1e-3, 1e-2]
    assert [head["selection"]["labels"]["name"] for head in heads] == [*2 * ["lip"], *2 * ["again"]]


def test_masks_of_any_folder_are_accepted(
    make_store: MakeStore, workspace: Workspace, tree: Path
) -> None:
    make_store("train")
    folder = tree.parent / "masks"
    (tree / "ann").rename(folder)
    (folder / "img").mkdir()
    (folder / "train").rename(folder / "img" / "train")
    names = tree.parent / "parts.txt"
    names.write_text("".join(f"part {i}\n" for i in range(19)))
    words = ["--masks", str(folder), "--names", str(names), "--json", "--figures", "1"]
    (head,) = json.loads(invoke(workspace, *SHORT, *words).stdout)["heads"]
    assert head["selection"]["labels"]["name"] == "parts"
    assert head["counts"]["classes"] == 19


def test_stores_are_chosen_by_what_they_are_for(
    make_store: MakeStore, workspace: Workspace
) -> None:
    sliding, plain, crops = (make_store("train", views=n) for n in (0, 1, 3))
    train, test = choose_stores(workspace, SegmentationInputs())
    assert (train.fingerprint, test.fingerprint) == (crops.fingerprint, sliding.fingerprint)
    chosen = SegmentationInputs(train_store=plain.spec.short)
    assert choose_stores(workspace, chosen)[0].fingerprint == plain.fingerprint
    val = make_store("val")
    train, test = choose_stores(workspace, SegmentationInputs())
    assert (train.spec.split, test.fingerprint) == ("train", val.fingerprint)


def test_missing_or_ambiguous_inputs_are_reported(
    make_store: MakeStore, workspace: Workspace
) -> None:
    with pytest.raises(MissingError, match=r"pa extract .*--view windows .*--views 1"):
        choose_stores(workspace, SegmentationInputs())
    make_store("train", views=1)
    with pytest.raises(MissingError, match=r"sliding windows .*\n.*--views 0"):
        choose_stores(workspace, SegmentationInputs())
    make_store("train", views=0)
    make_store("train", views=0, transform={"size": 7})
    with pytest.raises(AmbiguousError, match="--test-store"):
        choose_stores(workspace, SegmentationInputs())
    with pytest.raises(UsageError, match="name both, or neither"):
        SegmentationInputs(train_split="train").check()


def test_missing_labels_are_reported(
    make_store: MakeStore, workspace: Workspace, tmp_path: Path
) -> None:
    store = make_store("train")
    for inputs, error, message in (
        (SegmentationInputs(labels=("imagenet",)), UsageError, "has no label maps"),
        (SegmentationInputs(labels=("ade20k",)), UsageError, "where are the masks of ade20k"),
        (SegmentationInputs(labels=("ade20k=nowhere",)), MissingError, "is not a folder"),
        (
            SegmentationInputs(masks=tmp_path, names=tmp_path / "no.txt"),
            MissingError,
            "cannot be read",
        ),
    ):
        with pytest.raises(error, match=message):
            label_maps(workspace, inputs, "lip", source_root(store))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--masks . --names n.txt --labels lip", "give one or the other"),
        ("--masks .", "go together"),
        ("--names n.txt", "go together"),
        ("--limit 2", "--limit 2 is for --online"),
        ("--views 3", "--views 3 is for --online"),
        ("--labels lip=", "expected NAME, or NAME=DIR"),
        ("--labels =here", "expected NAME, or NAME=DIR"),
        ("--labels lip --labels lip=here", "--labels names lip more than once"),
        ("--lr 1e-3,2e-3,0.001", "--lr names 0.001 more than once"),
        ("--init-seeds 1,2,1", "--init-seeds names 1 more than once"),
        ("--encoder knowing,knowing", "--encoder names knowing more than once"),
        ("--encoder a,b --train-store ab", "name stores of one encoder"),
        ("--online --train-store ab", "reads no --train-store"),
        ("--batch 4 --recipe batch=5", "the recipe's batch is given twice"),
        ("--iterations 4 --recipe iterations=5", "set the same field"),
        ("--lr 0.1 --recipe lr=0.2", "set the same field"),
        ("--init-seeds 1 --recipe init_seed=2", "set the same field"),
        ("--recipe weight_decay=0 --recipe decay_bias=false", "weight_decay is 0"),
        ("--recipe warmup=0 --recipe warmup_ratio=0.5", "warmup is 0"),
        ("--recipe init_std=0 --init-seeds 1,2", "init_std is 0"),
        ("--lr -1", "must be positive"),
        ("--init-seeds -1", "not negative"),
        ("--test-fraction 0.5", "Leave it out, or name one split twice"),
    ],
)
def test_options_without_an_effect(
    make_store: MakeStore, workspace: Workspace, words: str, message: str
) -> None:
    """Refused with all else in order: the same command without them trains."""
    make_store("train", views=1)
    make_store("val")
    actual = CliRunner().invoke(segmentation, ["-w", str(workspace.path), *words.split()])
    assert isinstance(actual.exception, UsageError), actual.output
    assert message in str(actual.exception)
    assert not workspace.config.results.exists()


@pytest.mark.parametrize(
    "words", ["--figures 0", "--views 0", "--limit 0", "--lr=", "--lr nan", "--lr inf"]
)
def test_values_that_mean_nothing(workspace: Workspace, words: str) -> None:
    actual = CliRunner().invoke(segmentation, ["-w", str(workspace.path), *words.split()])
    assert actual.exit_code == 2
    assert "Invalid value" in actual.stderr


def test_fewer_iterations_shorten_warm_up() -> None:
    by_option = RecipeOptions(iterations=1600).recipe("deit")
    by_field = RecipeOptions(changes=(("iterations", 1600),)).recipe("deit")
    assert by_option == by_field
    assert by_field.warmup == 15


def test_names_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("left wheel\n right wheel \n\n")
    assert read_names(file) == ("left wheel", "right wheel")
    for text, message in (("a\n\nb\n", "line 2 is empty"), ("a\nb\na\n", "lines 1 and 3 are both")):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_names(file)


def test_several_encoders_are_trained_in_turn(make_store: MakeStore, workspace: Workspace) -> None:
    fields = {"name": "other", "weights_sha256": "cd" * 32}
    for split, views in (("train", 1), ("val", 0)):
        make_store(split, views=views)
    alone = json.loads(invoke(workspace, *SHORT, "--json").stdout)["heads"]
    assert encoder_names(workspace, SegmentationInputs(), ("a", "b")) == ("a", "b")
    missing = CliRunner().invoke(
        segmentation, ["-w", str(workspace.path), *SHORT, "--encoder", "knowing,other"]
    )
    assert isinstance(missing.exception, MissingError)
    for split, views in (("train", 1), ("val", 0)):
        make_store(split, views=views, encoder=fields)
    both = json.loads(invoke(workspace, *SHORT, "--encoder", "knowing,other", "--json").stdout)
    assert [head["stores"]["train"]["encoder"] for head in both["heads"]] == ["knowing", "other"]
    assert both["heads"][0]["digest"] == alone[0]["digest"]


def test_fingerprint_does_not_override_options(make_store: MakeStore, workspace: Workspace) -> None:
    train, test = make_store("train", views=1), make_store("val")
    for encoder, dataset in (("other", None), (None, "ade20k")):
        inputs = SegmentationInputs(
            dataset, train_store=train.spec.short, test_store=test.spec.short
        )
        with pytest.raises(MissingError, match="has a fingerprint that begins with it"):
            choose_stores(workspace, inputs, encoder)


def test_stores_that_hold_what_the_protocol_reads(
    make_store: MakeStore, workspace: Workspace
) -> None:
    """Most crops first, but of the stores that have it."""
    whole = make_store("train", views=1)
    few = make_store("train", views=2, keep=("patch",))
    make_store("val")
    for representation, expected in (("layers", whole), ("patch", few)):
        train, _ = choose_stores(workspace, SegmentationInputs(), None, representation)
        assert train.fingerprint == expected.fingerprint


def test_changed_image_is_detected_with_folder_of_masks(
    make_store: MakeStore, workspace: Workspace, tree: Path
) -> None:
    make_store("train")
    folder = tree.parent / "masks"
    (tree / "ann").rename(folder)
    (folder / "img").mkdir()
    (folder / "train").rename(folder / "img" / "train")
    names = tree.parent / "parts.txt"
    names.write_text("".join(f"part {i}\n" for i in range(19)))
    words = ["--masks", str(folder), "--names", str(names), *SHORT]
    invoke(workspace, *words)
    image = tree / "img" / "train" / "0.png"
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(MismatchError, match="of different images"):
        invoke(workspace, *words)


def test_recipe_fields_can_all_be_changed() -> None:
    options = RecipeOptions(
        protocol="released", iterations=1600, changes=(("weight_decay", 0), ("loss_over", "valid"))
    )
    recipe = options.recipe("mae")
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
            RecipeOptions(changes=(change,)).recipe("deit")
    with pytest.raises(UnknownNameError, match="Known: paper, released"):
        RecipeOptions(protocol="papers").recipe("deit")


def test_plan_before_and_after_the_extraction(make_store: MakeStore, workspace: Workspace) -> None:
    def plan(*words: str) -> dict[str, Any]:
        printed = invoke(workspace, *words, "--json", command=plan_segmentation).stdout
        return dict(json.loads(printed))

    before = plan()
    assert before["work"]["train_images"] == before["work"]["test_images"] == 6
    assert before["encoder"].startswith("assumed: ViT-B/16")
    assert before["strategies"][0]["seconds"] is None
    make_store("train", views=2)
    val = make_store("val")
    after = plan()
    assert after["work"]["test_windows"] == val.n_rows
    assert (after["work"]["width"], after["work"]["crop"], after["work"]["tokens"]) == (24, 32, 16)
    assert after["work"]["vector_bytes"] == 24 * 4
    assert not (workspace.config.results / "probe-segmentation").exists()
    invoke(workspace, *SHORT)
    trained = plan(*SHORT)["strategies"][0]["train_seconds"]
    twice = plan("--iterations", "6", "--batch", "4")["strategies"][0]["train_seconds"]
    assert twice == pytest.approx(2 * trained)
    assert trained > 0
    text = invoke(workspace, command=plan_segmentation).stdout
    assert f"recommended: {after['recommended']}" in text


def test_plan_scales_the_time_of_all_heads_of_a_run(
    make_store: MakeStore, workspace: Workspace
) -> None:
    make_store("train", views=2)
    make_store("val")
    words = [*SHORT, "--lr", "1e-3,1e-2", "--json"]
    heads = json.loads(invoke(workspace, *words).stdout)["heads"]
    plan = json.loads(invoke(workspace, *words, command=plan_segmentation).stdout)
    assert [head["seconds"] for head in heads] == [heads[0]["seconds"]] * 2
    assert plan["strategies"][0]["train_seconds"] == pytest.approx(heads[0]["seconds"]["train"])


def test_plan_counts_every_head(make_store: MakeStore, workspace: Workspace, tree: Path) -> None:
    names = tree.parent / "names.txt"
    names.write_text("a\nb\n")
    words = ["--masks", str(tree / "ann"), "--names", str(names), "--lr", "0.1,0.2", "--json"]
    plan = json.loads(invoke(workspace, *words, command=plan_segmentation).stdout)
    assert plan["work"]["classes"] == [2, 2]
    with pytest.raises(UsageError, match="a plan is for one encoder"):
        invoke(workspace, "--encoder", "a,b", command=plan_segmentation)
