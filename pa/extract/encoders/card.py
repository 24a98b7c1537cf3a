"""Encoder cards: the description of an encoder and the sources of its weights, as data.

`pa encoders list` and docs/encoders.md are generated from them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pa.data.images import Transform


@dataclass(frozen=True)
class CheckpointSource:
    """One file that the authors publish."""

    file: str
    url: str = ""  # empty without a direct address
    projector: bool = False  # whether the file contains the pretraining projector
    note: str = ""
    sha256_prefix: str = ""  # beginning of the hash that the authors state

    def matches(self, sha256: str) -> bool:
        """Return whether a file has the published hash; False if none is published."""
        return bool(self.sha256_prefix) and sha256.startswith(self.sha256_prefix)


@dataclass(frozen=True)
class EncoderCard:
    """Description of an encoder."""

    name: str
    title: str
    method: str  # supervised, contrastive, MIM (masked image modelling), or both
    paper: str
    sources: tuple[CheckpointSource, ...]
    transform: Transform
    positions: str  # how positions are resized for other image sizes
    projector: str
    licence: str
    notes: str
    branches: tuple[str, ...] = ()  # networks inside one file, the default first
    options: tuple[tuple[str, object], ...] = ()  # protocol switches with their defaults

    def where(self) -> str:
        """Return the files and their addresses in one line."""
        return " or ".join(
            f"{source.file} ({source.url or source.note})" for source in self.sources
        )


def read_cards() -> dict[str, EncoderCard]:
    """Read the cards of the official encoders, cards.toml."""
    tables = tomllib.loads(Path(__file__).with_name("cards.toml").read_text(encoding="utf-8"))
    cards = {}
    for name, table in tables.items():
        fields = {
            **table,
            "sources": tuple(CheckpointSource(**source) for source in table["sources"]),
            "transform": Transform(**table.get("transform", {})),
            "branches": tuple(table.get("branches", ())),
            "options": tuple(table.get("options", {}).items()),
        }
        cards[name] = EncoderCard(name, **fields)
    return cards
