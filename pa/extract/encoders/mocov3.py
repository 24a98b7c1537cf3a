"""MoCo v3: a ViT trained by momentum contrast (moco-v3, commit c349e6e)."""

from __future__ import annotations

from dataclasses import replace

from pa.data.images import Transform
from pa.errors import CheckpointError
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.checkpoint import CheckpointFile
from pa.extract.encoders.family import ENCODER_KEYS, Family, Selection, plain_trunk, select_network
from pa.extract.encoders.positions import bicubic_to_size
from pa.extract.encoders.projectors import moco_projector
from pa.extract.encoders.report import Rule

CARD = EncoderCard(
    name="mocov3",
    title="MoCo v3 ViT-B/16, 300 epochs",
    method="contrastive",
    paper="Chen, Xie, He, An empirical study of training self-supervised ViTs, ICCV 2021",
    sources=(
        CheckpointSource(
            "vit-b-300ep.pth.tar",
            "https://dl.fbaipublicfiles.com/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
            projector=True,
        ),
    ),
    transform=Transform(interpolation="bilinear"),  # main_lincls.py: torchvision's default
    positions=(
        "fixed sin-cos positions read from the file, resized bicubically to the new grid, as in "
        "the DeiT code it fine-tunes with; square images only"
    ),
    projector=(
        "base_encoder.head: 768-4096-4096-256, bias-free, after its last batch norm in evaluation "
        "mode, applied to the class token after the final norm; no predictor"
    ),
    licence="CC BY-NC 4.0",
    notes="The base encoder is used, as the authors' probes do; `momentum` is in the same file.",
    branches=("base", "momentum"),
)


def select(file: CheckpointFile, branch: str | None) -> Selection:
    """Select a branch of a training file, or the base encoder that convert_to_deit.py wrote."""
    other = "momentum" if branch == "base" else "base"
    rules = (
        Rule(rf"{branch}_encoder\.head\.(.*)", "projector"),
        Rule(rf"{branch}_encoder\." + ENCODER_KEYS, "encoder"),
        Rule(rf"{other}_encoder\..*", reason=f"the {other} branch"),
        Rule(r"predictor\..*", reason="the predictor, used in training only"),
    )
    selection = select_network(file, rules)
    if any("_encoder." in key for key in selection.tensors):
        if not any(f"{branch}_encoder." in key for key in selection.tensors):
            raise CheckpointError(f"it contains the {other} encoder only: pass --branch {other}")
        return selection
    if branch != "base":
        raise CheckpointError("it contains one encoder, without the momentum encoder")
    return replace(selection, rules=(Rule(ENCODER_KEYS, "encoder"),))


# The pretraining code has no rule for positions; it fine-tunes through the DeiT repository.
FAMILY = Family(CARD, select, plain_trunk(CARD.name, bicubic_to_size), moco_projector)
