"""Update the encoder cards in docs/encoders.md; run by `make docs`.

Everything after the marker is generated; the text before it is written by hand. A test compares.
"""

from __future__ import annotations

from pathlib import Path

from pa.extract.encoders import ENCODERS
from pa.extract.encoders.family import CheckpointSource, EncoderCard
from pa.extract.encoders.vit import SIZES

PAGE = Path(__file__).parent / "encoders.md"
MARKER = "<!-- The cards below are generated from the registry by docs/encoder_cards.py. -->"


def refreshed(text: str) -> str:
    """Return the page with the cards of the registry."""
    written, _, _ = text.partition(MARKER)
    cards = "\n".join(_section(ENCODERS[name].card) for name in ENCODERS)
    return f"{written}{MARKER}\n\n{cards}"


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
    """List the official sizes; the source files are named in `pa.extract.encoders.vit`."""
    sizes = [f"{size.width} × {size.depth}, {size.heads} heads" for size in SIZES.get(name, ())]
    return "; ".join(sizes) or "any, with `--num-heads`"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
