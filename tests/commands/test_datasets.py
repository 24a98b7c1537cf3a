"""`pa datasets check` and `show`, and `pa extract` of parts, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data.crops import Crops
from pa.data.store.reader import Store
from tests.support.images import noise_image
from tests.support.trees import coco_json, person, write_coco, write_cub
from tests.support.vectors import Run, pa

__all__ = ["pa"]

BIRDS = [
    {"right eye": (20.0, 10.0), "tail": (50.0, 50.0)},
    {"tail": (40.0, 30.0)},
    {"right leg": (30.0, 40.0), "left wing": (30.0, 20.0)},
]


@pytest.fixture
def cub(in_empty_folder: Path) -> Path:
    return write_cub(in_empty_folder / "cub", BIRDS, train=(1,))


@pytest.fixture
def weights(in_empty_folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), "test_vit.safetensors")
    return in_empty_folder / "test_vit.safetensors"


def test_check_compares_with_the_release(pa: Run, cub: Path) -> None:
    code, out, _ = pa("datasets", "check", "cub", "--root", cub)
    assert code == 0
    assert "train       1     5,994        1       200        0           0" in out
    assert "all: 3 of 11,788 images: not the whole release" in out
    assert (
        "all, view parts, protocol paper:\npart       patches  not visible  no neighbour\n" in out
    )
    assert "2 of 3 images have a patch, 1 none" in out


def test_check_reports_missing_and_unreadable_files(pa: Run, cub: Path) -> None:
    (cub / "images/001.Auk/Auk_0001.jpg").unlink()
    (cub / "images/001.Auk/Auk_0003.jpg").write_bytes(b"torn")
    code, out, _ = pa("datasets", "check", "cub", "--root", cub, "--split", "all")
    assert code == 6
    assert "all: missing: images/001.Auk/Auk_0001.jpg" in out
    assert "unreadable: images/001.Auk/Auk_0003.jpg: not an image of a known format" in out
    code, out, _ = pa(
        "datasets", "check", "cub", "--root", cub, "--split", "all", "--quick", "--json"
    )
    (split,) = json.loads(out)["splits"]
    assert (split["missing"], split["unreadable"]) == (["images/001.Auk/Auk_0001.jpg"], [])
    assert split["parts"]["paper"]["kept"]["tail"] == 1
    assert split["expected"] == {"images": 11788, "classes": 200}


def test_check_of_empty_folder_shows_layout(pa: Run, in_empty_folder: Path) -> None:
    for root, what in ((in_empty_folder, "no split found"), ("no", "is not a folder")):
        code, _, err = pa("datasets", "check", "coco", "--root", root)
        assert code == 3
        assert what in err
        assert "<root>/annotations/person_keypoints_<split>.json" in err


def test_check_of_a_folder_with_boxes(pa: Run, image_tree: Callable[..., Path]) -> None:
    root = image_tree(labels=1, per_label=2)
    Path("boxes.csv").write_text("path,x0,y0,x1,y1,label\nclass0/0.png,0,0,9,9,ear\n")
    Path("pa.toml").write_text(
        f'[datasets.pets]\nkind = "folder"\nroot = "{root}"\nboxes = "boxes.csv"\n'
    )
    code, out, _ = pa("datasets", "check", "pets")
    assert code == 0
    assert "pets (folder) in" in out
    assert "all, view parts, protocol boxes:\npart  patches\near         1\n1 of 2 images" in out


def test_sizes_that_the_annotations_do_not_mean(pa: Run, in_empty_folder: Path) -> None:
    points = {"nose": (40.0, 30.0, 2), "right_wrist": (20.0, 20.0, 2)}
    content = coco_json(3, [person(n, n, points) for n in (1, 2, 3)])
    root = write_coco(in_empty_folder / "coco", content)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: 80x60 is 60x80 upright
    noise_image(2).save(root / "images/val2017/000000000002.jpg", exif=exif)
    noise_image(3, (90, 60)).save(root / "images/val2017/000000000003.jpg")
    output = (
        "wrong size: images/val2017/000000000002.jpg: 60x80, after its EXIF rotation, annotated as "
        "80x60",
        "wrong size: images/val2017/000000000003.jpg: 90x60, annotated as 80x60",
    )
    code, out, _ = pa("datasets", "check", "coco", "--root", root)
    assert code == 6
    assert all(f"val2017: {line}\n" in out for line in output)
    assert "000000000001" not in out
    code, out, _ = pa("datasets", "show", "coco", "--root", root)
    assert code == 0
    assert all(f"{line}\n" in f"{out}\n" for line in output)
    code, out, _ = pa("datasets", "show", "coco", "--root", root, "--json")
    assert [Path(path).stem[-1] for path, _ in json.loads(out)["odd_sizes"]] == ["2", "3"]
    code, out, _ = pa("datasets", "check", "coco", "--root", root, "--quick")
    assert (code, "wrong size" in out) == (0, False)


def test_show_refuses_what_it_cannot_write(pa: Run, cub: Path) -> None:
    show = ("datasets", "show", "cub", "--root", cub, "--split", "all")
    Path("folder.png").mkdir()
    code, _, err = pa(*show, "--out", "folder.png")
    assert (code, "cannot write folder.png (Is a directory). Choose another" in err) == (1, True)
    code, _, err = pa(*show, "--out", "x" * 300 + ".png")
    assert (code, "(File name too long)" in err) == (1, True)
    code, _, _ = pa(*show, "--out", "new/folder/s.png")
    assert (code, Path("new/folder/s.png").is_file()) == (0, True)
    code, _, err = pa(*show, "--protocol", "")
    assert (code, "unknown protocol of view parts ''" in err) == (2, True)


def test_show_counts_and_draws(pa: Run, cub: Path) -> None:
    code, out, _ = pa("datasets", "show", "cub", "--root", cub, "--split", "all", "--out", "s.png")
    assert code == 0
    assert out.startswith("cub · all · view parts · protocol paper\n")
    assert "all              4            7             1" in out
    assert Path("s.png").stat().st_size > 1000
    code, out, _ = pa(
        *("datasets", "show", "cub", "--root", cub, "--split", "all", "--json"),
        *("--protocol", "released", "--view-option", "min_d=10"),
    )
    shown = json.loads(out)
    assert shown["title"].endswith("protocol released, min_d=10.0")
    assert shown["counts"]["kept"] == {"right eye": 1, "right leg": 1, "left wing": 1, "tail": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "papre"], "unknown protocol of view parts 'papre'. Did you mean paper"),
        (["--protocol", "boxes"], "dataset cub has keypoints, which side=given"),
        (["--view", "windows"], "view windows has no sheet"),
        (["--view", "grid", "--part", "tail"], "--part selects parts; view grid has none"),
        (["--view", "grid", "--protocol", "paper"], "--protocol is for view parts; view grid has"),
        (["--view-option", "side"], "'side' is not NAME=VALUE"),
    ],
)
def test_wrong_calls_of_show(pa: Run, cub: Path, words: list[str], message: str) -> None:
    code, _, err = pa("datasets", "show", "cub", "--root", cub, "--split", "all", *words)
    assert code == 2
    assert message in err


def test_show_of_windows_of_the_grid(pa: Run, cub: Path, tmp_path: Path) -> None:
    words = ("datasets", "show", "cub", "--root", cub, "--split", "all", "--view", "grid", "--json")
    code, out, _ = pa(*words, "--out", tmp_path / "sheet.png")
    assert code == 0
    shown = json.loads(out)
    assert shown["rows"] == 49 * shown["images"]
    assert Path(shown["sheet"]).stat().st_size > 1000


def test_extract_parts_of_cub(pa: Run, cub: Path, weights: Path) -> None:
    extract = (
        *("extract", "--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "cub"),
        *("--root", cub, "--split", "all", "--device", "cpu"),
    )
    code, out, err = pa(*extract)
    assert code == 0, err
    assert "4 patches from 2 of 3 images (right eye 1, right leg 1, left wing 1, tail 1); " in err
    assert "skipped: 7 not visible, 1 no neighbour" in err
    code, out, err = pa(*extract, "--protocol", "released", "--json")
    assert code == 0, err  # another protocol is another store
    code, _, err = pa("search", "--query-id", 0, "-k", 1)
    assert code == 2
    assert "2 stores fit" in err
    assert "--protocol paper" in err
    assert "--protocol released" in err
    store = Store.open(Path(json.loads(out)["runs"][0]["stores"][0]["path"]))
    assert store.spec.view["max_d"] == 2000.0
    assert set(store.spec.representations) == {"cls", "pooled", "patch"}
    assert store.rows.select("label", "d").rows() == [("right eye", 50.0), ("tail", 50.0)]
    crops = Crops(store)
    assert crops.canvas(0).size == (80, 60)
    # The tail's box, (38, 38) to (62, 62), reaches two pixels below the image: black.
    assert crops.box(1) == (38.0, 38.0, 62.0, 62.0)
    region = np.asarray(crops.region(1, 24))
    assert region[-2:].max() == 0
    assert region[:-3].min(axis=2).max() > 0


def test_extract_reports_missing_images(pa: Run, weights: Path) -> None:
    points = {"nose": (10, 10, 2), "left_ankle": (10, 50, 2)}
    root = write_coco(Path("coco"), coco_json(2, [person(1, 1, points), person(2, 2, points)]))
    (root / "images/val2017/000000000002.jpg").unlink()
    code, out, _ = pa(
        *("extract", "--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "coco"),
        *("--root", root, "--features", "cls", "--device", "cpu"),
    )
    assert code == 6
    assert "4 rows of 2 images" in out
    assert "images/val2017/000000000002.jpg: cannot read the file" in out


def test_extract_boxes_of_a_folder(pa: Run, weights: Path, image_tree: Callable[..., Path]) -> None:
    root = image_tree(labels=1, per_label=2)
    Path("boxes.csv").write_text("path,x0,y0,x1,y1,label\nclass0/0.png,0,0,9,9,ear\n")
    code, _, err = pa(
        *("extract", "--encoder", "timm/test_vit", "--checkpoint", weights, "--dataset", "folder"),
        *("--root", root, "--boxes", "boxes.csv", "--view", "parts", "--device", "cpu"),
    )
    assert code == 0, err
    assert "1 patches from 1 of 2 images (ear 1); skipped: none" in err


def test_check_says_why_a_protocol_gives_no_row(pa: Run, tmp_path: Path) -> None:
    """Coincident keypoints: the paper's rule has no distance for any of them."""
    birds = [{"right eye": (50.0, 50.0), "tail": (50.0, 50.0)}] * 3
    root = write_cub(tmp_path / "birds", birds)
    code, out, _ = pa("datasets", "check", "cub", "--root", root, "--split", "all")
    assert code == 0
    assert "all, view parts, protocol paper: no row: " in out
    assert "coincident" in out
    _, out, _ = pa("datasets", "check", "cub", "--root", root, "--split", "all", "--json")
    assert "paper" in json.loads(out)["splits"][0]["no_parts"]
