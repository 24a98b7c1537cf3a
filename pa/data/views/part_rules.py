"""The rules that turn annotated parts into boxes, and the checks of their values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pa.data.datasets.annotations import FARTHEST
from pa.errors import UnknownNameError, UsageError

CHOICES: dict[str, tuple[str, ...]] = {
    "side": ("d", "d/2", "given"),
    "neighbours": ("considered", "all"),
    "distance": ("image", "object", "image+id"),
    "visibility": ("visible", "labelled"),
    "coincident": ("skip", "ignore"),
    "outside": ("skip", "keep"),
    "rounding": ("corners", "sides"),
}


@dataclass(frozen=True)
class PartRules:
    """Which parts become boxes, and of which size; the defaults are the protocol `paper`.

    d is the distance from a keypoint to its nearest neighbour, in pixels.

    parts: the parts considered, in the order of their label ids; empty = the dataset's own list.
    side: of the box: "d"; "d/2", which is 2·round(d/4) with halves to even; "given" by the dataset.
    neighbours: d is measured to the "considered" parts only, or to "all" parts of the dataset.
    distance: to parts of all objects of the "image"; to those of the same "object"; or "image+id",
        with the id of the object as a third coordinate, as in the released code: parts of other
        objects are then far away unless the ids are close.
    visibility: "visible" parts only, or also those "labelled" but hidden.
    min_per_object: objects with fewer considered parts are skipped.
    coincident: "skip" a part at the position of its neighbour, or "ignore" that neighbour.
    outside: "skip" or "keep" keypoints outside the image (boxes: those that do not touch it).
    min_d, max_d: exclusive bounds of d; None = no bound.
    rounding: to pixels, halves to even: both "corners", as Pillow rounds a box of floats (one side
        may become a pixel longer), or the first corner and the "sides".
    """

    parts: tuple[str, ...] = ()  # empty: the list of the dataset
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

    def __post_init__(self) -> None:
        # A flag passes the parts as text with commas, JSON as a list.
        parts = self.parts.split(",") if isinstance(self.parts, str) else self.parts
        if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
            raise UsageError(
                f'view parts: parts={self.parts!r}. Expected names with commas, or ["a", "b"].'
            )
        object.__setattr__(self, "parts", tuple(part.strip() for part in parts if part.strip()))
        if len(set(self.parts)) < len(self.parts):
            raise UsageError(f"view parts: parts={','.join(self.parts)} names a part twice.")
        for name, choices in CHOICES.items():
            self.require_choice(name, choices)
        self.require_whole("min_per_object", 1, 1000)  # 1000 against typing errors
        for name in ("min_d", "max_d"):
            bound = getattr(self, name)
            if bound is None:
                continue
            if type(bound) not in (int, float) or not 0 <= bound <= FARTHEST:  # true is not a bound
                raise UsageError(
                    f"view parts: {name}={str(bound)[:40]}. Expected pixels from 0 to "
                    f"{FARTHEST:,}, or null."
                )
            object.__setattr__(self, name, float(bound))

    def require_choice(self, name: str, choices: Collection[str]) -> None:
        if getattr(self, name) not in choices:
            raise UnknownNameError(f"{name} of view parts", str(getattr(self, name)), choices)

    def require_whole(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if type(value) is not int or not least <= value <= most:
            raise UsageError(
                f"view parts: {name}={value}. Expected a whole number from {least} to {most}."
            )
