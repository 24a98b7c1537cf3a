"""`pa datasets build, check, show` for label maps, and `pa extract --view windows`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from pa.cli import cli
from pa.config import load as load_config
from pa.data.store.reader import Store
from pa.errors import MissingError, PaError, StorageError, UnknownNameError, UsageError
from pa.progress import Silent
from pa.tasks.segmentation import BuildRequest, build_dataset
from tests.support.checkpoints import official
from tests.support.segmentation_trees import canvas, index_tree, lip_image, pascal_mat, voc_lists

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: object) -> Result:
        result = CliRunner().invoke(cli, ["-w", str(tmp_path / "ws"), *map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "pascal"
    bus = (6, "bus", (0, 0, 8, 8), [("leftside", (0, 0, 8, 4)), ("wheel_1", (0, 6, 2, 8))])
    pascal_mat(root, "2008_000001", bus)
    pascal_mat(root, "2008_000002", (4, "boat", (0, 0, 5, 5), []))
    pascal_mat(root, "2008_000003", (9, "chair", (0, 0, 5, 5), [("leg", (0, 0, 2, 2))]))
    voc_lists(root, train=["2008_000001", "2008_000003"], val=["2008_000002"])
    return root


def test_build_check_show(run: Run, voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "built"
    built = run("datasets", "build", "pascal-part", "--root", voc, "--out", out)
    assert built.exit_code == 6  # the chair with a leg
    assert "train       1         1  2 of 193               0       1" in built.stdout
    assert "val         1         1  0 of 193               1       0" in built.stdout
    assert "chair (class 9) has the part 'leg'" in built.stdout
    again = json.loads(
        run(
            "datasets",
            "build",
            "pascal-part",
            "--root",
            voc,
            "--out",
            out,
            "--split",
            "val",
            "--json",
        ).stdout
    )
    assert [(s["split"], s["images"], s["all_zero"]) for s in again["splits"]] == [
        ("val", 1, ["2008_000002"])
    ]

    checked = run("datasets", "check", "pascal-part", "--root", out)
    assert checked.exit_code == 0
    assert "classes with a pixel in train 2 193" in " ".join(checked.stdout.split())
    assert "1 masks without a labelled pixel (kept): ann/val/2008_000002.png" in checked.stdout
    assert "2 of 10,103 images are here" in checked.stdout
    assert "differs" not in checked.stdout
    release = json.loads(run("datasets", "check", "pascal-object", "--root", voc, "--json").stdout)
    assert release["classes"][0]["counts"][0] == {
        "what": "annotated images",
        "found": 3,
        "expected": "10103",
        "agrees": False,
    }

    shown = run(
        "datasets",
        "show",
        "pascal-part",
        "--root",
        out,
        "--split",
        "train",
        "--out",
        tmp_path / "o.png",
    )
    assert "1 images with their masks" in shown.stdout
    assert (tmp_path / "o.png").stat().st_size > 1000


def test_check_of_pascal_opens_the_images(run: Run, voc: Path) -> None:
    images = voc / "JPEGImages"
    (images / "2008_000001.jpg").write_text("torn")
    (images / "2008_000002.jpg").unlink()
    Image.new("RGB", (7, 7)).save(images / "2008_000003.jpg")
    checked = run("datasets", "check", "pascal-part", "--root", voc)
    assert checked.exit_code == 6
    words = " ".join(checked.stdout.split())
    assert "train 2 4,998 - - 0 1 " in words
    assert "val 1 5,105 - - 1 0 " in words
    assert "missing: JPEGImages/2008_000002.jpg" in words
    assert "unreadable: JPEGImages/2008_000001.jpg" in words
    assert "2008_000003.mat: the mask is 12x8, its image 7x7 pixels" in words
    quick = json.loads(
        run("datasets", "check", "pascal-part", "--root", voc, "--quick", "--json").stdout
    )
    assert [s["turned"] for s in quick["images"]["splits"]] == [None, None]
    with pytest.raises(UnknownNameError, match="Known: train, val"):
        run("datasets", "check", "pascal-part", "--root", voc, "--split", "test")


def test_check_of_pascal_without_images_says_so(run: Run, voc: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (voc / "JPEGImages").rename(elsewhere / "JPEGImages")
    (voc / "ImageSets").rename(elsewhere / "ImageSets")
    alone = run("datasets", "check", "pascal-part", "--root", voc)
    assert alone.exit_code == 0
    assert "the images were not looked at (--images DIR)" in alone.stdout
    both = run("datasets", "check", "pascal-part", "--root", voc, "--images", elsewhere)
    assert both.exit_code == 0
    with pytest.raises(MissingError, match=r"no folder JPEGImages in .*nowhere"):
        run("datasets", "check", "pascal-part", "--root", voc, "--images", tmp_path / "nowhere")
    words = ("datasets", "check", "pascal-part", "--root", voc, "--images", elsewhere, "--json")
    val = json.loads(run(*words, "--split", "val").stdout)
    assert [s["split"] for s in val["images"]["splits"]] == ["val"]
    assert val["classes"][0]["counts"][0]["found"] == 1
    assert "train 2 4,998" in " ".join(both.stdout.split())
    with pytest.raises(UsageError, match="goes with Pascal alone"):
        run("datasets", "check", "cub", "--root", voc, "--images", elsewhere)


def test_check_of_the_59_objects_in_scene_parsing(run: Run, tmp_path: Path) -> None:
    """Of the 150 values of the masks those of the 59 are counted: bed is 8; floor, 4, is none."""
    root = tmp_path / "ADEChallengeData2016"
    for kind in ("images", "annotations"):
        (root / kind / "validation").mkdir(parents=True)
    (root / "objectInfo150.txt").touch()
    Image.new("RGB", (4, 4)).save(root / "images" / "validation" / "ADE_val_00000001.jpg")
    mask = np.full((4, 4), 4, np.uint8)
    mask[0] = 8
    Image.fromarray(mask).save(root / "annotations" / "validation" / "ADE_val_00000001.png")
    checked = run("datasets", "check", "ade20k-object", "--root", root)
    assert checked.exit_code == 0
    words = " ".join(checked.stdout.split())
    assert "classes with a pixel in val 1 59" in words
    assert "58 classes of the list not found here" in words
    assert "pa datasets build ade20k-object --root" in words
    mask[1] = 151
    Image.fromarray(mask).save(root / "annotations" / "validation" / "ADE_val_00000001.png")
    faulty = run("datasets", "check", "ade20k-object", "--root", root)
    assert faulty.exit_code == 6
    assert "unknown class ids 151" in faulty.stdout


def test_a_mask_with_unknown_classes_fails_the_check(run: Run, tmp_path: Path) -> None:
    root = index_tree(tmp_path / "lip", "val", {"a": np.full((4, 4), 20)})
    checked = run("datasets", "check", "lip", "--root", root)
    assert checked.exit_code == 6
    assert "unknown class ids 20" in checked.stdout
    assert run("datasets", "check", "lip", "--root", root, "--quick").exit_code == 0


def test_nothing_there_shows_both_layouts(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        run("datasets", "check", "ade20k-part", "--root", tmp_path)
    assert "<root>/ann/<split>/<name>.png" in str(caught.value)
    assert "or the official release:" in str(caught.value)
    assert "_parts_1.png" in str(caught.value)


@pytest.mark.parametrize("kind", ["lip", "ade20k", "ade20k-object", "pascal-part"])
@pytest.mark.parametrize("there", [True, False])
def test_each_layout_is_shown_once(run: Run, tmp_path: Path, kind: str, there: bool) -> None:
    with pytest.raises(MissingError) as caught:
        run("datasets", "check", kind, "--root", tmp_path if there else tmp_path / "gone")
    lines = [line.split("  ")[1] for line in str(caught.value).splitlines() if "<root>/" in line]
    assert len(lines) == len(set(lines)) >= 4


def test_a_missing_mask_asks_for_no_release(run: Run, tmp_path: Path) -> None:
    root = index_tree(tmp_path / "built", "val", {"a": [[1]]})
    (root / "ann/val/a.png").unlink()
    with pytest.raises(MissingError, match=r"1 of 1 images have no mask: ann/val/a.png$"):
        run("datasets", "check", "pascal-part", "--root", root)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"name": "cub"}, UnknownNameError, "unknown dataset with label maps 'cub'"),
        ({"list_name": "pairs"}, UnknownNameError, "unknown list of lip 'pairs'"),
        ({"rule": "area"}, UnknownNameError, "unknown rule of lip 'area'"),
        ({"split": "tset"}, UnknownNameError, "unknown split of .* 'tset'"),
        ({"root": Path("gone")}, MissingError, "--root gone is not a folder"),
        ({"split": ""}, UnknownNameError, "unknown split of .* ''"),
        ({"out": Path("lip")}, UsageError, "is the release itself, or inside it"),
        ({"out": Path("lip/../lip/out")}, UsageError, "--out lip/../lip/out is the release itself"),
        ({"out": Path("file")}, UsageError, "--out file: file is a file. Choose a folder"),
        ({"out": Path("file/out")}, UsageError, "--out file/out: .*/file is a file"),
        ({"out": Path("locked/new/out")}, StorageError, "--out .*: .*/locked is read-only"),
        ({"out": Path("link/out")}, UsageError, "Choose a folder outside of it"),
    ],
)
def test_bad_requests(
    in_empty_folder: Path,
    changes: dict[str, object],
    error: type[PaError],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("file").touch()
    Path("locked").mkdir()
    # Tests may run as root, who may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "locked")
    lip_image(Path("lip"), "train", "1_1", canvas())
    Path("link").symlink_to("lip")
    request = {"name": "lip", "root": Path("lip"), "out": Path("out"), **changes}
    with pytest.raises(error, match=text):
        build_dataset(load_config(None), BuildRequest(**request), Silent())  # type: ignore[arg-type]


def test_extract_takes_the_recipe_of_the_dataset(run: Run, tmp_path: Path) -> None:
    root = index_tree(tmp_path / "lip", "train", {"a": np.ones((24, 50)), "b": np.ones((30, 20))})
    checkpoint = tmp_path / "deit.pth"
    torch.save(official("deit"), checkpoint)
    words = [
        "extract",
        "--encoder",
        "deit",
        "--checkpoint",
        checkpoint,
        "--num-heads",
        1,
        "--dataset",
        "lip",
        "--root",
        root,
        "--limit",
        1,
        "--json",
    ]
    first = json.loads(run(*words).stdout)["runs"][0]["stores"][0]
    store = Store.open(Path(first["path"]))
    with pytest.raises(UsageError, match="Make a store of regions") as caught:
        run("search", "--query-id", 0)
    assert "pa extract --encoder deit --dataset lip --split train --view grid" in str(caught.value)
    assert store.view == "windows"
    assert store.spec.view["crop"] == 320
    assert store.rows["canvas_height"].unique().to_list() == [320]
    second = json.loads(run(*words, "--views", 2, "--alongside").stdout)["runs"][0]["stores"][0]
    assert second["rows"] == 2
    store = Store.open(Path(second["path"]))
    assert store.spec.view["views"] == 2
    assert "flip" in store.rows.columns
