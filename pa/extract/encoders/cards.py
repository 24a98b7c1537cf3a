"""The encoder cards as a page of documentation: docs/encoders.md is this text."""

from __future__ import annotations

from collections.abc import Iterable

from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.extract.encoders.sizes import SIZES

HEADING = """\
# Encoders

This page is generated from the registry (`pa.extract.encoders.cards.markdown`).

Every encoder is frozen and loads strictly: a tensor of the file is used, ignored by a written rule,
or an error; so is a weight that is NaN or infinite. `cls` is token 0 after the final norm, `patch`
the patch tokens after the final norm, row by row, `pooled` their mean.

Width, depth, patch size and grid come from the tensors. The number of attention heads is not in
them: it is that of the official size with the same width and depth (row "sizes" below: width ×
depth, heads). For any other size, give `--num-heads` (`num_heads` in Python and under
`[encoders.NAME]`). The number is part of the fingerprint.

## Which file an encoder accepts

A file is accepted on evidence for the encoder: its containers, the keys of a projector or decoder,
the position table (learned; fixed sin-cos that begins with the column, as MAE's, or with the row,
as those of MoCo v3 and CAE). The prefix `module.` of DistributedDataParallel is allowed everywhere.

- `deit`: `head.weight` and learned positions, under `model` or without container;
- `mocov3`: `base_encoder.*` or `momentum_encoder.*`; or positions that begin with the row;
- `dino`: `head.mlp.*` or `dino_loss`, without a second prototype layer; or, as the file of the
  backbone, a ViT with learned positions, without head and without container;
- `beit`: `q_bias` with `lm_head.*` or a shared table of relative positions;
- `mae`: `decoder_*`; or positions that begin with the column;
- `cae`: `pretext_neck.*`; or `q_bias` and positions that begin with the row;
- `ibot`: `last_layer2`, `masked_embed` or `ibot_loss`; or, as the file of the backbone, a ViT with
  learned positions and without head, alone under `state_dict`.

Any other file is refused with what it looks like and what to do. If you know which method trained
it, `--accept` (`accept = true` under `[encoders.NAME]`) loads it if every tensor fits; that is
recorded in the store. Two kinds of files look alike to this test: a ViT that was trained with
labels by another method passes as `deit`, and a ViT backbone without head or container as `dino`.

## timm networks

Any other timm network is `timm/<model>`. Its file may have timm's layout or the official layout
that timm converts (DINOv2, DeiT III, Swin, fine-tuned BEiT …); positions of another size are an
error, not interpolated. The class token is token 0 if there is one, registers and distillation
tokens are never patch tokens, the cells of a feature map are its patch tokens.

- `patch`: where timm postpones the final norm until after pooling (`fc_norm`, `head.norm`:
  ConvNeXt, Hiera, CAFormer, DaViT …), it is applied to every patch token. The patch tokens of PiT
  are the cells of its last stage after the final norm.
- `pooled`: where the network pools by the mean, the vector that timm passes to its classifier
  (`forward_head(…, pre_logits=True)`): the norm of the mean, which is not the mean of `patch`, and
  the layers after it (MaxViT, MobileNet …), so that its width may differ from that of `patch`.
  Elsewhere the mean of `patch`.
- `layers`: where the network has blocks whose outputs are all its patch tokens.

The supervised ViT that the released part-retrieval code calls `vit` is
`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`.
"""


def markdown(cards: Iterable[EncoderCard]) -> str:
    """Return docs/encoders.md."""
    return "\n".join([HEADING, *map(_section, cards)])


def _section(card: EncoderCard) -> str:
    transform = card.transform
    rows = [
        ("method", f"{card.method}. {card.paper}"),
        ("files", "<br>".join(map(_source, card.sources))),
        (
            "transform",
            f"resize {transform.resize} {transform.interpolation}, centre crop {transform.size}, "
            f"mean {_numbers(transform.mean)}, std {_numbers(transform.std)}",
        ),
        ("sizes", _sizes(card.name)),
        ("other image sizes", card.positions),
        ("projector", card.projector),
        ("branches", ", ".join(card.branches) or "one network"),
        ("options", ", ".join(f"`{name}={value!r}`" for name, value in card.options) or "none"),
        ("licence", card.licence),
    ]
    table = "".join(f"| {name} | {value} |\n" for name, value in rows)
    return f"## {card.name}: {card.title}\n\n| | |\n|---|---|\n{table}\n{card.notes}\n"


def _source(source: CheckpointSource) -> str:
    parts = [source.url, source.note, "with projector" if source.projector else ""]
    return f"`{source.file}`: " + "; ".join(part for part in parts if part)


def _sizes(name: str) -> str:
    """List the official sizes; the source files are named in `pa.extract.encoders.sizes`."""
    sizes = [f"{size.width} × {size.depth}, {size.heads} heads" for size in SIZES.get(name, ())]
    return "; ".join(sizes) or "any, with `--num-heads`"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
