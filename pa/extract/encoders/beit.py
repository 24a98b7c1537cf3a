"""BEiT: masked image modelling with visual tokens (unilm/beit, commit 768a3c8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from pa.data.images import Transform
from pa.errors import UsageError
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.checkpoint import CheckpointFile
from pa.extract.encoders.family import ENCODER_KEYS, Family, Request, one_network
from pa.extract.encoders.positions import (
    AbsolutePositions,
    Positions,
    SharedRelativePositions,
    bicubic_to_size,
)
from pa.extract.encoders.report import Rule
from pa.extract.encoders.vit import RELATIVE_TABLE, VitTrunk, beit_vit, read_shape

HALF = (0.5, 0.5, 0.5)  # normalisation of the ImageNet-22k pretraining
MEAN_STD = ("auto", "imagenet", "half")

CARD = EncoderCard(
    name="beit",
    title="BEiT-B/16, pretrained only",
    method="MIM",
    paper="Bao et al., BEiT: BERT pre-training of image transformers, ICLR 2022",
    sources=(
        CheckpointSource(
            "beit_base_standard_epoch800_checkpoint-799.pth",
            note="the paper's own, ImageNet-1k: Google Drive folder "
            "1JSNzbxc9MBpNIhMRP8Vd0FFk7K5hC65q",
        ),
        CheckpointSource(
            "beit_base_patch16_224_pt22k.pth",
            "https://github.com/addf400/files/releases/download/v1.0/"
            "beit_base_patch16_224_pt22k.pth",
            note="the authors', ImageNet-22k",
        ),
    ),
    transform=Transform(),
    positions=(
        "shared table of relative positions, resized on a geometric grid with a cubic spline;"
        " square images only"
    ),
    projector="none: a classifier of visual tokens, which is not a projector",
    licence="MIT",
    notes=(
        "Not the fine-tuned files (…_ft22k, …_ft1k), which lack the pretrained norm. The option "
        "mean_std is `imagenet`, `half` (0.5, as the ImageNet-22k file was trained), or `auto`: "
        "what the training arguments in the file say, else `imagenet` for a file with absolute "
        "positions (ImageNet-1k) and `half` for one without."
    ),
    options=(("mean_std", "auto"),),
)

RULES = (
    Rule(r"lm_head\..*", reason="the classifier of visual tokens"),
    Rule(r"mask_token", reason="the mask token, used in training only"),
    Rule(r".*relative_position_index", reason="a fixed index, computed anew"),
    Rule(r"cls_pt_layers\..*", reason="class-token layers of the pretraining"),
    Rule(ENCODER_KEYS, "encoder"),
)


def build(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    shape = read_shape(CARD.name, tensors, request.num_heads)
    shared = RELATIVE_TABLE in tensors
    positions: Positions = (
        SharedRelativePositions() if shared else AbsolutePositions(bicubic_to_size)
    )
    return VitTrunk(CARD.name, beit_vit(shape, tensors), shape, positions, request.layers)


def settle(file: CheckpointFile, tensors: Mapping[str, Tensor], request: Request) -> Request:
    """Replace mean_std `auto` by the normalisation that the file was trained with."""
    asked = request.options["mean_std"]
    if asked not in MEAN_STD:
        raise UsageError(f"unknown mean_std {asked!r}. Known: {', '.join(MEAN_STD)}.")
    if asked != "auto":
        return request
    arguments: Any = file.content.get("args")  # argparse.Namespace of the training
    imagenet = getattr(arguments, "imagenet_default_mean_and_std", "pos_embed" in tensors)
    settled = "imagenet" if imagenet else "half"
    return replace(request, options={**request.options, "mean_std": settled})


def transform(request: Request) -> Transform:
    if request.options["mean_std"] == "half":
        return replace(CARD.transform, mean=HALF, std=HALF)
    return CARD.transform


FAMILY = Family(CARD, one_network(RULES), build, settle=settle, transform=transform)
