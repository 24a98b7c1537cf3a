"""View `parts`: one square patch around each part of each object.

Keypoints become boxes by the rules of a protocol; every choice is a field of `PartsView`, and so
part of the fingerprint. `paper` is the text of the paper (4.2, A.2), `released` what the authors'
code does; docs/datasets.md compares them field by field. Boxes that a dataset gives itself are
cut as they stand (protocol `boxes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data import images as im
from pa.data.datasets.annotations import FARTHEST
from pa.data.images import Transform
from pa.data.schema import Box
from pa.data.views import part_rows
from pa.data.views.base import View
from pa.errors import UnknownNameError, UsageError
from pa.registry import Registry

if TYPE_CHECKING:
    from pa.data.schema import Images

CANVAS = 224  # the encoder input that `resize` is stated for

CHOICES: dict[str, tuple[str, ...]] = {
    "side": ("d", "d/2", "given"),
    "neighbours": ("considered", "all"),
    "distance": ("image", "object", "image+id"),
    "visibility": ("visible", "labelled"),
    "coincident": ("skip", "ignore"),
    "outside": ("skip", "keep"),
    "rounding": ("corners", "sides"),
    "interpolation": tuple(im.RESAMPLING),
}


@dataclass(frozen=True)
class PartsView(View):
    """A patch around each keypoint; the defaults are the protocol `paper`. Black outside the image.

    d is the distance from a keypoint to its nearest neighbour, in pixels.

    parts: the parts considered, in the order of their label ids; empty = the dataset's own list.
    side: of the box: "d"; "d/2", which is 2·round(d/4) with halves to even; "given" by the dataset.
    neighbours: d is measured to the "considered" parts only, or to "all" parts of the dataset.
    distance: to parts of all objects of the "image"; to those of the same "object"; or "image+id",
        which takes the object's id as a third coordinate.
    visibility: "visible" parts only, or also those "labelled" but hidden.
    min_per_object: objects with fewer considered parts are skipped.
    coincident: "skip" a part that lies on its neighbour, or "ignore" that neighbour.
    outside: "skip" or "keep" keypoints outside the image (boxes: those that do not touch it).
    min_d, max_d: d must lie strictly between them; None = no bound.
    rounding: to pixels, halves to even: each of the "corners" on its own, as Pillow rounds a box of
        floats (one side may come out a pixel longer), or the first corner and the "sides".
    interpolation, resize: the patch is resized to resize·S/224 pixels, where S is the encoder's
        input, and the central S pixels are kept; 224 = the whole patch.
    """

    name = "parts"
    default_representations = ("cls", "pooled", "projected", "patch")
    parts: tuple[str, ...] = ()
    side: str = "d"
    neighbours: str = "considered"
    distance: str = "image"
    visibility: str = "visible"
    min_per_object: int = 1
    coincident: str = "skip"
    outside: str = "skip"
    min_d: float | None = None
    max_d: float | None = None
    rounding: str = "corners"
    interpolation: str = "bicubic"
    resize: int = CANVAS

    def __post_init__(self) -> None:
        # Flags give the parts as text with commas, JSON as a list.
        parts = self.parts.split(",") if isinstance(self.parts, str) else self.parts
        if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
            raise UsageError(
                f'view parts: parts={self.parts!r}. Expected names with commas, or ["a", "b"].'
            )
        object.__setattr__(self, "parts", tuple(part.strip() for part in parts if part.strip()))
        if len(set(self.parts)) < len(self.parts):
            raise UsageError(f"view parts: parts={','.join(self.parts)} names a part twice.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UnknownNameError(f"{name} of view parts", str(getattr(self, name)), choices)
        self._require_whole("min_per_object", 1, 1000)
        self._require_whole("resize", CANVAS, 16 * CANVAS)
        for name in ("min_d", "max_d"):
            self._require_bound(name)

    def _require_whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UsageError(
                f"view parts: {name}={value}. Expected a whole number from {least} to {most}."
            )

    def _require_bound(self, name: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not 0 <= value <= FARTHEST
        ):
            raise UsageError(
                f"view parts: {name}={str(value)[:40]}. Expected pixels from 0 to {FARTHEST:,}, or "
                f"null."
            )
        object.__setattr__(self, name, float(value))

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "parts": list(self.parts)}

    def rows(self, images: Images) -> pl.DataFrame:
        return self.select(images).rows

    def select(self, images: Images) -> part_rows.Selection:
        """The rows, and the account of what was left out and why: see `part_rows.select`."""
        return part_rows.select(self, images)

    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        return image

    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        resized = round(self.resize * transform.size / CANVAS)
        return im.stack(
            [
                im.centre_crop(
                    im.crop_resize(canvas, box, resized, self.interpolation), transform.size
                )
                for box in boxes
            ]
        )

    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        return (transform.size,)


PAPER = PartsView()
RELEASED = PartsView(
    side="d/2",
    distance="image+id",
    min_per_object=2,
    coincident="ignore",
    outside="keep",
    min_d=40.0,
    max_d=2000.0,
)

PROTOCOLS: Registry[PartsView] = Registry(
    "protocol of view parts",
    {
        "paper": PAPER,
        "released": RELEASED,
        # What the released code trains its part classifiers on; it tests on `released`.
        "released-train": replace(RELEASED, resize=256),
        "boxes": PartsView(side="given"),
    },
)


def protocol_of(view: PartsView) -> tuple[str, dict[str, Any]]:
    """The named protocol that a view is nearest to, and the fields in which it differs."""

    def changed(name: str) -> dict[str, Any]:
        named = asdict(PROTOCOLS[name])
        return {key: value for key, value in asdict(view).items() if value != named[key]}

    nearest = min(PROTOCOLS, key=lambda name: len(changed(name)))
    return nearest, changed(nearest)
