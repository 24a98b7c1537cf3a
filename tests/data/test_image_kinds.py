"""Files of many kinds under image names: read as Pillow reads them, or bad with a reason."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageOps

from pa.data import images
from pa.data import images as im
from pa.data.images import read_header
from pa.errors import ImageError

ORIENTATION = 0x0112


def photo(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((112, 80)).convert(mode)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def rotated(format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(photo(), format, exif=exif)


def animated(format: str) -> bytes:
    others = [ImageOps.mirror(photo()), ImageOps.flip(photo())]
    return encoded(photo(), format, save_all=True, append_images=others)


def deep_grey(format: str) -> bytes:
    values = np.linspace(0, 65535, 60 * 60).reshape(60, 60).astype(np.uint16)
    return encoded(Image.fromarray(values), format)


def transparent_palette() -> bytes:
    image = photo().quantize(64)
    return encoded(image, "PNG", transparency=bytes(range(64)))


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_header(width: int, height: int) -> bytes:
    """The header of a PNG that announces a size, without its pixels."""
    data = encoded(photo(), "PNG")
    header = data[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


def odd_exif() -> bytes:
    """A JPEG whose EXIF announces values beyond its end; Pillow warns of it."""
    tags = b"II*\x00\x08\x00\x00\x00\x01\x00\x0e\x01\x02\x00\xff\xff\x00\x00\x80\x00\x00\x00"
    return encoded(photo(), "JPEG", exif=b"Exif\x00\x00" + tags)


def flipped_png() -> bytes:
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 255
    return bytes(data)


READABLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: encoded(photo(), "JPEG"),
    "jpeg-grey": lambda: encoded(photo("L"), "JPEG"),
    "jpeg-cmyk": lambda: encoded(photo("CMYK"), "JPEG"),
    "jpeg-progressive": lambda: encoded(photo(), "JPEG", progressive=True),
    "jpeg-icc": lambda: encoded(photo(), "JPEG", icc_profile=profile()),
    "jpeg-odd-exif": odd_exif,
    **{f"jpeg-exif-{n}": (lambda n=n: rotated("JPEG", n)) for n in range(2, 9)},
    "png-exif-6": lambda: rotated("PNG", 6),
    "webp-exif-8": lambda: rotated("WEBP", 8),
    "tiff-exif-3": lambda: rotated("TIFF", 3),
    "mpo": lambda: animated("MPO"),
    "png": lambda: encoded(photo(), "PNG"),
    "png-1-bit": lambda: encoded(photo("1"), "PNG"),
    "png-grey-alpha": lambda: encoded(photo("LA"), "PNG"),
    "png-rgba": lambda: encoded(photo("RGBA"), "PNG"),
    "png-palette": lambda: encoded(photo().quantize(16), "PNG"),
    "png-palette-transparent": transparent_palette,
    "png-animated": lambda: animated("PNG"),
    "png-16-bit": lambda: deep_grey("PNG"),
    "tiff": lambda: encoded(photo(), "TIFF"),
    "tiff-lzw": lambda: encoded(photo(), "TIFF", compression="tiff_lzw"),
    "tiff-cmyk": lambda: encoded(photo("CMYK"), "TIFF"),
    "tiff-16-bit": lambda: deep_grey("TIFF"),
    "tiff-pages": lambda: animated("TIFF"),
    "gif": lambda: encoded(photo(), "GIF"),
    "gif-animated": lambda: animated("GIF"),
    "webp": lambda: encoded(photo(), "WEBP"),
    "webp-rgba": lambda: encoded(photo("RGBA"), "WEBP", lossless=True),
    "webp-animated": lambda: animated("WEBP"),
    "avif": lambda: encoded(photo(), "AVIF"),
    "bmp": lambda: encoded(photo(), "BMP"),
    "ppm": lambda: encoded(photo(), "PPM"),
    "pgm-16-bit": lambda: deep_grey("PPM"),
}

# What is wrong, and a word that the reason must hold.
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"<html>not found</html>", "text"),
    "random": (lambda: np.random.default_rng(1).bytes(2000), "bytes"),
    "eps": (lambda: encoded(photo(), "EPS"), "%!PS"),
    "pdf": (lambda: encoded(photo(), "PDF"), "%PDF"),
    "ico": (lambda: encoded(photo(), "ICO"), "format"),
    "tga": (lambda: encoded(photo(), "TGA"), "format"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC"),
    "tiff-float": (lambda: encoded(photo("F"), "TIFF"), "floating-point"),
    "png-huge": (lambda: png_header(60_000, 60_000), "60000×60000"),
    "png-flipped": (flipped_png, ""),
    **{
        f"{format.lower()}-cut": (lambda f=format: (d := encoded(photo(), f))[: len(d) // 2], "")
        for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
    },
    "jpeg-header-only": (lambda: encoded(photo(), "JPEG")[:30], ""),
}


def as_pillow_reads(data: bytes) -> npt.NDArray[np.uint8]:
    """The upright first frame as 8-bit RGB, by Pillow alone; deep grey scaled to 8 bits."""
    with Image.open(io.BytesIO(data)) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):
            grey = np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
            return np.repeat(grey[..., None], 3, 2)
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("kind", READABLE)
def test_readable_kinds_are_as_pillow_reads_them(kind: str, tmp_path: Path) -> None:
    data = READABLE[kind]()
    image = im.decode(data, kind)
    assert np.array_equal(np.asarray(image), as_pillow_reads(data))
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert read_header(path).size == image.size


@pytest.mark.parametrize("kind", BAD)
def test_unsupported_files_are_bad_with_reason(kind: str) -> None:
    make, word = BAD[kind]
    with pytest.raises(ImageError) as caught:
        im.decode(make(), kind)
    assert caught.value.reason
    assert word in caught.value.reason


def test_decoding_starts_no_program_and_prints_nothing(tmp_path: Path) -> None:
    """Every kind, in a process of its own whose PATH holds a Ghostscript that leaves a trace."""
    files = tmp_path / "files"
    files.mkdir()
    for kind, make in {**READABLE, **{k: make for k, (make, _) in BAD.items()}}.items():
        (files / f"{kind}.jpg").write_bytes(make())
    tools, trace = tmp_path / "bin", tmp_path / "trace"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\n: > {trace}\nexit 1\n")
    (tools / "gs").chmod(0o755)
    script = (
        "import sys; from pathlib import Path\n"
        "from pa.data import images as im\n"
        "from pa.data.images import read_headers\n"
        "from pa.errors import ImageError\n"
        "root = Path(sys.argv[1]); bad = 0\n"
        "for path in sorted(root.iterdir()):\n"
        "    try: im.decode(path.read_bytes(), path)\n"
        "    except ImageError: bad += 1\n"
        "list(read_headers(root, [path.name for path in root.iterdir()]))\n"
        "print(bad)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script, str(files)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tools}:/usr/bin:/bin"},
    )
    assert (done.stdout, done.stderr) == (f"{len(BAD)}\n", "")
    assert not trace.exists()


def test_pixel_limit_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pa import config

    monkeypatch.setattr(images, "_max_pixels", images.MAX_PIXELS)  # restored after the test
    data = encoded(photo(), "PNG")
    (tmp_path / "pa.toml").write_text("max_pixels = 100\n")
    config.load(tmp_path)
    with pytest.raises(ImageError, match=r"112×80 pixels .* max_pixels"):
        im.decode(data, "x.png")
    (tmp_path / "pa.toml").write_text("max_pixels = 8960\n")
    config.load(tmp_path)
    assert im.decode(data, "x.png").size == (112, 80)
