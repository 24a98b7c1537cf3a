"""MAE: masked autoencoder (mae, commit efb2a80).

B: regions, L: patches of P×P pixels, D: width, K: chosen blocks, H, W: input pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pa.data.images import Transform
from pa.errors import UsageError
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.family import ENCODER_KEYS, Family, Request, one_network
from pa.extract.encoders.frozen import Tokens
from pa.extract.encoders.positions import AbsolutePositions, bicubic_to_size
from pa.extract.encoders.report import Rule
from pa.extract.encoders.vit import VitTrunk, plain_vit, read_shape

TOKEN_ORDERS = ("natural", "shuffled")

CARD = EncoderCard(
    name="mae",
    title="MAE ViT-B/16, 1600 epochs",
    method="MIM",
    paper="He et al., Masked autoencoders are scalable vision learners, CVPR 2022",
    sources=(
        CheckpointSource(
            "mae_pretrain_vit_base.pth",
            "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth",
        ),
        CheckpointSource(
            "mae_pretrain_vit_base_full.pth",
            "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base_full.pth",
            note="with the decoder",
        ),
    ),
    transform=Transform(),
    positions=(
        "fixed sin-cos positions read from the file, resized bicubically to the new grid; "
        "square images only"
    ),
    projector="none: the decoder reconstructs pixels",
    licence="CC BY-NC 4.0",
    notes=(
        "The released part-retrieval code of the paper shuffles the patch tokens before it adds "
        "their positions: token_order=`shuffled` does the same, drawn from `seed` and the image. "
        "timm has the file as `timm/vit_base_patch16_224.mae`."
    ),
    options=(("token_order", "natural"), ("seed", 0)),
)

RULES = (
    Rule(r"decoder_.*", reason="the decoder"),
    Rule(r"mask_token", reason="the mask token of the decoder"),
    Rule(ENCODER_KEYS, "encoder"),
)


class ShuffledTrunk(VitTrunk):
    """A ViT that adds permuted positions to its patches, as in the released code of the paper.

    Permuting the patches of the image is the same as permuting their embeddings before positions
    are added. Token i of the result still belongs to patch i. The permutation depends on `seed`
    and the pixels only, so it is the same in every batch.
    """

    def __init__(self, *args: Any, seed: int) -> None:
        super().__init__(*args)
        self.seed = seed

    def tokens(self, pixels: Tensor, with_layers: bool) -> Tokens:
        rows, columns = self.grid_of(pixels)
        order = torch.stack([self._draw(image, rows * columns) for image in pixels])  # (B, L)
        tokens = super().tokens(self._permute(pixels, order), with_layers)
        back = order.argsort(dim=1).to(pixels.device)[:, :, None]  # (B, L, 1)
        patch = tokens.patch.gather(1, back.expand_as(tokens.patch))  # (B, L, D)
        layers = tokens.layers
        if layers is not None:
            layers = layers.gather(2, back[:, None].expand_as(layers))  # (B, K, L, D)
        return Tokens(tokens.cls, patch, layers, tokens.layers_cls)

    def _draw(self, image: Tensor, n: int) -> Tensor:
        """Draw the permutation (L,) of an image: position i receives patch order[i]."""
        key = zlib.crc32(image.float().cpu().contiguous().numpy().data, self.seed)
        return torch.randperm(n, generator=torch.Generator().manual_seed(key))

    def _permute(self, pixels: Tensor, order: Tensor) -> Tensor:
        side = self.shape.patch
        height, width = pixels.shape[-2:]
        patches = torch.nn.functional.unfold(pixels, side, stride=side)  # (B, 3*P*P, L)
        index = order.to(pixels.device)[:, None].expand_as(patches)  # (B, 3*P*P, L)
        return torch.nn.functional.fold(
            patches.gather(2, index), (height, width), side, stride=side
        )


def build(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    order, seed = request.options["token_order"], request.options["seed"]
    if order not in TOKEN_ORDERS:
        raise UsageError(f"unknown token_order {order!r}. Known: {', '.join(TOKEN_ORDERS)}.")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in 0..2^32-1; found {seed!r}.")
    shape = read_shape(CARD.name, tensors, request.num_heads)
    positions = AbsolutePositions(bicubic_to_size)
    parts = (CARD.name, plain_vit(shape), shape, positions, request.layers)
    return VitTrunk(*parts) if order == "natural" else ShuffledTrunk(*parts, seed=seed)


FAMILY = Family(CARD, one_network(RULES), build)
