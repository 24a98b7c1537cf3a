"""iBOT: self-distillation with masked image modelling (ibot, commit da316d8)."""

from __future__ import annotations

from pa.data.images import Transform
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.family import Family, plain_trunk, select_distilled
from pa.extract.encoders.positions import bicubic_by_factor
from pa.extract.encoders.projectors import prototype_projector

URL = "https://lf3-nlp-opensource.bytetos.com/obj/nlp-opensource/archive/2022/ibot/"

CARD = EncoderCard(
    name="ibot",
    title="iBOT ViT-B/16",
    method="both",
    paper="Zhou et al., iBOT: image BERT pre-training with online tokenizer, ICLR 2022",
    sources=(
        CheckpointSource(
            "checkpoint.pth", URL + "vitb_16_rand_mask/checkpoint.pth", projector=True
        ),
        CheckpointSource(
            "checkpoint_teacher.pth",
            URL + "vitb_16_rand_mask/checkpoint_teacher.pth",
            note="backbone only",
        ),
    ),
    transform=Transform(),
    positions="as DINO: bicubic by the factor (side/patch + 0.1)/grid; any multiple of the patch",
    projector=(
        "head on the class token: 768-2048-2048-256, unit length (`bottleneck`), 8,192 prototypes "
        "`last_layer`; the logits are stored through the exact square root of their Gram matrix "
        "(`projected`, 256 wide)"
    ),
    licence="Apache-2.0",
    notes=(
        "The teacher is used. `vitb_16_rand_mask` was trained with random masking, which the "
        "paper's link list names; `vitb_16` (block masking) is published next to it and is loaded "
        "in the same way."
    ),
    branches=("teacher", "student"),
)


FAMILY = Family(
    CARD, select_distilled, plain_trunk(CARD.name, bicubic_by_factor), prototype_projector
)
