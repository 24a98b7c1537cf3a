"""Colours of classes that readers can distinguish."""

from __future__ import annotations

import numpy as np
import pytest

from pa.data.datasets.segmentation.labels import IGNORED
from pa.figures.colours import (
    MAX_COLOURS,
    OKABE_ITO,
    OTHER,
    as_seen,
    colours_of,
    distances,
    palette,
)

SAME = 0.02  # smallest difference in OKLab that a person notices


def test_palette_is_distinguishable_with_every_colour_vision() -> None:
    colours = np.array([*palette(MAX_COLOURS), OTHER])
    assert len(set(map(tuple, colours.tolist()))) == MAX_COLOURS + 1
    seen = as_seen(colours)
    apart = distances(seen, seen)[~np.eye(len(colours), dtype=bool)]
    assert apart.min() > 3 * SAME
    assert palette(MAX_COLOURS)[:7] == OKABE_ITO
    assert palette(3) == OKABE_ITO[:3]
    with pytest.raises(ValueError, match="are distinguishable"):
        palette(MAX_COLOURS + 1)


def test_simulated_colour_blindness_merges_red_and_green() -> None:
    """Two colours that are far apart for most readers are close for some."""
    red, green = np.array([[180, 90, 0]]), np.array([[110, 120, 0]])
    normal, _, without_green = np.linalg.norm(as_seen(red) - as_seen(green), axis=-1)[:, 0]
    assert normal > 3 * without_green


def test_simulated_colour_blindness_keeps_grey() -> None:
    seen = as_seen(np.array([[128, 128, 128]]))
    np.testing.assert_allclose(seen[1:], seen[:1].repeat(2, 0), atol=2e-3)


def test_colours_of_ranks_the_classes_drawn() -> None:
    truth = np.full((8, 8), 3, np.uint8)
    truth[:4], truth[0] = 7, IGNORED
    assert colours_of([truth, truth]) == [(3, OKABE_ITO[0]), (7, OKABE_ITO[1])]
    many = np.repeat(np.arange(30, dtype=np.uint8), 2).reshape(6, 10)
    colours = [colour for _, colour in colours_of([many])]
    assert len(set(colours)) == MAX_COLOURS + 1
    assert colours[MAX_COLOURS:] == [OTHER] * 10
