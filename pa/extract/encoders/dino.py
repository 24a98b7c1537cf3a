"""DINO: a ViT trained by self-distillation (dino, commit 7c446df)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pa.data.images import Transform
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.checkpoint import CheckpointFile
from pa.extract.encoders.family import Family, Request, Selection, select_distilled
from pa.extract.encoders.positions import AbsolutePositions, bicubic_by_factor
from pa.extract.encoders.projectors import prototype_projector
from pa.extract.encoders.vit import VitTrunk, plain_vit, read_shape

URL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/"

CARD = EncoderCard(
    name="dino",
    title="DINO ViT-B/16",
    method="contrastive",
    paper="Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021",
    sources=(
        CheckpointSource(
            "dino_vitbase16_pretrain_full_checkpoint.pth",
            URL + "dino_vitbase16_pretrain_full_checkpoint.pth",
            projector=True,
        ),
        CheckpointSource(
            "dino_vitbase16_pretrain.pth", URL + "dino_vitbase16_pretrain.pth", note="backbone only"
        ),
    ),
    transform=Transform(),
    positions=(
        "learned positions, resized bicubically by the factor (side/patch + 0.1)/grid, as its "
        "code does; any multiple of the patch"
    ),
    projector=(
        "head: 768-2048-2048-256, unit length (`bottleneck`), 65,536 prototypes; the logits are "
        "stored through the exact square root of their Gram matrix (`projected`, 256 wide)"
    ),
    licence="Apache-2.0",
    notes=(
        "The teacher is used. The scripts of the paper's repository take the student unless told "
        "otherwise. The backbone-only file is the teacher's backbone; timm has it as "
        "`timm/vit_base_patch16_224.dino`."
    ),
    branches=("teacher", "student"),
)


def select(file: CheckpointFile, branch: str | None) -> Selection:
    return select_distilled(file, branch)


def build(tensors: Mapping[str, Tensor], request: Request) -> VitTrunk:
    shape = read_shape(CARD.name, tensors, request.num_heads)
    positions = AbsolutePositions(bicubic_by_factor)
    return VitTrunk(CARD.name, plain_vit(shape), shape, positions, request.layers)


FAMILY = Family(CARD, select, build, prototype_projector)
