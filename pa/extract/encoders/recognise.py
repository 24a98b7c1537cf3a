"""Name a checkpoint for what it is, from its containers and keys: for error messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pa.extract.encoders.checkpoint import tensors_in

# (pattern, what the file is); the first pattern that some key matches decides. Keys are written
# container/key, with nothing before the slash where a file has no container.
SIGNS: tuple[tuple[str, str], ...] = (
    (
        r".*(dist_token|head_dist\..*)",
        "a distilled DeiT, with a class and a distillation token (198 positions at 224 pixels): "
        "load it as `timm/deit_base_distilled_patch16_224`",
    ),
    (
        r".*\.ls1\.gamma",
        "a ViT with timm's layer scale, as DeiT III and DINOv2 have: load it as `timm/<model>`",
    ),
    (r".*pretext_neck\..*", "a CAE checkpoint: load it as `cae`"),
    (r".*decoder_(embed|blocks|pred)\..*", "a MAE checkpoint with its decoder: load it as `mae`"),
    (r".*base_encoder\..*", "a MoCo v3 checkpoint: load it as `mocov3`"),
    (
        r".*momentum_encoder\..*",
        "a MoCo v3 file with the momentum encoder only: load it as `mocov3`, branch `momentum`",
    ),
    (
        r"state_dict/module\.head\.weight",
        "a linear-probe file of MoCo v3, whose head is a classifier: use the file of the "
        "pretraining, vit-b-300ep.pth.tar",
    ),
    (
        r"ibot_loss/.*|.*(last_layer2\.|masked_embed).*",
        "an iBOT checkpoint: load it as `ibot`",
    ),
    (r"(teacher|student|dino_loss)/.*", "a DINO checkpoint: load it as `dino`"),
    (
        r".*blocks\.\d+\.attn\.relative_position_bias_table|.*fc_norm\..*",
        "a fine-tuned BEiT or CAE (relative positions in every block, or fc_norm): use the file "
        "of the pretraining",
    ),
    (r".*lm_head\..*|.*rel_pos_bias\..*", "a BEiT checkpoint: load it as `beit`"),
    (r".*layer1\.0\.conv1\.weight", "a ResNet: load it as `timm/resnet50` or its like"),
    (r".*(token_embedding|transformer\.resblocks)\..*", "a CLIP model: `pa` has no loader for it"),
    (
        r".*(patch_embeddings\.|embeddings\.cls_token).*",
        "a Hugging Face transformers model: convert it to timm's keys",
    ),
    (r".*attn\.q_bias", "the encoder of a BEiT or CAE alone"),
    (r"(model)?/head\.weight", "a ViT with a classifier, as DeiT's: load it as `deit`"),
    (r"model/pos_embed", "a ViT under `model` without head, as MAE's: load it as `mae`"),
    (
        r"state_dict/pos_embed",
        "a ViT under `state_dict` without head, as iBOT's backbone-only file: load it as `ibot`",
    ),
    (
        r".*blocks\.0\.attn\.qkv\.weight",
        "the backbone of a ViT alone, as DINO's backbone-only file: which method trained it does "
        "not show in the keys",
    ),
)


def recognise(content: Mapping[str, Any], given: str = "") -> str:
    """Return one sentence on what a checkpoint looks like; `given` is the name it was loaded as."""
    keys = list(_keys(content))
    for pattern, words in SIGNS:
        if any(re.fullmatch(pattern, key) for key in keys):
            # "load it as mae" helps nobody who has just done so
            return f"It looks like {words.removesuffix(f': load it as `{given}`')}."
    shown = ", ".join(key.removeprefix("/") for key in keys[:4])
    return f"It is nothing known to `pa`; it begins with the keys {shown or '(no tensors)'}."


def _keys(content: Mapping[str, Any]) -> list[str]:
    nested = [
        f"{container}/{key}" for container, value in content.items() for key in tensors_in(value)
    ]
    return nested + [f"/{key}" for key in tensors_in(content)]
