"""Sizes of images from the headers of their files, without decoding pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pa.data.images import open_image
from pa.errors import ImageError

THREADS = 8
ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 lay the image on its side


@dataclass(frozen=True)
class Header:
    """Width and height of the upright image in pixels; or None, and why there are none."""

    size: tuple[int, int] | None
    turned: bool = False
    fault: str | None = None


def read_header(path: Path) -> Header:
    """The upright size of one image file. A fault of the file is part of the answer."""
    try:
        with open_image(path, path) as image:
            orientation = image.getexif().get(ORIENTATION, 1)
            width, height = image.size
    except ImageError as error:
        return Header(None, fault=error.reason)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise many types on corrupt input
        return Header(None, fault=f"{type(error).__name__}: {error}")
    on_its_side = orientation in (5, 6, 7, 8)
    return Header((height, width) if on_its_side else (width, height), orientation != 1)


def read_headers(root: Path, paths: Sequence[str]) -> Iterator[Header]:
    """The headers of many files, in order; in threads, because a network disk answers late."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="pa-header") as pool:
        yield from pool.map(lambda path: read_header(root / path), paths)
