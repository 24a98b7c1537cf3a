"""Small checkpoints in the official layouts: random tensors, the authors' keys and containers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pa.extract import encoders
from pa.extract.encoders import Encoder, LoadReport

WIDTH, DEPTH, PATCH, GRID, MLP = 64, 2, 8, 4, 96
HIDDEN, BOTTLENECK, PROTOTYPES = 40, 16, 48
SIZE = PATCH * GRID

Tensors = dict[str, Tensor]

# Folder of each encoder's official outputs below shared/fixtures/encoders.
FIXTURES = {
    "deit": "deit",
    "mocov3": "moco_v3",
    "dino": "dino",
    "beit": "beit",
    "mae": "mae",
    "cae": "cae",
    "ibot": "ibot",
}


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {key: 0.2 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def vit(
    prefix: str = "",
    seed: int = 0,
    width: int = WIDTH,
    depth: int = DEPTH,
    split_bias: bool = False,
) -> Tensors:
    """A plain ViT; with `split_bias`, q_bias and v_bias as BEiT and CAE have them."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + GRID**2, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for index in range(depth):
        block = {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (MLP, width),
            "mlp.fc1.bias": (MLP,),
            "mlp.fc2.weight": (width, MLP),
            "mlp.fc2.bias": (width,),
        }
        biases = ("attn.q_bias", "attn.v_bias") if split_bias else ("attn.qkv.bias",)
        block |= dict.fromkeys(biases, (width if split_bias else 3 * width,))
        block |= {f"gamma_{n}": (width,) for n in (1, 2) if split_bias}
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in block.items()}
    return {prefix + key: tensor for key, tensor in filled(shapes, seed).items()}


def moco_head(prefix: str, seed: int = 1) -> Tensors:
    tensors = filled(
        {
            "0.weight": (HIDDEN, WIDTH),
            "1.weight": (HIDDEN,),
            "1.bias": (HIDDEN,),
            "1.running_mean": (HIDDEN,),
            "3.weight": (HIDDEN, HIDDEN),
            "4.weight": (HIDDEN,),
            "4.bias": (HIDDEN,),
            "4.running_mean": (HIDDEN,),
            "6.weight": (BOTTLENECK, HIDDEN),
            "7.running_mean": (BOTTLENECK,),
        },
        seed,
    )
    for index, width in ((1, HIDDEN), (4, HIDDEN), (7, BOTTLENECK)):
        tensors[f"{index}.running_var"] = torch.linspace(0.5, 2, width)
        tensors[f"{index}.num_batches_tracked"] = torch.tensor(7)
    return {prefix + key: tensor for key, tensor in tensors.items()}


def prototype_head(prefix: str = "head.", seed: int = 2, second: bool = False) -> Tensors:
    shapes: dict[str, tuple[int, ...]] = {
        "mlp.0.weight": (HIDDEN, WIDTH),
        "mlp.0.bias": (HIDDEN,),
        "mlp.2.weight": (HIDDEN, HIDDEN),
        "mlp.2.bias": (HIDDEN,),
        "mlp.4.weight": (BOTTLENECK, HIDDEN),
        "mlp.4.bias": (BOTTLENECK,),
    }
    for layer in ("last_layer", "last_layer2")[: 1 + second]:
        shapes[f"{layer}.weight_g"] = (PROTOTYPES, 1)
        shapes[f"{layer}.weight_v"] = (PROTOTYPES, BOTTLENECK)
    return {prefix + key: tensor for key, tensor in filled(shapes, seed).items()}


def official(name: str) -> dict[str, Any]:
    """A checkpoint of each family, as its authors' training saves it."""
    if name == "deit":
        return {"model": vit() | filled({"head.weight": (10, WIDTH), "head.bias": (10,)})}
    if name == "mocov3":
        state: Tensors = {}
        for seed, branch in enumerate(("base_encoder", "momentum_encoder")):
            state |= vit(f"module.{branch}.", seed) | moco_head(f"module.{branch}.head.", seed)
        state["module.predictor.0.weight"] = torch.zeros(HIDDEN, BOTTLENECK)
        return {"epoch": 300, "arch": "vit_base", "state_dict": state}
    if name in ("dino", "ibot"):
        second = name == "ibot"
        student = vit("module.backbone.", 5) | prototype_head("module.head.", 6, second)
        if second:
            student["module.backbone.masked_embed"] = torch.zeros(1, WIDTH)
        teacher = vit("backbone.") | prototype_head(second=second)
        loss = {"center": torch.zeros(1, PROTOTYPES)}
        return {"student": student, "teacher": teacher, f"{name}_loss": loss}
    if name == "beit":
        tensors = vit(split_bias=True)
        del tensors["pos_embed"]
        rows = (2 * GRID - 1) ** 2 + 3
        tensors |= filled({"rel_pos_bias.relative_position_bias_table": (rows, 1)}, 8)
        index = torch.zeros(1 + GRID**2, 1 + GRID**2, dtype=torch.int64)
        tensors["rel_pos_bias.relative_position_index"] = index
        tensors |= filled({"mask_token": (1, 1, WIDTH), "lm_head.weight": (20, WIDTH)})
        return {"model": tensors}
    if name == "mae":
        decoder = {"mask_token": (1, 1, 8), "decoder_embed.weight": (8, WIDTH)}
        return {"model": vit() | filled(decoder)}
    encoder = vit("encoder.", split_bias=True)
    return {"model": encoder | filled({"pretext_neck.norm.weight": (WIDTH,)})}


def load_encoder(name: str, checkpoint: Any = None, **arguments: Any) -> Encoder:
    """Load a small network: its size is not official, so the heads are given."""
    return encoders.load_encoder(name, checkpoint, **_with_heads(name, arguments))


def load_report(name: str, checkpoint: Any = None, **arguments: Any) -> LoadReport:
    """Report on a small network, as `load_encoder` loads it."""
    return encoders.load_report(name, checkpoint, **_with_heads(name, arguments))


def _with_heads(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments if name.startswith("timm/") else {"num_heads": 1, **arguments}
