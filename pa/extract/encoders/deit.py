"""DeiT: a ViT trained with labels (deit/models.py, commit 7e160fe)."""

from __future__ import annotations

from pa.data.images import Transform
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.family import ENCODER_KEYS, Family, one_network, plain_trunk
from pa.extract.encoders.positions import bicubic_to_size
from pa.extract.encoders.report import Rule

CARD = EncoderCard(
    name="deit",
    title="DeiT-B/16",
    method="supervised",
    paper="Touvron et al., Training data-efficient image transformers, ICML 2021",
    sources=(
        CheckpointSource(
            "deit_base_patch16_224-b5f2ef4d.pth",
            "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth",
            sha256_prefix="b5f2ef4d",
        ),
    ),
    transform=Transform(),
    positions="learned positions, resized bicubically to the new grid; square images only",
    projector="none: trained with labels",
    licence="Apache-2.0",
    notes=(
        "The released part-retrieval code of the paper has no DeiT: its `vit` is timm's ViT "
        "trained on ImageNet-21k, here `timm/vit_base_patch16_224.augreg_in21k_ft_in1k`. The "
        "distilled DeiT has 198 positions and is another network."
    ),
)

RULES = (
    Rule(r"head\..*", reason="the classifier"),
    Rule(ENCODER_KEYS, "encoder"),
)


FAMILY = Family(CARD, one_network(RULES), plain_trunk(CARD.name, bicubic_to_size))
