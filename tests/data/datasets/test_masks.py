"""Label maps: read strictly, and mapped to class ids."""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from pa.data.datasets.segmentation import masks
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


def test_palette_mask_gives_indices(tmp_path: Path) -> None:
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


def test_mask_of_other_size_is_refused(tmp_path: Path) -> None:
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


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    save(path, np.random.default_rng(0).integers(0, 9, (60, 60)))
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(AnnotationError, match=r"m.png: OSError: .*truncated"):
        masks.read_index(path)
    path.write_text("hello")
    with pytest.raises(AnnotationError, match="not an image of a known format"):
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


def png(values: np.ndarray, depth: int, *, palette: bool = False) -> bytes:
    """A PNG of `depth` bits a pixel, grey or with a palette, by the specification (RFC 2083)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    height, width = values.shape
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    lines = np.packbits(bits.reshape(height, width * depth).astype(np.uint8), axis=1)
    rows = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, depth, 3 if palette else 0, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(range(3 * 2**depth))) if palette and depth < 8 else b""
    if palette and depth == 8:
        colours = chunk(b"PLTE", bytes(i % 256 for i in range(768)))
    body = chunk(b"IHDR", header) + colours + chunk(b"IDAT", compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_values_are_those_of_the_file_at_every_depth(
    tmp_path: Path, depth: int, palette: bool
) -> None:
    """Pillow spreads grey of few bits over 0 to 255; class ids must not be."""
    values = np.arange(2**depth).repeat(2)[: 7 * (2**depth * 2 // 7)].reshape(-1, 7)
    if not len(values):
        values = np.array([[0, 1, 1], [1, 0, 1]])
    path = tmp_path / "m.png"
    path.write_bytes(png(values, depth, palette=palette))
    assert masks.read_index(path).tolist() == values.tolist()


def test_sixteen_bits_and_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(png(np.array([[0, 300], [2, 1]]), 16))
    with pytest.raises(AnnotationError, match="expected a label map with one 8-bit channel"):
        masks.read_index(path)
    Image.fromarray(np.ones((8, 8), np.uint8)).save(path, format="JPEG")
    with pytest.raises(AnnotationError, match="expected a PNG; found JPEG"):
        masks.read_index(path)


def test_one_bit_mask_has_values_zero_and_one(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(np.array([[0, 1], [1, 0]], bool)).save(path)
    assert masks.read_index(path).tolist() == [[0, 1], [1, 0]]
