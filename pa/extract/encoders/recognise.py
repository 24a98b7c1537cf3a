"""Identify a checkpoint from its containers, keys and position table.

The same function decides what a family accepts and what the message of a refusal advises, so the
advice always names a family that accepts the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from pa.extract.encoders.checkpoint import first_container, tensors_in
from pa.extract.encoders.positions import Order, sincos_order

# Containers of official training code and of timm, in the order of attempts.
CONTAINERS = ("model", "state_dict", "module")
DISTILLED = ("teacher", "student")
PLAIN, SPLIT = ("deit", "mocov3", "dino", "mae", "ibot"), ("beit", "cae")
RECOGNISED = (*PLAIN, *SPLIT)  # the families that need evidence; a plug-in checks its own file
MODULE = "module."  # prefix of a network saved inside DistributedDataParallel

MAE_FILES = "use the file of the pretraining, mae_pretrain_vit_base.pth"
MOCO_FILES = "use the file of the pretraining, vit-b-300ep.pth.tar"
NO_LOADER = "`pa` has no loader for it"
# Width of a ViT → size in timm's names.
TIMM_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
# (width, blocks of the third stage) of a Swin; (bottleneck, blocks of the third stage) of a ResNet.
SWINS = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}
SWIN_WINDOWS = {169: "window7_224", 529: "window12_384"}  # rows of a table of relative positions
RESNETS = {(False, 2): 18, (False, 6): 34, (True, 6): 50, (True, 23): 101, (True, 36): 152}


@dataclass(frozen=True)
class Identity:
    """The network that a checkpoint contains."""

    title: str
    family: str = ""  # encoder that accepts the file
    branch: str = ""  # branch to request, if not the default
    advice: str = ""  # other action for the user
    candidates: tuple[str, ...] = ()  # encoders that can load the file, without evidence which

    def sentence(self, name: str = "") -> str:
        """Describe the file and the action to take; `name` is the encoder it was loaded as."""
        advice = self.advice
        if self.family:
            branch = f" with --branch {self.branch}" if self.branch else ""
            # A user who has just loaded it as mae needs no "load it as mae".
            advice = f"load it as `{self.family}`{branch}" if branch or self.family != name else ""
        elif self.candidates:
            names = [name] if name in self.candidates else self.candidates
            known = " or ".join(f"`{candidate}`" for candidate in names)
            advice = f"if you know that it is {known}, load it as that with --accept"
        elif f"`{name}`" in advice:
            advice = ""
        return f"It looks like {self.title}{': ' if advice else ''}{advice}."


@dataclass(frozen=True)
class Network:
    """The tensors of one container."""

    container: str  # "" for the file itself
    tensors: Mapping[str, Tensor]  # keys without `module.`
    content: Mapping[str, Any] = field(default_factory=dict)  # of the whole file

    def any(self, pattern: str) -> bool:
        """Return whether a key begins with the pattern."""
        return any(re.match(pattern, key) for key in self.tensors)

    @cached_property
    def order(self) -> Order | None:
        """Return the first axis of a fixed sin-cos table of positions."""
        return sincos_order(self.positions)

    @property
    def positions(self) -> Tensor | None:
        return self.tensors.get("pos_embed", self.tensors.get("encoder.pos_embed"))

    @property
    def width(self) -> int:
        return self.rows("norm.weight") or self.rows("cls_token", -1)

    def rows(self, key: str, axis: int = 0) -> int:
        """Return the length of one axis of a tensor; 0 if it is missing."""
        tensor = self.tensors.get(key)
        return 0 if tensor is None or not tensor.ndim else int(tensor.shape[axis])

    def count(self, pattern: str) -> int:
        """Return the number of different values of the pattern's group among the keys."""
        return len({match[1] for key in self.tensors if (match := re.match(pattern, key))})


def recognise(content: Mapping[str, Any]) -> Identity:
    """Identify a checkpoint."""
    container, raw = first_container(content, (*CONTAINERS, *DISTILLED))
    net = Network(container, {k.removeprefix(MODULE): t for k, t in raw.items()}, content)
    if not net.tensors:
        entries = ", ".join(f"`{entry}`" for entry in list(content)[:6])
        return Identity(f"a file without tensors (its entries: {entries})")
    for identify in (
        _other_network,
        _self_distilled,
        _prefixed_encoder,
        _vit_of_timm,
        _beit_like,
        _plain_vit,
    ):
        if identity := identify(net):
            return identity
    shown = ", ".join(list(raw)[:4])
    return Identity(f"nothing known to `pa` (its first keys: {shown})")


# -- networks that are not a ViT of the seven --------------------------------------------------


