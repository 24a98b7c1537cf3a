"""DINO: a ViT trained by self-distillation (dino, commit 7c446df)."""

from __future__ import annotations

from pa.data.images import Transform
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.family import Family, plain_trunk, select_distilled
from pa.extract.encoders.positions import bicubic_by_factor
from pa.extract.encoders.projectors import prototype_projector

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
        "The teacher is used. The scripts of the paper's repository use the student by default. "
        "The backbone-only file is the teacher's backbone; timm has it as "
        "`timm/vit_base_patch16_224.dino`."
    ),
    branches=("teacher", "student"),
)


FAMILY = Family(
    CARD, select_distilled, plain_trunk(CARD.name, bicubic_by_factor), prototype_projector
)
