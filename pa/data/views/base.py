"""The interface of a view: how an image is divided into regions.

Shapes: B regions, S side of an encoder input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data.images import Transform
from pa.data.schema import BOX, Box, Images, in_schema
from pa.errors import UnknownNameError, UsageError


class View(ABC):
    """One way to divide images into regions: a frozen dataclass, whose fields are its options."""

    name: str
    default_representations: tuple[str, ...]
    # The columns of a row that `cut` needs, beginning with the box.
    cut_columns: tuple[str, ...] = BOX
    # Allowed values of the fields: lowest and highest number, or names.
    RANGES: ClassVar[Mapping[str, tuple[float, float]]] = {}
    CHOICES: ClassVar[Mapping[str, Collection[str]]] = {}

    def __post_init__(self) -> None:
        defaults = {field.name: field.default for field in fields(self)}  # type: ignore[arg-type]
        for name, (low, high) in self.RANGES.items():
            value, default = getattr(self, name), defaults[name]
            if value is None and default is None:
                continue
            # An integer is accepted as a fraction; true and false are not numbers.
            is_whole = type(default) is int
            kinds = (int,) if is_whole else (int, float)
            if type(value) not in kinds or not low <= value <= high:
                what = "a whole number" if is_whole else "a number"
                null = ", or null" if default is None else ""
                raise UsageError(
                    f"view {self.name}: {name}={str(value)[:40]}. Expected: {what} from {low:,} to "
                    f"{high:,}{null}."
                )
        for name, choices in self.CHOICES.items():
            if not isinstance(value := getattr(self, name), str) or value not in choices:
                raise UnknownNameError(f"{name} of view {self.name}", str(value), choices)

    @abstractmethod
    def rows(self, images: Images) -> pl.DataFrame:
        """Return the table of regions: images in order, regions of an image in fixed order."""

    @abstractmethod
    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        """Return the image to which the boxes refer."""

    @abstractmethod
    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        """Crop the boxes from the canvas: (B, S, S, 3), uint8, with S = `input_size`.

        A box is the `cut_columns` of a row.
        """

    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        """Return a key: encoders with equal keys share one crop, equal before normalisation."""
        return (transform.size,)

    def input_size(self, transform: Transform) -> int:
        """Return the side of the regions in pixels, for an encoder with this transform."""
        return transform.size

    def kept(self, available: Collection[str]) -> tuple[str, ...]:
        """Return the representations that are stored by default, of the available ones."""
        # Layers are available only if they were requested when the encoder was loaded.
        defaults = (*self.default_representations, "layers")
        return tuple(name for name in defaults if name in available)

    def to_json(self) -> dict[str, Any]:
        """Return every parameter that changes the pixels, for the fingerprint."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


class FixedView(View):
    """A view whose boxes are the same for every image."""

    @abstractmethod
    def boxes(self) -> npt.NDArray[np.float64]:
        """Return the boxes on the canvas, (B, 4): x0, y0, x1, y1."""

    def rows(self, images: Images) -> pl.DataFrame:
        boxes = pl.DataFrame(self.boxes(), schema=list(BOX), orient="row")  # (B, 4)
        return in_schema(images.table.join(boxes, how="cross", maintain_order="left_right"))
