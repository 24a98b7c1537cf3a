"""How encoders and representations are called and drawn, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pa.figures.style import COLOURS
from pa.report.cells import encoders
from pa.report.deviations import size_name

REPRESENTATIONS = {
    "cls": "class token",
    "pooled": "mean patch token",
    "projected": "projected",
}
# Objects and parts of the same images, as Figure 6 compares them.
PAIRS = (("ade20k-object", "ade20k-part"), ("pascal-object", "pascal-part"))
PAPER_SIZE = "ViT-B/16"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def title_of(encoder: str, architecture: Mapping[str, Any] | None = None) -> str:
    """The paper's name of an encoder, with its size unless it is the paper's: "DeiT (ViT-Ti/16)".

    Other encoders are named by the last word of their name, which states the network.
    """
    known = encoders().get(encoder)
    if known is None:
        return encoder.rpartition("/")[2]
    size = size_name(architecture or {})
    return known.title if size in (None, PAPER_SIZE) else f"{known.title} ({size})"


def title_of_store(spec: Mapping[str, Any]) -> str:
    """The title of the encoder in the JSON of a store's spec."""
    return title_of(str(spec["encoder"]["name"]), spec["encoder"].get("architecture"))


def representation_title(name: str) -> str:
    return REPRESENTATIONS.get(name, name)


def in_order(names: Iterable[str]) -> list[str]:
    """Encoders in the order of the paper's rows, others behind them by name."""
    known = list(encoders())
    return sorted(set(names), key=lambda n: (known.index(n) if n in known else len(known), n))


def look_of(encoder: str, among: Iterable[str]) -> tuple[str, str]:
    """Colour and marker of an encoder: one of the paper's has its own, whatever stands beside."""
    known = list(encoders())
    others = [name for name in in_order(among) if name not in known]
    place = known.index(encoder) if encoder in known else len(known) + others.index(encoder)
    # A colour that comes again has another marker.
    return COLOURS[place % len(COLOURS)], MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]


def listed(words: Iterable[str]) -> str:
    """Words in a sentence: "DeiT, MoCo v3 and CAE"."""
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last
