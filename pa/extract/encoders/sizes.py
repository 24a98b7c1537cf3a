"""The official sizes of the seven families: what the tensors cannot say is the number of heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pa.errors import UsageError


class Size(NamedTuple):
    """One published size: width and depth are in the tensors, heads are not."""

    width: int
    depth: int
    heads: int


TINY, SMALL, BASE = Size(192, 12, 3), Size(384, 12, 6), Size(768, 12, 12)
LARGE, HUGE = Size(1024, 24, 16), Size(1280, 32, 16)
SMALL_12 = Size(384, 12, 12)  # ViT-S of MoCo v3 and CAE: its heads are 32 wide

SIZES: Mapping[str, tuple[Size, ...]] = {
    "deit": (TINY, SMALL, BASE),  # deit/models.py
    "mocov3": (SMALL_12, BASE, LARGE, HUGE),  # moco-v3/vits.py; L and H: its first commit
    "dino": (TINY, SMALL, BASE),  # dino/vision_transformer.py
    "beit": (BASE, LARGE),  # unilm/beit/modeling_pretrain.py
    "mae": (BASE, LARGE, HUGE),  # mae/models_mae.py
    "cae": (SMALL_12, BASE, LARGE),  # CAE/models/modeling_cae.py
    "ibot": (TINY, SMALL, BASE, LARGE),  # ibot/models/vision_transformer.py
}


def choose_heads(family: str, width: int, depth: int, known: int | None) -> int:
    """Return the number of attention heads: the known one, else that of the official size.

    Raises `UsageError` where the width and depth are not an official size of the family.
    """
    if known is not None:
        if known < 1 or width % known:
            raise UsageError(f"num_heads={known} does not divide the width {width}.")
        return known
    official = SIZES.get(family, ())
    for size in official:
        if (size.width, size.depth) == (width, depth):
            return size.heads
    listed = ", ".join(f"{size.width} × {size.depth}" for size in official) or "none"
    raise UsageError(
        f"the number of attention heads is not in the file, and width {width} × depth {depth} is "
        f"not an official size of {family} (width × depth: {listed}). Pass --num-heads N "
        f"(num_heads in Python and under [encoders.{family}])."
    )
