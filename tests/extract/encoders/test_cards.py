"""The registry: cards are complete, and the documentation shows them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from pa.extract.encoders import ENCODERS

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_encoders_page_shows_the_registry() -> None:
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "encoder_cards.py"))["refreshed"](page) == page


@pytest.mark.parametrize("name", ENCODERS)
def test_card_is_complete(name: str) -> None:
    card = ENCODERS[name].card
    assert card.name == name
    assert card.method in ("supervised", "contrastive", "MIM", "both")
    assert all((card.title, card.paper, card.positions, card.projector, card.licence, card.notes))
    assert all(source.url or source.note for source in card.sources)
    assert any(source.projector for source in card.sources) == (ENCODERS[name].project is not None)


def test_checkpoint_source_matches_by_hash() -> None:
    source = ENCODERS["deit"].card.sources[0]
    assert source.matches("b5f2ef4d" + "0" * 56)
    assert not source.matches("0" * 64)
    assert not ENCODERS["mae"].card.sources[0].matches("0" * 64)
