"""View `parts`: one square patch around each part of each object.

The rules of a protocol turn keypoints into boxes; every rule is a field of `PartsView`, and so part
of the fingerprint. `paper` follows the text of the paper (4.2, A.2), `released` the code of the
authors; docs/views.md compares them field by field. Protocol `boxes` cuts the boxes of a
dataset unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data import images as im
from pa.data.datasets.annotations import FARTHEST
from pa.data.images import Transform
from pa.data.schema import Box, Images
from pa.data.views import part_rows
from pa.data.views.base import View
from pa.data.views.part_rows import PartRules
from pa.errors import UsageError
from pa.registry import Registry

CANVAS = 224  # pixels: the encoder input to which `resize` refers


@dataclass(frozen=True)
class PartsView(PartRules, View):
    """A patch around each keypoint; the defaults are the protocol `paper`. Black outside the image.

    The fields of `PartRules` determine the boxes.
    interpolation, resize: the patch is resized to resize·S/224 pixels, where S is the encoder's
        input, and the central S pixels are kept; 224 = the whole patch.
    """

    name = "parts"
    default_representations = ("cls", "pooled", "projected", "patch")
    interpolation: str = "bicubic"
    resize: int = CANVAS  # 224 uses the whole patch

    RANGES: ClassVar = {
        "min_per_object": (1, 1000),  # 1000 against typing errors
        **dict.fromkeys(("min_d", "max_d"), (0, FARTHEST)),
        "resize": (CANVAS, 16 * CANVAS),
    }
    CHOICES: ClassVar = {
        "side": ("d", "d/2", "given"),
        "neighbours": ("considered", "all"),
        "distance": ("image", "object", "image+id"),
        "visibility": ("visible", "labelled"),
        "coincident": ("skip", "ignore"),
        "outside": ("skip", "keep"),
        "rounding": ("corners", "sides"),
        "interpolation": tuple(im.RESAMPLING),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_d", "max_d"):  # 20 and 20.0 are one fingerprint
            bound = getattr(self, name)
            object.__setattr__(self, name, bound if bound is None else float(bound))
        # A flag passes the parts as text with commas, JSON as a list.
        parts = self.parts.split(",") if isinstance(self.parts, str) else self.parts
        if not isinstance(parts, list | tuple) or not all(isinstance(p, str) for p in parts):
            raise UsageError(
                f'view parts: parts={self.parts!r}. Expected: names with commas, or ["a", "b"].'
            )
        object.__setattr__(self, "parts", tuple(part.strip() for part in parts if part.strip()))
        if len(set(self.parts)) < len(self.parts):
            raise UsageError(f"view parts: parts={','.join(self.parts)} names a part twice.")

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "parts": list(self.parts)}

    def rows(self, images: Images) -> pl.DataFrame:
        return self.select(images).rows

    def select(self, images: Images) -> part_rows.Selection:
        """Return the rows, and the counts of skipped parts by reason; see `part_rows.select`."""
        return part_rows.select(self, images)

    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        return image

    def cut(
        self, canvas: Image.Image, boxes: Sequence[Box], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        resized = round(self.resize * transform.size / CANVAS)  # pixels before the centre crop
        patches = (im.crop_resize(canvas, box, resized, self.interpolation) for box in boxes)
        return im.stack([im.centre_crop(patch, transform.size) for patch in patches])


PAPER = PartsView()
RELEASED = PartsView(
    side="d/2",  # half the distance to the neighbour
    distance="image+id",  # the object id is a third coordinate
    min_per_object=2,  # a lone part has no neighbour of its object
    coincident="ignore",  # zero distances are masked
    outside="keep",  # no test against the image border
    min_d=40.0,  # pixels: smaller patches are discarded
    max_d=2000.0,  # pixels
)

PROTOCOLS: Registry[PartsView] = Registry(
    "protocol of view parts",
    {
        "paper": PAPER,
        "released": RELEASED,
        # The released code trains its part classifiers on these, and tests them on `released`.
        "released-train": replace(RELEASED, resize=256),
        "boxes": PartsView(side="given"),
    },
)


def protocol_of(view: PartsView) -> tuple[str, dict[str, Any]]:
    """Return the named protocol nearest to a view, and the fields in which the view differs."""
    fields = asdict(view)
    changed = {}
    for name in PROTOCOLS:
        named = asdict(PROTOCOLS[name])
        changed[name] = {key: value for key, value in fields.items() if value != named[key]}
    nearest = min(changed, key=lambda name: len(changed[name]))
    return nearest, changed[nearest]
