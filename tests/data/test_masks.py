"""Label maps: read strictly, and mapped to class ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data import masks
from pa.errors import AnnotationError


def save(path: Path, values: object, mode: str = "L") -> Path:
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette([255 - i % 256 for i in range(768)])
    image.save(path)
    return path


def test_zero_is_ignored_and_k_is_class_k_minus_one(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 1, 2], [3, 255, 0]])
    assert masks.read(path, 3, (3, 2)).tolist() == [[255, 0, 1], [2, 255, 255]]
    assert masks.count(masks.read_index(path), 3).tolist() == [1, 1, 1]


def test_a_palette_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 7], [19, 1]], "P")
    with Image.open(path) as image:
        assert image.mode == "P"
    assert masks.read_index(path).tolist() == [[0, 7], [19, 1]]


def test_unknown_class_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 20], [19, 131]])
    with pytest.raises(
        AnnotationError,
        match=r"m.png: unknown class ids 20, 131: the label set has 19 classes, so pixels are 0 \(ignored\) or 1 to 19",
    ):
        masks.read(path, 19)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 1], [1, 1], [1, 1]])
    with pytest.raises(AnnotationError, match="the mask is 2x3, its image 3x2 pixels"):
        masks.read(path, 1, (3, 2))


def test_channels(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "rgb.png")
    with pytest.raises(
        AnnotationError, match="expected a label map with one 8-bit channel; found mode RGB of 4x3"
    ):
        masks.read_index(tmp_path / "rgb.png")
    with pytest.raises(AnnotationError, match="expected an RGB label map; found mode L"):
        masks.read_rgb(save(tmp_path / "m.png", [[1]]))


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    save(path, np.random.default_rng(0).integers(0, 9, (60, 60)))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(AnnotationError, match=r"m.png: OSError: .*truncated"):
        masks.read_index(path)
    path.write_text("hello")
    with pytest.raises(AnnotationError, match="not an image that Pillow can read"):
        masks.read_index(path)
    with pytest.raises(AnnotationError, match=r"gone.png: no such file"):
        masks.read_index(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("n_out", "n_in"), [(3, 3), (4, 2), (2, 4), (5, 3), (341, 511), (600, 500)]
)
def test_nearest_is_pillows(  # where no centre falls on a border between two pixels
    n_out: int, n_in: int
) -> None:
    row = Image.fromarray(np.arange(n_in, dtype=np.int32)[None])
    resized = np.asarray(row.resize((n_out, 1), Image.Resampling.NEAREST))[0]
    assert masks.nearest(n_out, n_in).tolist() == resized.tolist()


def test_one_bit_a_pixel_is_zero_and_one(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[0, 1], [1, 0]], bool)).save(path)
    assert masks.read_index(path).tolist() == [[0, 1], [1, 0]]
