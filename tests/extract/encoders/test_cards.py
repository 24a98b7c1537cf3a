"""The registry: cards are complete, and the documentation is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pa.extract.encoders import ENCODERS
from pa.extract.encoders.cards import markdown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "encoders.md"


def test_the_page_is_generated_from_the_registry() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(ENCODERS[name].card for name in ENCODERS)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_card_is_complete(name: str) -> None:
    card = ENCODERS[name].card
    assert card.name == name
    assert card.method in ("supervised", "contrastive", "MIM", "both")
    assert all((card.title, card.paper, card.positions, card.projector, card.licence, card.notes))
    assert all(source.url or source.note for source in card.sources)
    assert any(source.projector for source in card.sources) == (ENCODERS[name].project is not None)


def test_known_files_are_recognised_by_hash() -> None:
    source = ENCODERS["deit"].card.sources[0]
    assert source.matches("b5f2ef4d" + "0" * 56)
    assert not source.matches("0" * 64)
    assert not ENCODERS["mae"].card.sources[0].matches("0" * 64)
