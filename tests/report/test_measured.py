"""Which result answers which question of the paper, and what it says of itself."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest

from pa.cli import cli
from pa.report.cells import cell
from pa.report.deviations import model_name
from pa.report.deviations import runs as expected_runs
from pa.report.measured import Measured, measured_in
from pa.report.protocol import Protocol
from tests.support.report import VIT_TI, Runs


def only(runs: Runs) -> Measured:
    (first,) = measured_in(runs.read())
    return first


def marks(first: Measured) -> list[tuple[str, str]]:
    return [(mark.kind, mark.text) for mark in first.marks]


def test_score_is_in_percent_with_interval(runs: Runs) -> None:
    runs.probe("deit", "cub", accuracy=0.905, half=0.015)
    first = only(runs)
    assert first.question == cell("t3/deit/cub/linear").question
    assert first.value == pytest.approx(90.5)
    assert first.interval == pytest.approx((89.0, 92.0))
    assert (first.n, first.n_images, first.chance) == (1000, 5_794, 30)
    assert first.protocol == Protocol("paper")


@pytest.mark.parametrize(
    ("key", "make"),
    [
        (
            "t3/ibot/coco/projected",
            lambda r: r.retrieval("ibot", "coco", representation="projected"),
        ),
        ("t3/mae/coco/attentive", lambda r: r.probe("mae", "coco", kind="attentive")),
        (
            "t1/cae/imagenet/linear",
            lambda r: r.probe("cae", "imagenet", protocol="imagenet", view={"name": "image"}),
        ),
        ("t4/beit/lip/miou", lambda r: r.segmentation("beit", "lip")),
        ("t5/dino/ade20k-object/miou", lambda r: r.segmentation("dino", "ade20k-object")),
        ("t2/dino/ade20k/miou", lambda r: r.segmentation("dino", "ade20k")),
    ],
)
def test_tasks_match_their_cells(runs: Runs, key: str, make: Any) -> None:
    make(runs)
    assert cell(key).question in {item.question for item in measured_in(runs.read())}


def test_segmentation_answers_three_questions_of_both_tables(runs: Runs) -> None:
    runs.segmentation("deit", "ade20k-part", miou=0.25)
    report = runs.report()
    filled = {key: round(selected.ours.value, 1) for (key, _), selected in report.selected.items()}
    assert filled == {
        f"{table}/deit/ade20k-part/{metric}": value
        for table in ("t4", "t5")
        for metric, value in (("miou", 25.0), ("macc", 35.0), ("aacc", 65.0))
    }


@pytest.mark.parametrize("representation", ["layers_cls:3", "cls:", "patch"])
def test_other_representation_does_not_match_cell(runs: Runs, representation: str) -> None:
    runs.retrieval(representation=representation)
    assert measured_in(runs.read()) == []


def test_paper_setting_has_no_mark(runs: Runs) -> None:
    runs.retrieval("deit", representation="cls")
    runs.retrieval("deit", representation="pooled", ap=(0.3, 0.4, 0.5, 0.5))
    runs.probe("dino", "cub", kind="attentive")
    runs.probe("mae", "coco", protocol="released", options={"token_order": "shuffled"})
    runs.segmentation("ibot", "lip", test_images=10_000)
    actual = measured_in(runs.read())
    assert len(actual) == 7
    assert [marks(item) for item in actual] == [[]] * 7


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"architecture": VIT_TI}, "another model: ViT-Ti/16, 192 wide"),
        (
            {"weights_sha256": "63c29cf5" * 8},
            "other weights than the published b5f2ef4d…: 63c29cf5…",
        ),
    ],
)
def test_other_model_is_marked(runs: Runs, store: dict[str, Any], message: str) -> None:
    runs.probe("deit", "cub", **store)
    assert marks(only(runs)) == [("model", message)]


def test_student_branch_is_marked(runs: Runs) -> None:
    runs.probe("dino", "cub", options={"branch": "student"})
    assert marks(only(runs)) == [("model", "branch student: the paper's is teacher")]


def test_mae_is_shuffled_by_the_released_code_alone(runs: Runs) -> None:
    runs.probe("mae", "cub", protocol="released", options={"token_order": "natural"})
    assert marks(only(runs)) == [("model", "token_order natural: the released code's is shuffled")]


def test_unpublished_hashes_are_noted(runs: Runs) -> None:
    runs.probe("cae", "cub")
    first = only(runs)
    assert first.is_papers
    assert [note.text for note in first.notes] == [
        "weights cdcdcdcd: CAE publishes no hash to compare with"
    ]


def test_subset_is_marked(runs: Runs) -> None:
    runs.probe("deit", "cub", test_images=470, limit=500)
    assert marks(only(runs)) == [
        ("data", "subset: 470 images of 5,794"),
        ("data", "--limit 500: the first images of split test only"),
        ("data", "--limit 500: the first images of split train only"),
    ]


def test_limit_names_split_of_store(runs: Runs) -> None:
    runs.retrieval("deit", split="all", limit=120)
    limits = [text for kind, text in marks(only(runs)) if kind == "data" and "--limit" in text]
    assert limits == ["--limit 120: the first images of split all only"]


def test_images_without_parts_do_not_make_a_subset(runs: Runs) -> None:
    runs.retrieval("deit", images=11_231)  # those of CUB that have a patch by the released rules
    assert [kind for kind, _ in marks(only(runs))] == ["recipe"]  # one of the two vectors alone


def test_other_split_and_changed_recipe_are_marked(runs: Runs) -> None:
    runs.retrieval("deit", split="test", changed={"include_self": True})
    assert [mark for mark in marks(only(runs)) if mark[0] != "data"] == [
        ("split", "test split test instead of all"),
        ("recipe", "changed recipe: include_self=True"),
        (
            "recipe",
            "class token only: the paper takes the better of class token and mean patch token",
        ),
    ]


def test_encoded_score_is_better_of_cls_and_pooled(runs: Runs) -> None:
    runs.retrieval("deit", ap=(0.4, 0.5), representation="cls")
    runs.retrieval("deit", ap=(0.5, 0.7), representation="pooled")
    (selected,) = runs.report().selected.values()
    assert (selected.ours.stored_as, round(selected.ours.value, 6)) == ("pooled", 60)
    assert selected.why == "the better representation, of 2 results"
    assert [other.stored_as for other in selected.others] == ["cls"]
    assert selected.ours.notes[-1].text.startswith("mean patch token; class token 45.0")


def test_protocols_are_distinguished_by_recipe_and_patches(runs: Runs) -> None:
    for protocol, cut in (("paper", "paper"), ("released", "released"), ("paper", "released")):
        runs.retrieval("deit", protocol=protocol, view=cut)
    keys = {item.protocol.key for item in measured_in(runs.read())}
    assert keys == {"paper", "released", "paper-on-released"}


def test_rules_that_leave_the_protocol_are_marked(runs: Runs) -> None:
    from pa.data.views.parts import PROTOCOLS

    runs.retrieval("deit", view={**PROTOCOLS["paper"].to_json(), "neighbours": "all"})
    assert ("recipe", "patches cut with neighbours all") in marks(only(runs))


def test_views_of_another_version_are_not_known(runs: Runs) -> None:
    runs.retrieval("deit", view={"name": "parts", "shape": "round"})
    assert only(runs).protocol.patches == "not known"


@pytest.mark.parametrize(
    ("width", "depth", "message"),
    [(768, 12, "ViT-B/16, 768 wide"), (96, 3, "a ViT of 3 blocks, 96 wide")],
)
def test_models_have_their_usual_names(width: int, depth: int, message: str) -> None:
    assert model_name({"width": width, "depth": depth, "patch": 16}) == message
    assert model_name({}) == "not known"


def parse(command: str) -> dict[str, Any]:
    """The parameters that the command line reads from a command; raises on what it does not know."""
    words = shlex.split(command.partition("  # ")[0])[1:]
    group: click.Command = cli
    # click keeps the help option of the first context in the command: use that of the program.
    context = click.Context(cli, **cli.context_settings)
    while isinstance(group, click.Group):
        name, group_now, words = group.resolve_command(context, words)
        assert group_now is not None, name
        group = group_now
    return group.make_context(str(group.name), words, parent=context).params


def test_command_of_result_is_valid(runs: Runs) -> None:
    runs.retrieval("deit", representation="pooled", protocol="released")
    runs.probe("dino", "coco", kind="attentive", changed={"epochs": 5})
    runs.probe("dino", "imagenet", protocol="imagenet", view={"name": "image"})
    runs.segmentation("mae", "lip", protocol="released")
    commands = {item.question.task: item.command for item in measured_in(runs.read())}
    assert parse(commands["retrieval"])["representations"] == ("pooled",)
    assert parse(commands["retrieval"])["protocol"] == "released"
    assert parse(commands["part-classification"])["test_split"] == "val2017"
    assert commands["part-classification"].endswith("  # with epochs=5")
    assert parse(commands["image-classification"])["view"] == "image"
    assert parse(commands["part-segmentation"])["labels"] == ("lip",)


def test_windows_have_no_patches(runs: Runs) -> None:
    runs.segmentation("deit", "lip")
    assert {item.protocol for item in measured_in(runs.read())} == {Protocol("paper")}


def test_expected_runs_agree_with_package() -> None:
    """Hashes, options, splits and sizes are in runs.toml, so that reading loads no torch."""
    from pa.data.datasets import DATASETS
    from pa.extract.encoders import ENCODERS

    known = expected_runs()
    for name, prefix in known["sha256"].items():
        assert prefix in {source.sha256_prefix for source in ENCODERS[name].card.sources}
    for name in ENCODERS:
        published = {source.sha256_prefix for source in ENCODERS[name].card.sources} - {""}
        assert bool(published) == (name in known["sha256"]), name
    for entry in known["data"]:
        expected = DATASETS[entry["dataset"]].expected
        for role in ("train", "test"):
            if side := entry.get(role):
                assert side["images"] == expected[side["split"]].images
                assert side.get("least", side["images"]) <= side["images"]
    for kind in ("options", "released_options"):
        for name, options in known[kind].items():
            card = ENCODERS[name].card
            for option in options:
                assert option == "branch" or option in dict(card.options), (name, option)
            if "branch" in options:
                assert options["branch"] in card.branches


def test_unreadable_image_does_not_make_a_subset(runs: Runs) -> None:
    runs.segmentation("ibot", "lip", test_images=9_995)
    first = measured_in(runs.read())[0]
    assert first.is_papers
    assert "9,995 images of 10,000" in [note.text for note in first.notes]
