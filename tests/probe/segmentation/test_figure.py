"""The picture of a run: colours that can be told apart, and what is written beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data.datasets.segmentation.labels import IGNORED
from pa.probe.segmentation import figure
from pa.probe.segmentation.colours import MOST, OKABE_ITO, OTHER, as_seen, distances, palette
from pa.probe.segmentation.labels import LabelMaps
from pa.probe.segmentation.score import Shown
from tests.support.images import noise_image

SAME = 0.02  # about what a person just tells apart in OKLab


def test_no_two_colours_look_alike_to_any_eye() -> None:
    colours = np.array([*palette(MOST), OTHER])
    assert len(set(map(tuple, colours.tolist()))) == MOST + 1
    seen = as_seen(colours)
    apart = distances(seen, seen)[~np.eye(len(colours), dtype=bool)]
    assert apart.min() > 3 * SAME
    assert palette(MOST)[:7] == OKABE_ITO
    assert palette(3) == OKABE_ITO[:3]
    with pytest.raises(ValueError, match="cannot be told apart"):
        palette(MOST + 1)


def test_red_and_green_are_one_colour_without_green_cones() -> None:
    """What the measure is for: far apart for most, near for some."""
    red, green = np.array([[180, 90, 0]]), np.array([[110, 120, 0]])
    normal, _, without_green = np.linalg.norm(as_seen(red) - as_seen(green), axis=-1)[:, 0]
    assert normal > 3 * without_green


def test_grey_stays_grey_to_every_eye() -> None:
    seen = as_seen(np.array([[128, 128, 128]]))
    np.testing.assert_allclose(seen[1:], seen[:1].repeat(2, 0), atol=2e-3)


def shown(truth: np.ndarray, *guesses: np.ndarray) -> Shown:
    image = {"path": "a.png", "width": truth.shape[1], "height": truth.shape[0]}
    return Shown(image, [truth], list(guesses))


def test_only_classes_that_are_drawn_have_a_line() -> None:
    truth = np.full((8, 8), 3, np.uint8)
    truth[:4], truth[0] = 7, IGNORED
    maps = LabelMaps("parts", tuple(f"part {i}" for i in range(40)), Path())
    colours = figure.colours_of([truth], [truth])
    assert figure._entries(colours, maps) == [("part 3", OKABE_ITO[0]), ("part 7", OKABE_ITO[1])]
    many = np.repeat(np.arange(30, dtype=np.uint8), 2).reshape(6, 10)
    entries = figure._entries(figure.colours_of([many], [many]), maps)
    assert len(entries) == MOST + 1
    assert entries[-1] == ("10 smaller classes", OTHER)


def test_the_file_says_what_it_shows(tmp_path: Path) -> None:
    truth = np.zeros((40, 60), np.uint8)
    noise_image(1, (60, 40)).save(tmp_path / "a.png")
    maps = LabelMaps("parts", ("a", "b"), tmp_path)
    path = tmp_path / "f.png"
    figure.draw(path, [shown(truth, truth)], [maps], 1, tmp_path, "a head", "of store 1a2b")
    with Image.open(path) as drawn:
        assert drawn.text["Title"] == "a head"
        assert drawn.text["Description"] == "of store 1a2b"
