"""The encoder cards as a page of documentation: docs/encoders.md is this text."""

from __future__ import annotations

from collections.abc import Iterable

from pa.extract.encoders.card import CheckpointSource, EncoderCard

HEADING = """\
# Encoders

This page is generated from the registry (`pa.extract.encoders.cards.markdown`).

Every encoder is frozen and loads strictly: a tensor of the file is used, ignored by a written rule,
or an error. `cls` is token 0 after the final norm, `patch` the patch tokens after the final norm,
row by row, `pooled` their mean. Sizes come from the tensors, so that S, B and L load alike; the
number of heads is width/64 unless `num_heads` is given.

Any other timm network is `timm/<model>`: its class token is token 0 if it has one, registers and
distillation tokens are never patch tokens, the cells of a feature map are its patch tokens. Where
timm postpones the final norm until after the mean (`fc_norm`), here it is applied to every token
before the mean. The supervised ViT that the released part-retrieval code calls `vit` is
`timm/vit_base_patch16_224.augreg_in21k_ft_in1k`.

A file without container and without head does not tell which method trained it: `deit` refuses
one without classifier, `dino` and `ibot` one with sin-cos positions.
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
        ("other sizes", card.positions),
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


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
