"""Decoding odd files, and resizing exactly as torchvision does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data import images as im
from pa.data.images import Transform
from pa.errors import ImageError


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    ramp = np.linspace(0, 255, 90 * 60 * 3).reshape(60, 90, 3)
    return Image.fromarray(ramp.astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_modes_become_rgb(photo: Image.Image, mode: str) -> None:
    data = encoded(photo.convert(mode), "TIFF")
    image = im.decode(data, "x.tif")
    assert image.mode == "RGB"
    assert image.size == photo.size


def test_cmyk_jpeg_keeps_its_colours() -> None:
    red = Image.new("RGB", (32, 32), (200, 30, 30))
    decoded = im.decode(encoded(red.convert("CMYK"), "JPEG", quality=95), "x.jpg")
    assert np.abs(np.asarray(decoded, int) - (200, 30, 30)).max() <= 6


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    decoded = np.asarray(im.decode(encoded(Image.fromarray(values), "PNG"), "x.png"))
    assert decoded[0, 0, 0] == 0
    assert decoded[-1, -1, 0] == 255
    assert np.abs(decoded[..., 0].astype(int) - np.round(values / 257)).max() <= 1


def test_exif_rotation_is_applied(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to stand upright
    data = encoded(photo, "PNG", exif=exif)
    upright = im.decode(data, "x.png")
    assert upright.size == (60, 90)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(photo), -1))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert im.decode(data, "x.gif").getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"hello, not an image", "text, it begins with 'hello, not an im'"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 40, "it begins with the bytes ff d8 ff e0"),
    ],
)
def test_non_image_files_are_bad(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        im.decode(data, "photos/x.jpg")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("photos/x.jpg: ")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(photo: Image.Image, format: str, part: float) -> None:
    data = encoded(photo, format)
    with pytest.raises(ImageError):
        im.decode(data[: int(len(data) * part)], "x")


def test_float_pixels_are_refused() -> None:
    data = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point pixels: the range of grey is unknown"):
        im.decode(data, "x.tif")


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (256, 256), (257, 301)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_and_crop_equal_torchvision(size: tuple[int, int], interpolation: str) -> None:
    from pa.extract.torchvision_ops import ensure

    ensure()
    from torchvision.transforms import functional as tv
    from torchvision.transforms.functional import InterpolationMode

    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    reference = tv.center_crop(
        tv.resize(image, 256, InterpolationMode(interpolation), antialias=True), [224, 224]
    )
    ours = im.centre_crop(im.resize_short_side(image, 256, interpolation), 224)
    assert np.array_equal(np.asarray(ours), np.asarray(reference))


def test_crop_resize_lets_no_outside_pixel_in() -> None:
    pixels = np.full((40, 40, 3), 255, np.uint8)
    pixels[10:20, 10:20] = 7
    cut = im.crop_resize(Image.fromarray(pixels), (10, 10, 20, 20), 64, "bicubic")
    assert np.unique(np.asarray(cut)).tolist() == [7]


def test_crop_is_black_outside_and_rounds_half_to_even() -> None:
    white = Image.new("RGB", (10, 10), "white")
    cut = np.asarray(im.crop_resize(white, (-4.5, 0.5, 3.5, 8.5), 8, "bicubic"))
    # -4.5 → -4, 0.5 → 0, 3.5 → 4, 8.5 → 8: an 8×8 cut, its left half outside the image.
    assert cut[:, :4].max() == 0
    assert cut[:, 4:].min() == 255


def test_transform_survives_json() -> None:
    transform = Transform(size=384, mean=(0.5, 0.5, 0.5))
    assert Transform.from_json(transform.to_json()) == transform


def test_decoder_warnings_are_not_errors(tmp_path: Path) -> None:
    # A palette with transparency given as bytes makes Pillow warn; the image is good.
    image = Image.new("P", (8, 8), 3)
    image.info["transparency"] = bytes(range(256))
    assert im.decode(encoded(image, "PNG"), "x.png").size == (8, 8)


def test_thin_image_is_refused_before_enlarging() -> None:
    with pytest.raises(ImageError, match="30000×1 pixels are too narrow"):
        im.resize_short_side(Image.new("L", (30000, 1)), 256, "bicubic")
