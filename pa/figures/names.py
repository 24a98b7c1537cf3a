"""Titles, colours and markers of encoders and representations in the figures of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pa.figures.colours import OKABE_ITO, OTHER, as_hex
from pa.report.cells import encoders
from pa.report.deviations import size_name

REPRESENTATIONS = {
    "cls": "class token",
    "pooled": "mean patch token",
    "projected": "projected",
}
# Label sets of objects and parts of the same images, compared in Figure 6.
PAIRS = (("ade20k-object", "ade20k-part"), ("pascal-object", "pascal-part"))
PAPER_SIZE = "ViT-B/16"  # of all encoders of the paper; others show their size
# Yellow lines are hard to see on white paper: the last encoder of the paper is black.
COLOURS = (*map(as_hex, OKABE_ITO[:-1]), "#000000", as_hex(OTHER))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # distinguish encoders in print without colour


def title_of(encoder: str, architecture: Mapping[str, Any] | None = None) -> str:
    """Return the paper's name of an encoder, with its size if it differs: "DeiT (ViT-Ti/16)".

    Other encoders have the last component of their name, which states the network.
    """
    known = encoders().get(encoder)
    if known is None:
        return encoder.rpartition("/")[2]
    size = size_name(architecture or {})
    return known.title if size in (None, PAPER_SIZE) else f"{known.title} ({size})"


def title_of_store(spec: Mapping[str, Any]) -> str:
    """Return the title of the encoder in the JSON of a store's spec."""
    return title_of(str(spec["encoder"]["name"]), spec["encoder"].get("architecture"))


def representation_title(name: str) -> str:
    return REPRESENTATIONS.get(name, name)


def in_order(names: Iterable[str]) -> list[str]:
    """Return encoders in the order of the paper's rows, then others by name."""
    known = list(encoders())
    return sorted(set(names), key=lambda n: (known.index(n) if n in known else len(known), n))


def look_of(encoder: str, among: Iterable[str]) -> tuple[str, str]:
    """Return colour and marker of an encoder; those of the paper do not depend on `among`."""
    known = list(encoders())
    others = [name for name in in_order(among) if name not in known]
    n = known.index(encoder) if encoder in known else len(known) + others.index(encoder)
    # A repeated colour has another marker.
    return COLOURS[n % len(COLOURS)], MARKERS[(n + n // len(COLOURS)) % len(MARKERS)]


def listed(words: Iterable[str]) -> str:
    """Join words in a sentence: "DeiT, MoCo v3 and CAE"."""
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last
