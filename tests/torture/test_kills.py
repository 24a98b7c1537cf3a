"""Kill -9, and the cache survives: resumed stores equal undisturbed ones bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.torture.conftest import rounds, run_script

Photographs = Callable[..., Path]


@pytest.mark.timeout(3600)
def test_killed_at_random_moments_two_workers(photographs: Photographs, tmp_path: Path) -> None:
    images = photographs(60, bad_every=30)
    kills = rounds("KILLS")
    output = run_script("killing", images, tmp_path / "o", kills, rounds("SEED"), timeout=3600)
    print(output)
    assert output["kills"] >= kills
    assert output["compared"] >= kills / 6
    assert output["wrong"] == []
    assert sum(output["stopped"].values()) > 0


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An extraction of three shards, killed before steps that it takes in the file system."""
    from tests.support.images import noise_image

    root = tmp_path_factory.mktemp("stepped")
    (root / "photos").mkdir()
    for number in range(9):
        noise_image(number, (48, 40)).save(root / "photos" / f"{number}.png")
    return run_script("stepping", root / "photos", root / "o", rounds("EVERY"), timeout=3600)


@pytest.mark.timeout(3600)
def test_killed_before_its_steps(stepped: dict[str, Any]) -> None:
    print(stepped)
    assert stepped["steps"] > 40
    assert stepped["killed"] >= stepped["steps"] // rounds("EVERY")
    assert stepped["wrong"] == {}
