"""What a view is: a way of cutting an image into regions, and the columns of the table it gives.

The views themselves are in `pa.data.regions` (with the registry), `pa.data.parts` and modules of
their own; they import this one, and the registry imports them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data.images import Box, Transform

if TYPE_CHECKING:
    from pa.data.datasets import Images

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
    # The columns of a row that `cut` needs, the box first.
    cut_columns: tuple[str, ...] = BOX

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
        """Cut the boxes out of the canvas: (B, S, S, 3), uint8, with S = `input_size`.

        A box is a row's `cut_columns`.
        """

    @abstractmethod
    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        """Encoders with equal keys see equal pixels before normalisation, and share one cut."""

    def input_size(self, transform: Transform) -> int:
        """The side of the regions in pixels, for an encoder with this transform."""
        return transform.size

    def kept(self, there: Collection[str]) -> tuple[str, ...]:
        """What is kept where nothing is asked for, of the representations that are there."""
        # Layers are there only where they were asked for when the encoder was loaded.
        usual = (*self.default_representations, "layers")
        return tuple(name for name in usual if name in there)

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


def path_outside(paths: pl.Series) -> str | None:
    """The first path of a table that leaves the root: absolute, or with a component "..".

    Links below the root are followed: a dataset may be a link to another disk.
    """
    # Two searches for fixed text leave nothing to the slow one in nearly every table.
    likely = paths.filter(paths.str.starts_with("/") | paths.str.contains("..", literal=True))
    outside = likely.filter(likely.str.contains(r"^/|(^|/)\.\.(/|$)"))
    return None if outside.is_empty() else str(outside[0])
