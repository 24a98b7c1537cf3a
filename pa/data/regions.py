"""Views: how an image is cut into regions, the inputs of an encoder.

A view turns the table of images into the table of rows (one row = one encoder input), and cuts
those regions out of a decoded image. Boxes are given on the view's canvas: for `image` and `grid`
the 224×224 centre crop that the paper works on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data import images as im
from pa.data.images import Box, Transform
from pa.registry import Registry

if TYPE_CHECKING:
    from pa.data.datasets import Images

CANVAS = 224
BOX = ("x0", "y0", "x1", "y1")

# The columns of rows.parquet, in order. Datasets may add columns of their own behind these.
ROW_SCHEMA: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "image": pl.Int64(),
    "path": pl.String(),
    "x0": pl.Float64(),
    "y0": pl.Float64(),
    "x1": pl.Float64(),
    "y1": pl.Float64(),
    "label": pl.String(),
    "label_id": pl.Int64(),
    "file_bytes": pl.Int64(),
}

# What the pixels of a row depend on, besides the view and the transform: shards are reused by it.
PIXEL_COLUMNS = ("image", "path", "file_bytes", *BOX)


class View(ABC):
    """One way of cutting images into regions."""

    name: str
    default_representations: tuple[str, ...]

    @abstractmethod
    def rows(self, images: Images) -> pl.DataFrame:
        """The table of regions: images in their order, regions in a fixed order inside an image."""

    @abstractmethod
    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        """The image on which the boxes lie."""

    @abstractmethod
    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        """Cut the boxes out of the canvas: (B, S, S, 3), uint8, with S = `transform.size`."""

    @abstractmethod
    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        """Encoders with equal keys see equal pixels before normalisation, and share one cut."""

    def to_json(self) -> dict[str, Any]:
        """Every parameter that changes the pixels, for the fingerprint."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


def in_schema(rows: pl.DataFrame) -> pl.DataFrame:
    """Number the rows and bring the columns into the order and types of `ROW_SCHEMA`."""
    rows = rows.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
    extra = [name for name in rows.columns if name not in ROW_SCHEMA]
    return rows.select([*ROW_SCHEMA, *extra]).cast(ROW_SCHEMA)  # type: ignore[arg-type]


class FixedView(View):
    """A view whose boxes are the same for every image, whatever it shows."""

    @abstractmethod
    def boxes(self) -> npt.NDArray[np.float64]:
        """The boxes on the canvas, (B, 4): x0, y0, x1, y1."""

    def rows(self, images: Images) -> pl.DataFrame:
        boxes = pl.DataFrame(self.boxes(), schema=list(BOX), orient="row")
        return in_schema(images.table.join(boxes, how="cross", maintain_order="left_right"))


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

    The interpolation is the paper's, bicubic, for every encoder: all of them see the same windows.
    """

    name = "grid"
    default_representations = ("cls", "pooled", "projected")
    resize: int = 256
    crop: int = CANVAS
    window: int = 56
    stride: int = 28
    interpolation: str = "bicubic"

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

    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        return (transform.size,)


VIEWS: Registry[View] = Registry("view", {"image": ImageView(), "grid": GridView()})


def view_from_json(fields: dict[str, Any]) -> View:
    """Rebuild a view from the fields that `View.to_json` gave."""
    view = VIEWS[fields["name"]]
    return type(view)(**{name: value for name, value in fields.items() if name != "name"})
