"""Masks over their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.datasets.segmentation import labels
from pa.errors import AnnotationError, ImageError, UsageError
from pa.figures import mask_sheet
from pa.figures.colours import OPACITY, borders, overlay, spread_palette
from tests.support.segmentation_trees import index_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    values = np.zeros((40, 60), np.uint8)
    values[:20, :30], values[:20, 30:] = 3, 19
    maps = dict.fromkeys("abcde", values) | {"empty": np.zeros((40, 60))}
    return index_tree(tmp_path / "lip", "val", maps)


@pytest.mark.parametrize("suffix", ["png", "jpg", "pdf"])
def test_sheet_shows_images_spread_over_split(root: Path, tmp_path: Path, suffix: str) -> None:
    images = datasets.load("lip", "lip", root)
    path = tmp_path / f"o.{suffix}"
    drawn = mask_sheet.draw(path, images, labels.load("lip"), 3)
    assert drawn == ["img/val/a.jpg", "img/val/c.jpg", "img/val/empty.jpg"]
    if suffix != "pdf":
        with Image.open(path) as sheet:
            assert sheet.width > 2 * mask_sheet.PICTURE[0]
    again = path.read_bytes()
    mask_sheet.draw(path, images, labels.load("lip"), 3)
    assert suffix == "pdf" or path.read_bytes() == again


@pytest.mark.parametrize("n", [1, 5, 12])
def test_sheets_of_many_images_are_not_tall(tmp_path: Path, n: int) -> None:
    maps = {f"{i:02d}": np.full((42, 54), 1 + i % 19, np.uint8) for i in range(n)}
    images = datasets.load("lip", "lip", index_tree(tmp_path / "lip", "val", maps))
    path = tmp_path / "sheet.png"
    assert len(mask_sheet.draw(path, images, labels.load("lip"), n)) == n
    with Image.open(path) as sheet:
        assert sheet.height < 1.8 * sheet.width
        assert sheet.width < 4 * sheet.height or n == 1
        colours = set(np.unique(np.asarray(sheet.convert("RGB")) @ (1 << 16, 1 << 8, 1)).tolist())
    swatches = {(r << 16) + (g << 8) + b for r, g, b in spread_palette(min(n, 19))}
    assert swatches <= colours  # a legend for every image, none covered by another


def test_classes_are_coloured_and_ignored_pixels_fade(root: Path) -> None:
    images = datasets.load("lip", "lip", root)
    first = mask_sheet.read_example(images, images.table.row(0, named=True), 19)
    assert set(first.shares) == {2, 18}
    assert first.shares[2] == 0.25
    picture = Image.new("RGB", first.picture.size, (0, 0, 0))
    drawn = np.asarray(overlay(picture, first.classes, {2: (200, 0, 0), 18: (0, 200, 0)}))
    height, width = drawn.shape[:2]
    assert drawn[height // 4, width // 4].tolist() == [int(200 * OPACITY), 0, 0]
    assert drawn[height // 4, 3 * width // 4].tolist() == [0, int(200 * OPACITY), 0]
    assert len(set(drawn[3 * height // 4, width // 4].tolist())) == 1


def test_borders() -> None:
    classes = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]], np.uint8)
    assert borders(classes).tolist() == [
        [False, True, False],
        [True, True, True],
        [False, False, False],
    ]


def test_colours_are_distinguishable() -> None:
    colours = spread_palette(40)
    assert len(set(colours)) == 40
    assert spread_palette(12) == colours[:12]
    assert len(spread_palette(300)) == 300


def test_bad_files(root: Path, tmp_path: Path) -> None:
    images = datasets.load("lip", "lip", root)
    with pytest.raises(
        UsageError, match=r"o.gif: expected a file ending in .png, .jpg, .pdf; found .gif"
    ):
        mask_sheet.draw(tmp_path / "o.gif", images, labels.load("lip"))
    Image.fromarray(np.full((40, 60), 77, np.uint8)).save(root / "ann/val/a.png")
    with pytest.raises(AnnotationError, match="unknown class ids 77"):
        mask_sheet.draw(tmp_path / "o.png", images, labels.load("lip"))
    (root / "img/val/a.jpg").unlink()
    with pytest.raises(ImageError, match="cannot read the file"):
        mask_sheet.draw(tmp_path / "o.png", images, labels.load("lip"))
    assert not (tmp_path / "o.png").exists()
