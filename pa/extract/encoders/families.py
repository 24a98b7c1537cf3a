"""The seven official families: key rules, network and options of each; cards in cards.toml.

Commits of the official code: DeiT 7e160fe, MoCo v3 c349e6e, DINO 7c446df, BEiT (unilm) 768a3c8, MAE
efb2a80, CAE d725971, iBOT da316d8.

B: regions, L: patches of P×P pixels, D: width, K: chosen blocks, H, W: input pixels; of projectors
M: hidden width, P: output width, Z: bottleneck width, C: prototypes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pa.data.images import Transform
from pa.errors import CheckpointError, UsageError
from pa.extract.encoders.base import Projector, Tokens
from pa.extract.encoders.checkpoint import CheckpointFile, Rule
from pa.extract.encoders.family import (
    ENCODER_KEYS,
    Family,
    Request,
    Selection,
    one_network,
    plain_trunk,
    read_cards,
    select_distilled,
)
from pa.extract.encoders.positions import (
    AbsolutePositions,
    SharedRelativePositions,
    bicubic_by_factor,
    bicubic_to_size,
)
from pa.extract.encoders.vit import RELATIVE_TABLE, VitTrunk, beit_vit, plain_vit, read_shape

CARDS = read_cards()
HALF = (0.5, 0.5, 0.5)  # mean and std of BEiT's pretraining on ImageNet-22k
MEAN_STD = ("auto", "imagenet", "half")
TOKEN_ORDERS = ("natural", "shuffled")

# The keys of a family are those of its official code: deit/models.py,
# unilm/beit/modeling_pretrain.py, mae/models_mae.py, CAE/models/modeling_cae.py,
# moco-v3/moco/builder.py.
DEIT_RULES = (Rule(r"head\..*", reason="the classifier"), Rule(ENCODER_KEYS, "encoder"))
BEIT_RULES = (
    Rule(r"lm_head\..*", reason="the classifier of visual tokens"),
    Rule(r"mask_token", reason="the mask token, used in training only"),
    Rule(r".*relative_position_index", reason="a fixed index, computed again"),
    Rule(r"cls_pt_layers\..*", reason="class-token layers of the pretraining"),
    Rule(ENCODER_KEYS, "encoder"),
)
MAE_RULES = (
    Rule(r"decoder_.*", reason="the decoder"),
    Rule(r"mask_token", reason="the mask token of the decoder"),
    Rule(ENCODER_KEYS, "encoder"),
)
CAE_RULES = (
    Rule(r"(?:encoder\.)?" + ENCODER_KEYS, "encoder"),
    Rule(r"pretext_neck\..*", reason="the regressor and decoder"),
    Rule(r"mask_token", reason="the mask token of the regressor"),
    Rule(r"teacher\..*", reason="the averaged copy of the encoder"),
    Rule(r"encoder_to_decoder.*", reason="the bridge to the decoder"),
)


# -- projectors ------------------------------------------------------------------------------------


def _side(tensors: Mapping[str, Tensor], key: str, axis: int) -> int:
    """Return the rows (axis 0) or columns (axis -1) of a matrix; 1 if it is missing."""
    return tensors[key].shape[axis] if key in tensors and tensors[key].ndim else 1


class MocoProjector(Projector):
    """base_encoder.head of MoCo v3: three bias-free layers, the last norm without affine.

    Evaluation mode: running statistics. The result is not normalised (moco/builder.py).
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        hidden = _side(tensors, "0.weight", 0)  # M
        self.out_width = _side(tensors, "6.weight", 0)
        layers = (
            nn.Linear(_side(tensors, "0.weight", -1), hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, self.out_width, bias=False),
            nn.BatchNorm1d(self.out_width, affine=False),
        )
        # Registered without a name, so that the keys equal those of the file: 0.weight …
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def forward(self, vectors: Tensor) -> tuple[Tensor, None]:
        for layer in self.children():
            vectors = layer(vectors)
        return vectors, None  # (B, P)


