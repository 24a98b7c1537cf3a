"""The figure of a query in a red box and its neighbours, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data.crops import Crops
from pa.data.store.reader import Store
from pa.errors import MissingError, UsageError
from pa.figures.neighbours import draw
from pa.index.build import build
from pa.index.search import Query, search
from tests.support.vectors import is_red, make_store, store, vectors

__all__ = ["make_store", "store", "vectors"]


@pytest.fixture
def results(store: Store, tmp_path: Path):  # type: ignore[no-untyped-def]
    return search(build(store, "pooled", tmp_path / "i"), [60], 24)


def test_figure_has_one_red_box(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = draw(results, Crops(store), tmp_path / "f.png")
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
    with Image.open(draw(results, crops, tmp_path / "f.png")) as file:
        picture = np.asarray(file.convert("RGB"), int)
    first = np.asarray(crops.region(results[0].neighbours[0].row, 112), int)
    # The first neighbour's upper half stands somewhere right of the query, pixel by pixel.
    patch = first[:80]
    actual = [
        (top, left)
        for top in range(80)
        for left in range(300, 460)
        if np.abs(picture[top, left : left + 112] - patch[0]).mean() < 3
        and np.abs(picture[top : top + 80, left : left + 112] - patch).mean() < 3
    ]
    assert actual


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_equal_results_give_equal_files(store: Store, results, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    first = draw(results, Crops(store), tmp_path / f"one{suffix}")
    two = draw(results, Crops(store), tmp_path / f"two{suffix}")
    assert first.read_bytes() == two.read_bytes()
    assert first.stat().st_size > 5000


def test_results_are_drawn_in_rows(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    single = is_red(draw(results, Crops(store), tmp_path / "one.png"))
    double = is_red(draw(results * 2, Crops(store), tmp_path / "two.png"))
    assert double.shape[1] == single.shape[1]
    assert double.shape[0] > 1.8 * single.shape[0]
    assert double.sum() == 2 * single.sum()


def test_image_file_query_is_drawn(store: Store, tmp_path: Path) -> None:
    index = build(store, "pooled", tmp_path / "i")
    picture = Image.new("RGB", (300, 200), "blue")
    query = Query(
        vector=store.read("pooled", [5])[0], path="mine.png", box=(10, 10, 60, 60), canvas=picture
    )
    path = draw(search(index, [query], 5), Crops(store), tmp_path / "f.png")
    assert is_red(path).any()


def test_errors(store: Store, results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"f.bmp: expected a file ending in .*; found .bmp"):
        draw(results, Crops(store), tmp_path / "f.bmp")
    with pytest.raises(MissingError, match="they were moved, give their root with --root DIR"):
        draw(results, Crops(store, tmp_path / "moved"), tmp_path / "f.png")
    assert not (tmp_path / "f.png").exists()
