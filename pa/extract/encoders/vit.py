"""The ViT of the seven families: sizes from the tensors, network from timm, positions by `pa`.

B: regions, L: patches, D: width, P: patch side, K: chosen blocks, H, W: pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pa.errors import CheckpointError, UsageError
from pa.extract import torchvision_ops
from pa.extract.encoders.base import Tokens, Trunk, check_layers, stack_layers
from pa.extract.encoders.positions import EXTRA_ROWS, AbsolutePositions, Network, native_grid

PATCH_WEIGHT = "patch_embed.proj.weight"  # (D, 3, P, P)
RELATIVE_TABLE = "rel_pos_bias.relative_position_bias_table"  # ((2n-1)^2 + 3, heads)
BUFFERS_SET_HERE = {"k_bias", "relative_position_index"}  # by `beit_vit`
OFFICIAL_EPS = 1e-6  # LayerNorm of all seven; torch's default is 1e-5


class Size(NamedTuple):
    """A published size; the tensors contain width and depth, not the number of heads."""

    width: int
    depth: int
    heads: int


TINY, SMALL, BASE = Size(192, 12, 3), Size(384, 12, 6), Size(768, 12, 12)
LARGE, HUGE = Size(1024, 24, 16), Size(1280, 32, 16)
SMALL_12 = Size(384, 12, 12)  # ViT-S of MoCo v3 and CAE, with heads of width 32

SIZES: Mapping[str, tuple[Size, ...]] = {
    "deit": (TINY, SMALL, BASE),  # deit/models.py
    "mocov3": (SMALL_12, BASE, LARGE, HUGE),  # moco-v3/vits.py; L and H: its first commit
    "dino": (TINY, SMALL, BASE),  # dino/vision_transformer.py
    "beit": (BASE, LARGE),  # unilm/beit/modeling_pretrain.py
    "mae": (BASE, LARGE, HUGE),  # mae/models_mae.py
    "cae": (SMALL_12, BASE, LARGE),  # CAE/models/modeling_cae.py
    "ibot": (TINY, SMALL, BASE, LARGE),  # ibot/models/vision_transformer.py
}


@dataclass(frozen=True)
class VitShape:
    """The architecture: sizes from the tensors, and heads and eps, which are not in them."""

    width: int  # D
    depth: int  # blocks
    heads: int  # attention heads
    patch: int  # P, side in pixels
    grid: int  # side of the native grid in patches
    mlp_width: int  # hidden units of a block
    layer_norm_eps: float = OFFICIAL_EPS

    @property
    def size(self) -> int:
        return self.grid * self.patch


def read_shape(
    family: str, tensors: Mapping[str, Tensor], num_heads: int | None, eps: float = OFFICIAL_EPS
) -> VitShape:
    """Read the architecture from the tensors of an encoder, its keys without prefix.

    The number of heads is `num_heads`, that of a table of relative positions, or that of the
    family's official size. Raises `CheckpointError` if a tensor is missing or has another shape.
    """
    mlp = next((key for key in tensors if re.match(r"blocks\.\d+\.mlp\.fc1\.weight", key)), "")
    for key, known in ((PATCH_WEIGHT, PATCH_WEIGHT in tensors), ("blocks.0.mlp.fc1.weight", mlp)):
        if not known:
            raise CheckpointError(f"it has no tensor {key!r}, which every ViT of this kind has")

    def shape(key: str, ndim: int) -> tuple[int, ...]:
        axes = tuple(tensors[key].shape)
        if len(axes) != ndim:
            raise CheckpointError(f"{key} should have {ndim} axes; found shape {axes}")
        return axes

    width, _, patch, _ = shape(PATCH_WEIGHT, 4)  # (D, 3, P, P)
    # The highest number, not the count: a missing block is then reported by its keys.
    blocks = {int(m[1]) for key in tensors if (m := re.match(r"blocks\.(\d+)\.", key))}
    depth = max(blocks) + 1
    relative = shape(RELATIVE_TABLE, 2) if RELATIVE_TABLE in tensors else None  # (rows, heads)
    # A table of relative positions has one column per head.
    if num_heads is None and relative is not None:
        num_heads = relative[1]
    heads = choose_heads(family, width, depth, num_heads)
    if "pos_embed" in tensors:
        rows = shape("pos_embed", 3)[1]
        grid = native_grid(rows - 1)
        if grid**2 != rows - 1:
            raise CheckpointError(
                f"pos_embed has {rows} positions; expected one class token and a square grid"
            )
    elif relative is not None:
        grid = (native_grid(relative[0] - EXTRA_ROWS) + 1) // 2
    else:
        raise CheckpointError("neither 'pos_embed' nor a shared table of relative positions")
    return VitShape(width, depth, heads, patch, grid, shape(mlp, 2)[0], eps)


def choose_heads(family: str, width: int, depth: int, known: int | None) -> int:
    """Return the number of attention heads: `known`, else that of the official size.

    Raises `UsageError` if width and depth are not an official size of the family.
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