class Prototypes(nn.Module):
    """The last layer of DINO and iBOT, (C, Z): weight-normalised, or plain in some DINO files."""

    def __init__(self, tensors: Mapping[str, Tensor], width: int) -> None:
        super().__init__()
        if "last_layer.weight" in tensors:
            n = _side(tensors, "last_layer.weight", 0)
            self.weight = nn.Parameter(torch.empty(n, width))
        else:
            n = _side(tensors, "last_layer.weight_v", 0)
            self.weight_g = nn.Parameter(torch.empty(n, 1))  # lengths
            self.weight_v = nn.Parameter(torch.empty(n, width))  # directions

    def matrix(self) -> Tensor:
        """Return the prototypes (C, Z), float64."""
        if hasattr(self, "weight"):
            return self.weight.detach().double()
        direction = self.weight_v.detach().double()
        length = self.weight_g.detach().double()
        return length * F.normalize(direction, dim=1)


class PrototypeProjector(Projector):
    """DINOHead and iBOTHead on class tokens: MLP, unit length (the bottleneck z), prototypes W.

    The published representation is the C logits W z. This projector returns R z of width Z with
    R = (WᵀW)^½ instead: since (R z)·(R z') = zᵀWᵀW z', all inner products, lengths and cosines
    equal those of the logits.
    """

    root: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        width, hidden = (_side(tensors, "mlp.0.weight", axis) for axis in (-1, 0))  # D, M
        self.out_width = self.bottleneck_width = _side(tensors, "mlp.4.weight", 0)  # Z
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, self.out_width),
        )
        # Loaded like the rest, so that its keys are checked, and replaced afterwards.
        self.last_layer: Prototypes | None = Prototypes(tensors, self.out_width)

    def finish(self) -> None:
        """Replace the prototypes (64 MB in DINO's file) by the square root R (Z, Z)."""
        if self.last_layer is not None:
            matrix = self.last_layer.matrix()  # (C, Z)
            self.register_buffer("root", square_root(matrix.T @ matrix).float())  # (Z, Z)
            self.last_layer = None

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck = F.normalize(self.mlp(vectors), dim=-1)  # (B, Z), eps 1e-12
        return bottleneck @ self.root.T, bottleneck  # (B, Z) each


def square_root(gram: Tensor) -> Tensor:
    """Return the symmetric R with RᵀR = gram (Z, Z), float64.

    The symmetric root is unique: a Cholesky factor would need full rank, and eigenvectors alone
    have arbitrary signs, so stores would differ between machines.
    """
    # WᵀW is symmetric; rounding may make its smallest eigenvalues slightly negative.
    values, vectors = torch.linalg.eigh(gram)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


# -- MoCo v3 -------------------------------------------------------------------------------------


def select_moco(file: CheckpointFile, branch: str | None) -> Selection:
    """Select a branch of a training file, or the base encoder that convert_to_deit.py wrote."""
    other = "momentum" if branch == "base" else "base"
    rules = (
        Rule(rf"{branch}_encoder\.head\.(.*)", "projector"),
        Rule(rf"{branch}_encoder\." + ENCODER_KEYS, "encoder"),
        Rule(rf"{other}_encoder\..*", reason=f"the {other} branch"),
        Rule(r"predictor\..*", reason="the predictor, used in training only"),
    )
    selection = one_network(rules)(file, branch)
    # convert_to_deit.py writes the base encoder without a prefix.
    if any("_encoder." in key for key in selection.tensors):
        if not any(f"{branch}_encoder." in key for key in selection.tensors):
            raise CheckpointError(f"it contains the {other} encoder only: pass --branch {other}")
        return selection
    if branch != "base":
        raise CheckpointError("it contains one encoder, without the momentum encoder")
    return replace(selection, rules=(Rule(ENCODER_KEYS, "encoder"),))


# -- BEiT and CAE --------------------------------------------------------------------------------