def _other_network(net: Network) -> Identity | None:
    if net.any(r"layers\.0\.blocks\.0\."):
        return _swin(net)
    if net.any(r"(.*\.)?layer1\.0\.conv1\.weight"):
        return _resnet(net)
    if net.any(r"(.*\.)?(token_embedding|transformer\.resblocks)\."):
        return Identity("a CLIP model", advice=NO_LOADER)
    if net.any(r"(.*\.)?(patch_embeddings\.|embeddings\.cls_token)"):
        return Identity("a Hugging Face transformers model", advice="convert it to timm's keys")
    if net.any(r"(.*encoder\.|backbone\.)?patch_embed\.proj\.\d+\."):
        whose = "MoCo v3" if net.any(r"(base|momentum)_encoder\.") else "ViT"
        return Identity(f"a {whose} with a convolutional stem (vit_conv_*)", advice=NO_LOADER)
    return None


def _swin(net: Network) -> Identity:
    width = net.rows("patch_embed.proj.weight")
    size = SWINS.get((width, net.count(r"layers\.2\.blocks\.(\d+)\.")))
    table = net.rows("layers.0.blocks.0.attn.relative_position_bias_table")
    window = SWIN_WINDOWS.get(table)
    named = f"load it as `timm/swin_{size}_patch4_{window}`" if size and window else NO_LOADER
    return Identity("a Swin Transformer", advice=named)


def _resnet(net: Network) -> Identity:
    bottleneck = net.any(r"(.*\.)?layer1\.0\.conv3\.")
    depth = RESNETS.get((bottleneck, net.count(r"(?:.*\.)?layer3\.(\d+)\.")))
    title = f"a ResNet-{depth}" if depth else "a ResNet"
    if net.any(r"(base|momentum)_encoder\."):
        title = f"the MoCo v3 training of {title}"
    elif net.any(r"encoder_[qk]\."):
        title = f"the MoCo training of {title}"
    elif net.container in DISTILLED or net.any(r"backbone\."):
        title = f"the self-distillation (DINO) of {title}"
    elif depth:
        return Identity(title, advice=f"load it as `timm/resnet{depth}`")
    return Identity(title, advice=NO_LOADER)


# -- training files of DINO and iBOT --------------------------------------------------------------


def _self_distilled(net: Network) -> Identity | None:
    """Identify DINO and iBOT: teacher, student or both, with or without prefix and head."""
    headed = net.any(r"head\.(mlp|last_layer)")
    if not (net.container in DISTILLED or headed or net.any(r"backbone\.|masked_embed")):
        return None
    networks = [net.tensors, *(tensors_in(net.content.get(name)) for name in DISTILLED)]
    keys = [key for tensors in networks for key in tensors]
    branch = "student" if distilled_branch(net.content) == "student" else ""
    only = " with the student only" if branch else ""
    if "ibot_loss" in net.content or any(re.search("last_layer2|masked_embed", k) for k in keys):
        return Identity(f"an iBOT checkpoint{only}", "ibot", branch)
    if "dino_loss" in net.content or headed:
        return Identity(f"a DINO checkpoint{only}", "dino", branch)
    title = "a self-distilled backbone of DINO or iBOT, without its head"
    return Identity(title, candidates=("dino", "ibot"))


def distilled_branch(content: Mapping[str, Any]) -> str:
    """Return the branch in a file of DINO or iBOT: "both", "teacher" or "student".

    In a file of one network, only the student has a mask token or was saved with `module.`.
    """
    held = [name for name in DISTILLED if tensors_in(content.get(name))]
    if held:
        return held[0] if len(held) == 1 else "both"
    _, tensors = first_container(content, CONTAINERS)
    student = r"module\.(backbone|head)\.|(module\.)?(backbone\.)?masked_embed"
    return "student" if any(re.match(student, key) for key in tensors) else "teacher"


# -- ViTs ----------------------------------------------------------------------------------------


def _prefixed_encoder(net: Network) -> Identity | None:
    """Identify MoCo v3, CAE and SimMIM, whose encoder has a prefix."""
    if net.any(r"base_encoder\."):
        return Identity("a MoCo v3 checkpoint", "mocov3")
    if net.any(r"momentum_encoder\."):
        return Identity("a MoCo v3 file with the momentum encoder only", "mocov3", "momentum")
    if net.any(r"pretext_neck\."):
        return Identity("a CAE checkpoint", "cae")
    if not net.any(r"encoder\.blocks\."):
        return None
    if net.any(r"decoder\.0\."):
        return Identity("a SimMIM checkpoint", advice=NO_LOADER)
    if net.any(r"encoder\.blocks\.\d+\.attn\.q_bias"):
        if net.order == "row":
            return Identity("a CAE encoder without its decoder", "cae")
        return Identity("a BEiT-like network under the prefix `encoder.`", candidates=("cae",))
    return Identity("a network under the prefix `encoder.`", advice=NO_LOADER)


