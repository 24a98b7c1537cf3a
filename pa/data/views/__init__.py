"""The views by name, and the views with the same boxes for every image: `image` and `grid`.

A view turns the table of images into the table of rows (one row = one encoder input), and crops
those regions from a decoded image. Boxes refer to the canvas of the view: for `image` and `grid`
the 224×224 centre crop of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from pa.data import images as im
from pa.data.images import Transform
from pa.data.schema import Box
from pa.data.views.base import FixedView, View
from pa.data.views.parts import PartsView
from pa.data.views.windows import WindowsView
from pa.errors import UnknownNameError, UsageError
from pa.registry import Registry

__all__ = ["VIEWS", "FixedView", "GridView", "ImageView", "View", "configure", "view_from_json"]

CANVAS = 224  # pixels: the centre crop of the paper
MAX_SIDE = 16_384  # pixels of a side of the canvas of `grid`: 800 MB as RGB
MAX_WINDOWS = 10_000  # windows of one image, so that memory holds the regions of an image


@dataclass(frozen=True)
class ImageView(FixedView):
    """The whole image through the encoder's own evaluation transform (resize, centre crop)."""

    name = "image"
    default_representations = ("cls", "pooled", "projected")

    def boxes(self) -> npt.NDArray[np.float64]:
        return np.array([[0, 0, CANVAS, CANVAS]], dtype=np.float64)

    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        resized = im.resize_short_side(image, transform.resize, transform.interpolation)
        return im.centre_crop(resized, transform.size)

    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        return im.stack([canvas] * len(boxes))

    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        return (transform.size, transform.resize, transform.interpolation)


@dataclass(frozen=True)
class GridView(FixedView):
    """49 windows of 56×56, stride 28, of the 224×224 centre crop (paper, section 4.2 and A.4).

    The interpolation is bicubic (paper) for every encoder, so that all receive the same windows.
    """

    name = "grid"
    default_representations = ("cls", "pooled", "projected")
    resize: int = 256  # short side in pixels before the crop
    crop: int = CANVAS  # side of the centre crop in pixels
    window: int = 56  # side of a window in pixels
    stride: int = 28  # pixels between windows: 7 per side, 49 in all
    interpolation: str = "bicubic"  # as in the paper

    RANGES: ClassVar = dict.fromkeys(("resize", "crop", "window", "stride"), (1, MAX_SIDE))
    CHOICES: ClassVar = {"interpolation": im.RESAMPLING}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.window <= self.crop <= self.resize:
            raise UsageError(
                f"view grid: window={self.window}, crop={self.crop}, resize={self.resize}. "
                f"Expected: window ≤ crop ≤ resize."
            )
        if (per_side := (self.crop - self.window) // self.stride + 1) ** 2 > MAX_WINDOWS:
            raise UsageError(
                f"view grid: {per_side}×{per_side} windows of each image are more than "
                f"{MAX_WINDOWS:,}. Make stride larger, or crop smaller."
            )

    def boxes(self) -> npt.NDArray[np.float64]:
        starts = range(0, self.crop - self.window + 1, self.stride)
        return np.array(
            [[x, y, x + self.window, y + self.window] for y in starts for x in starts],
            dtype=np.float64,
        )

    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        resized = im.resize_short_side(image, self.resize, self.interpolation)
        return im.centre_crop(resized, self.crop)

    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        return im.stack(
            [im.crop_resize(canvas, box, transform.size, self.interpolation) for box in boxes]
        )


VIEWS: Registry[View] = Registry(
    "view",
    {"image": ImageView(), "grid": GridView(), "parts": PartsView(), "windows": WindowsView()},
)


def configure(view: View, options: Sequence[tuple[str, Any]]) -> View:
    """Return a view with some fields changed. Raise `UsageError` for unknown fields."""
    known = [field.name for field in fields(view)]  # type: ignore[arg-type]
    for name, _ in options:
        if name not in known:
            raise UnknownNameError(f"option of view {view.name}", name, known)
    return replace(view, **dict(options))  # type: ignore[type-var]


def view_from_json(fields: dict[str, Any]) -> View:
    """Rebuild a view from the fields of `View.to_json`."""
    view = VIEWS[fields["name"]]
    return type(view)(**{name: value for name, value in fields.items() if name != "name"})
