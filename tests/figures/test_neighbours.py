"""The figure of a query in a red box and its neighbours, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data.crops import Crops
from pa.data.store.reader import Store
from pa.errors import MissingError, UsageError
from pa.figures.neighbours import Layout, draw, panels_of
from pa.figures.paper import MARGIN
from pa.figures.style import PRINT_DPI, Target
from pa.index.build import build
from pa.index.search import Query, SearchResult, search
from tests.figures.conftest import pixels_of, size_of
from tests.support.vectors import is_red, make_store, store, vectors

__all__ = ["make_store", "store", "vectors"]


@pytest.fixture
def results(store: Store, tmp_path: Path):  # type: ignore[no-untyped-def]
    return search(build(store, "pooled", tmp_path / "i"), [60], 24)


def drawn(store: Store, results: list[SearchResult], path: Path, root: Path | None = None) -> Path:
    draw(panels_of([(store, result) for result in results], root), Target([path]))
    return path


def test_figure_has_one_red_box(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = drawn(store, results, tmp_path / "f.png")
    red = is_red(path)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    # Window 60 is window 11 of image 1: row 1, column 4; a quarter of the canvas wide.
    height, width = rows[-1] - rows[0], columns[-1] - columns[0]
    assert abs(height - width) <= 2
    assert columns[-1] < red.shape[1] / 3
    # A frame, not a filled square.
    assert red.sum() < 0.4 * height * width


def test_neighbours_are_drawn_in_rank_order(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    crops = Crops(store)
    picture = pixels_of(drawn(store, results, tmp_path / "f.png"))
    layout = Layout(6.5 - 2 * MARGIN, n_panels=1, across=1, k=24)
    assert (layout.columns, layout.rows) == (8, 3)
    side = round(layout.cell * PRINT_DPI)
    for number in (0, 7, 23):
        x, y = layout.corner(0, number)
        left, top = (round((MARGIN + length) * PRINT_DPI) for length in (x, y))
        region = np.asarray(crops.region(results[0].neighbours[number].row, side), int)
        # Its upper half: the cosine is in the lower right corner.
        half = slice(2, side // 2)
        actual = picture[top : top + side, left : left + side]
        assert np.abs(actual[half, 2:-2] - region[half, 2:-2]).mean() < 2


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_equal_results_give_equal_files(store: Store, results, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    first = drawn(store, results, tmp_path / f"one{suffix}")
    two = drawn(store, results, tmp_path / f"two{suffix}")
    assert first.read_bytes() == two.read_bytes()
    assert first.stat().st_size > 5000


def test_answers_to_one_query_share_its_picture(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index = build(store, "pooled", tmp_path / "i")
    same = drawn(store, results * 2, tmp_path / "same.png")
    other = drawn(store, results + search(index, [61], 24), tmp_path / "other.png")
    (_, one_query), (_, two_queries) = size_of(same), size_of(other)
    assert two_queries > 1.5 * one_query
    assert drawn(store, results, tmp_path / "one.png")


def test_image_file_query_is_drawn(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path / "i")
    picture = Image.new("RGB", (300, 200), "blue")
    query = Query(
        vector=store.read("pooled", [5])[0], path="mine.png", box=(10, 10, 60, 60), canvas=picture
    )
    path = drawn(store, search(index, [query], 5), tmp_path / "f.png")
    assert is_red(path).any()


def test_errors(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"f.bmp: expected a file ending in .*; found .bmp"):
        drawn(store, results, tmp_path / "f.bmp")
    with pytest.raises(MissingError, match="they were moved, give their root with --root DIR"):
        drawn(store, results, tmp_path / "f.png", tmp_path / "moved")
    assert not (tmp_path / "f.png").exists()
