"""`pa datasets build, check, show` for label maps, and `pa extract --view windows`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from pa.cli import cli
from pa.data.store.reader import Store
from pa.errors import MissingError, PaError, StorageError, UnknownNameError, UsageError
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
    rows = [" ".join(line.split()) for line in built.stdout.splitlines()]
    assert "train 1 1 2 of 193 0 1" in rows
    assert "val 1 1 0 of 193 1 0" in rows
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
    assert "2 of 10,103 images: counts of a subset" in checked.stdout
    assert "differs" not in checked.stdout
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


def test_mask_with_unknown_classes_fails_check(run: Run, tmp_path: Path) -> None:
    root = index_tree(tmp_path / "lip", "val", {"a": np.full((4, 4), 20)})
    checked = run("datasets", "check", "lip", "--root", root)
    assert checked.exit_code == 6
    assert "unknown class ids 20" in checked.stdout
    assert run("datasets", "check", "lip", "--root", root, "--quick").exit_code == 0


def test_empty_folder_shows_both_layouts(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        run("datasets", "check", "ade20k-part", "--root", tmp_path)
    assert "<root>/ann/<split>/<name>.png" in str(caught.value)
    assert "Build it from the official release:" in str(caught.value)
    assert "_parts_1.png" in str(caught.value)


@pytest.mark.parametrize("kind", ["lip", "ade20k", "ade20k-object", "pascal-part"])
@pytest.mark.parametrize("exists", [True, False])
def test_layouts_are_shown_once(run: Run, tmp_path: Path, kind: str, exists: bool) -> None:
    with pytest.raises(MissingError) as caught:
        run("datasets", "check", kind, "--root", tmp_path if exists else tmp_path / "gone")
    lines = [line.split("  ")[1] for line in str(caught.value).splitlines() if "<root>/" in line]
    assert len(lines) == len(set(lines)) >= 4


def test_missing_mask_requires_no_release(run: Run, tmp_path: Path) -> None:
    root = index_tree(tmp_path / "built", "val", {"a": [[1]]})
    (root / "ann/val/a.png").unlink()
    with pytest.raises(MissingError, match=r"1 of 1 images have no mask: ann/val/a.png$"):
        run("datasets", "check", "pascal-part", "--root", root)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"name": "cub"}, UnknownNameError, "unknown dataset with label maps 'cub'"),
        ({"rule": "area"}, UnknownNameError, "unknown rule of lip 'area'"),
        ({"split": "tset"}, UnknownNameError, "unknown split of .* 'tset'"),
        ({"root": "gone"}, MissingError, "--root gone is not a folder"),
        ({"split": ""}, UnknownNameError, "unknown split of .* ''"),
        ({"out": "lip"}, UsageError, "is the release itself, or inside it"),
        ({"out": "lip/../lip/out"}, UsageError, "--out lip/../lip/out is the release itself"),
        ({"out": "file"}, UsageError, "--out file: file is a file. Choose a folder"),
        ({"out": "file/out"}, UsageError, "--out file/out: .*/file is a file"),
        ({"out": "locked/new/out"}, StorageError, "--out .*: .*/locked is read-only"),
        ({"out": "link/out"}, UsageError, "Choose a folder outside of it"),
    ],
)
def test_build_refuses_wrong_options(
    run: Run,
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
    values = {"name": "lip", "root": "lip", "out": "out", **changes}
    name = values.pop("name")
    flags = [word for flag, value in values.items() for word in (f"--{flag}", value)]
    with pytest.raises(error, match=text):
        run("datasets", "build", name, *flags)


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
    with pytest.raises(UsageError, match="Extract regions, then search") as caught:
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
