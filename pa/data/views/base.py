"""The interface of a view: a way of cutting an image into regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data.images import Transform
from pa.data.schema import BOX, Box, Images, in_schema


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


class FixedView(View):
    """A view whose boxes are the same for every image, whatever it shows."""

    @abstractmethod
    def boxes(self) -> npt.NDArray[np.float64]:
        """The boxes on the canvas, (B, 4): x0, y0, x1, y1."""

    def rows(self, images: Images) -> pl.DataFrame:
        boxes = pl.DataFrame(self.boxes(), schema=list(BOX), orient="row")
        return in_schema(images.table.join(boxes, how="cross", maintain_order="left_right"))