def build_beit(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    """Build the trunk of BEiT, with the kind of positions of the file."""
    shape = read_shape("beit", tensors, request.num_heads)
    shared = RELATIVE_TABLE in tensors
    positions = SharedRelativePositions() if shared else AbsolutePositions(bicubic_to_size)
    return VitTrunk("beit", beit_vit(shape, tensors), shape, positions, request.layers)


def settle_beit(
    file: CheckpointFile, tensors: Mapping[str, Tensor], request: Request
) -> tuple[Request, Transform]:
    """Replace mean_std `auto` by the normalisation that the file was trained with."""
    transform, mean_std = CARDS["beit"].transform, request.options["mean_std"]
    if mean_std not in MEAN_STD:
        raise UsageError(f"unknown mean_std {mean_std!r}. Known: {', '.join(MEAN_STD)}.")
    # The files of the ImageNet-22k training were normalised with 0.5, others with the values of
    # ImageNet.
    if mean_std == "auto":
        arguments: Any = file.content.get("args")  # argparse.Namespace of the training
        imagenet = getattr(arguments, "imagenet_default_mean_and_std", "pos_embed" in tensors)
        mean_std = "imagenet" if imagenet else "half"
    if mean_std == "half":
        transform = replace(transform, mean=HALF, std=HALF)
    return replace(request, options={**request.options, "mean_std": mean_std}), transform


def build_cae(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    """Build the trunk of CAE with the eps of option layer_norm_eps."""
    eps = request.options["layer_norm_eps"]
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UsageError(f"layer_norm_eps must be a number between 0 and 1; found {eps!r}.")
    shape = read_shape("cae", tensors, request.num_heads, eps)
    positions = AbsolutePositions(bicubic_to_size)
    return VitTrunk("cae", beit_vit(shape, tensors), shape, positions, request.layers)


# -- MAE -----------------------------------------------------------------------------------------


class ShuffledTrunk(VitTrunk):
    """A ViT that adds permuted positions to its patches, as in the released code of the paper.

    Permuting the patches of the image is the same as permuting their embeddings before positions
    are added. Token i of the result still belongs to patch i. The permutation depends on `seed`
    and the pixels only, so it is the same in every batch.
    """

    def __init__(self, *args: Any, seed: int) -> None:
        super().__init__(*args)
        self.seed = seed

    def forward(self, pixels: Tensor, with_layers: bool = False) -> Tokens:
        rows, columns = self.grid_of(*pixels.shape[-2:])
        orders = []  # (L,) per image: position i receives patch order[i]
        for image in pixels:
            key = zlib.crc32(image.float().cpu().contiguous().numpy().data, self.seed)
            generator = torch.Generator().manual_seed(key)
            orders.append(torch.randperm(rows * columns, generator=generator))
        order = torch.stack(orders)  # (B, L)
        side = self.shape.patch
        # Pixels are permuted instead of embeddings, so that the network of timm stays unchanged.
        patches = F.unfold(pixels, side, stride=side)  # (B, 3*P*P, L)
        patches = patches.gather(2, order.to(pixels.device)[:, None].expand_as(patches))
        permuted = F.fold(patches, pixels.shape[-2:], side, stride=side)
        tokens = super().forward(permuted, with_layers)
        # The inverse permutation returns each token to the position of its patch.
        back = order.argsort(dim=1).to(pixels.device)[:, :, None]  # (B, L, 1)
        patch = tokens.patch.gather(1, back.expand_as(tokens.patch))  # (B, L, D)
        layers = tokens.layers
        if layers is not None:
            layers = layers.gather(2, back[:, None].expand_as(layers))  # (B, K, L, D)
        return tokens._replace(patch=patch, layers=layers)


def build_mae(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    """Build the trunk of MAE, natural or shuffled by option token_order."""
    order, seed = request.options["token_order"], request.options["seed"]
    if order not in TOKEN_ORDERS:
        raise UsageError(f"unknown token_order {order!r}. Known: {', '.join(TOKEN_ORDERS)}.")
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in 0..2^32-1; found {seed!r}.")
    shape = read_shape("mae", tensors, request.num_heads)
    positions = AbsolutePositions(bicubic_to_size)
    parts = ("mae", plain_vit(shape), shape, positions, request.layers)
    return VitTrunk(*parts) if order == "natural" else ShuffledTrunk(*parts, seed=seed)


def distilled(name: str) -> Family:
    """Return DINO or iBOT, which differ only in their cards."""
    trunk = plain_trunk(name, bicubic_by_factor)
    return Family(CARDS[name], select_distilled, trunk, PrototypeProjector)


FAMILIES = (
    Family(CARDS["deit"], one_network(DEIT_RULES), plain_trunk("deit", bicubic_to_size)),
    # The pretraining code of MoCo v3 has no rule for positions; it fine-tunes with DeiT's code.
    Family(CARDS["mocov3"], select_moco, plain_trunk("mocov3", bicubic_to_size), MocoProjector),
    distilled("dino"),
    Family(CARDS["beit"], one_network(BEIT_RULES), build_beit, settle=settle_beit),
    Family(CARDS["mae"], one_network(MAE_RULES), build_mae),
    Family(CARDS["cae"], one_network(CAE_RULES), build_cae),
    distilled("ibot"),
)