def plain_vit(shape: VitShape) -> Network:
    """Create timm's ViT for DeiT, MoCo v3, DINO, MAE and iBOT, with uninitialised weights."""
    torchvision_ops.ensure()
    from timm.models.vision_transformer import VisionTransformer

    return _without_initialising(VisionTransformer, shape, weight_init="skip")


def beit_vit(shape: VitShape, tensors: Mapping[str, Tensor]) -> Network:
    """Create timm's BEiT for BEiT and CAE, with the parts whose tensors are in the file."""
    torchvision_ops.ensure()
    from timm.models.beit import Beit, RelativePositionBias

    shared = RELATIVE_TABLE in tensors
    model = _without_initialising(
        Beit,
        shape,
        init_values=0.1 if any(".gamma_" in key for key in tensors) else None,
        use_abs_pos_emb="pos_embed" in tensors,
        use_rel_pos_bias=False,
        use_shared_rel_pos_bias=shared,
    )
    for block in model.blocks:
        block.attn.k_bias.zero_()  # k has no bias in the files
    if shared:
        grid = (shape.grid, shape.grid)
        model.rel_pos_bias = RelativePositionBias(window_size=grid, num_heads=shape.heads)
    return model


def _without_initialising(
    network: Callable[..., Network], shape: VitShape, **parts: Any
) -> Network:
    """Create a network without initialising weights that the file replaces (4 s for a BEiT-B)."""
    make = partial(
        network,
        img_size=shape.size,
        patch_size=shape.patch,
        num_classes=0,
        global_pool="token",
        embed_dim=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        # timm truncates width * ratio; half a unit more gives mlp_width whatever the rounding.
        mlp_ratio=(shape.mlp_width + 0.5) / shape.width,
        norm_layer=partial(nn.LayerNorm, eps=shape.layer_norm_eps),
        **parts,
    )
    with torch.device("meta"):
        model = make()
    # A network of another timm version with more buffers is initialised as usual.
    if {name.rpartition(".")[2] for name, _ in model.named_buffers()} - BUFFERS_SET_HERE:
        return make()
    return model.to_empty(device="cpu")


class VitTrunk(Trunk):
    """A timm ViT at its native grid, and at other grids by the rule of its positions."""

    has_cls = True

    def __init__(
        self,
        name: str,
        model: Network,
        shape: VitShape,
        positions: AbsolutePositions,
        layers: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        check_layers(name, layers, shape.depth)
        self.name = name
        self.model = model
        self.shape = shape
        self.size, self.width = shape.size, shape.width
        self.layers = layers
        self.positions = positions
        # timm refuses other sizes, even where the positions are resized.
        model.patch_embed.strict_img_size = False
        self._other: tuple[Any, Network] | None = None  # (key, the network for another grid)

    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        grid = self.grid_of(*pixels.shape[-2:])
        model, weight = self.model, next(self.model.parameters())
        if grid != (self.shape.grid, self.shape.grid):
            # The network of the last grid is kept: batches of one view have the same size.
            key = (grid, weight.dtype, weight.device)
            if self._other is None or self._other[0] != key:
                self._other = (key, self.positions.at(self.model, grid))
            model = self._other[1]
        if not with_layers:
            output = model.forward_features(pixels)
            return Tokens(output[:, 0], output[:, 1:])  # (B, D), (B, L, D)
        # (B, 1+L, D) after the norm, and K times (B, L, D) and (B, 1, D) before it
        output, blocks = model.forward_intermediates(
            pixels,
            indices=list(self.layers),
            norm=False,
            output_fmt="NLC",
            return_prefix_tokens=True,
        )
        return Tokens(output[:, 0], output[:, 1:], *stack_layers(blocks))

    def n_patches_at(self, size: int) -> int:
        rows, columns = self.grid_of(size, size)
        return rows * columns

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of patches of an input of H×W pixels."""
        patch = self.shape.patch
        if height % patch or width % patch or not height or not width:
            raise UsageError(
                f"{self.name} cuts images into patches of {patch}x{patch} pixels; "
                f"{height}x{width} is not a multiple of them."
            )
        return height // patch, width // patch