def _vit_of_timm(net: Network) -> Identity | None:
    """Identify ViTs of timm outside the seven families: distilled DeiT, DINOv2, DeiT III."""
    size, rows = TIMM_SIZES.get(net.width), net.rows("pos_embed", 1)
    if net.any("dist_token|head_dist"):
        title = "a distilled DeiT, with a class and a distillation token (198 positions at 224)"
        return _named(title, size and f"deit_{size}_distilled_patch16_224")
    if net.any(r"blocks\.\d+\.ls1\.gamma"):
        # 37×37 patches of a 518×518 image, with or without a row for the class token
        if net.rows("patch_embed.proj.weight", -1) == 14 and rows in (1370, 1369):
            kind = "reg4_dinov2" if net.any("register_tokens|reg_token") else "dinov2"
            size = "giant" if net.width == 1536 else size
            return _named("a DINOv2 network", size and f"vit_{size}_patch14_{kind}")
        if rows == 196:
            return _named("a DeiT III network", size and f"deit3_{size}_patch16_224")
        advice = "load it under the timm name that it was saved from"
        return Identity("a ViT with timm's layer scale", advice=advice)
    if net.any(r"blocks\.\d+\.gamma_1") and net.any(r"blocks\.\d+\.attn\.qkv\.bias"):
        return _named("a DeiT III network", size and rows == 196 and f"deit3_{size}_patch16_224")
    return None


def _named(title: str, model: str | bool | int | None) -> Identity:
    return Identity(title, advice=f"load it as `timm/{model}`" if model else NO_LOADER)


def _beit_like(net: Network) -> Identity | None:
    """Identify BEiT and CAE, whose q and v have a bias each."""
    if not net.any(r"blocks\.\d+\.attn\.q_bias"):
        return None
    per_block = net.any(r"blocks\.\d+\.attn\.relative_position_bias_table")
    if per_block or net.any(r"fc_norm\.|head\."):
        if net.positions is not None or not per_block:
            files = "use the file of the pretraining"
            return Identity("a fine-tuned BEiT or CAE", advice=files)
        size = TIMM_SIZES.get(net.width)
        patch16 = net.rows("patch_embed.proj.weight", -1) == 16
        table = net.rows("blocks.0.attn.relative_position_bias_table")
        at = {732: 224, 2212: 384}.get(table)  # (2n-1)^2 + 3 rows, n the side of the grid
        known = size in ("base", "large") and patch16 and at
        return _named("a fine-tuned BEiT", known and f"beit_{size}_patch16_{at}")
    if net.any(r"lm_head\.|rel_pos_bias\."):
        return Identity("a BEiT checkpoint", "beit")
    if net.order == "row":
        return Identity("a CAE encoder without its decoder", "cae")
    return Identity("an encoder of BEiT or CAE without its decoder", candidates=SPLIT)


def _plain_vit(net: Network) -> Identity | None:
    """Identify DeiT, MoCo v3, DINO, MAE and iBOT, which have one bias for q, k and v."""
    if not net.any(r"blocks\.\d+\.(attn\.qkv|mlp\.fc1)\.weight"):
        return None
    if net.any(r"decoder_(embed|blocks|pred)\."):
        return Identity("a MAE checkpoint with its decoder", "mae")
    if net.any("lm_head"):
        return Identity("a ViT with a classifier of visual tokens", advice=NO_LOADER)
    if net.any(r"fc_norm\."):
        title = "a fine-tuned MAE (a ViT trained with labels on the mean of its tokens: fc_norm)"
        return Identity(title, advice=MAE_FILES)
    if net.any(r"head\.\d+\."):
        return Identity("a linear probe of MAE", advice=MAE_FILES)
    if net.any(r"head\.weight"):
        return _with_classifier(net)
    if net.order == "column":
        return Identity("a MAE encoder (its fixed positions begin with the column)", "mae")
    if net.order == "row":
        return Identity("a MoCo v3 encoder (its fixed positions begin with the row)", "mocov3")
    if not net.container:
        return Identity("a DINO backbone (a ViT without container or head)", "dino")
    if net.container == "state_dict" and len(net.content) == 1:
        return Identity("an iBOT backbone (a ViT under `state_dict` without head)", "ibot")
    return Identity(
        f"a ViT without head under `{net.container}` (nothing in it shows which method trained it)",
        candidates=PLAIN[1:],
    )


def _with_classifier(net: Network) -> Identity:
    if net.order == "column":
        return Identity("a probe or a fine-tuned network of MAE", advice=MAE_FILES)
    if net.order == "row" or (net.container == "state_dict" and "arch" in net.content):
        title = "a linear-probe file of MoCo v3, whose head is a classifier"
        return Identity(title, advice=MOCO_FILES)
    if net.container in ("", "model"):
        return Identity("a ViT with a classifier, as DeiT's", "deit")
    return Identity(f"a ViT with a classifier under `{net.container}`", candidates=("deit",))
