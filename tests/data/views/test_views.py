"""The views of the paper, and the table of rows they give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pa.data.images import Transform
from pa.data.schema import ROW_SCHEMA, Images
from pa.data.views import VIEWS, GridView, view_from_json
from pa.errors import UnknownNameError, UsageError


@pytest.fixture
def images() -> Images:
    table = pl.DataFrame(
        {
            "image": [0, 1],
            "path": ["a/1.jpg", "b/2.jpg"],
            "label": ["a", "b"],
            "label_id": [0, 1],
            "file_bytes": [10, 20],
        }
    )
    return Images("toy", "val", Path("/photos"), table)


def test_grid_is_the_papers(images: Images) -> None:
    rows = VIEWS["grid"].rows(images)
    assert len(rows) == 2 * 49
    assert list(rows.columns) == list(ROW_SCHEMA)
    # Row-major: index 7·row + column. Window 19 is row 2, column 5.
    window = rows.row(49 + 19, named=True)
    assert (window["x0"], window["y0"], window["x1"], window["y1"]) == (140, 56, 196, 112)
    assert window["path"] == "b/2.jpg"
    assert rows["row"].to_list() == list(range(98))
    assert rows["x1"].max() == rows["y1"].max() == 224


def test_image_view_has_one_row_per_image(images: Images) -> None:
    rows = VIEWS["image"].rows(images)
    assert rows.select("row", "image", "x0", "y0", "x1", "y1").rows() == [
        (0, 0, 0.0, 0.0, 224.0, 224.0),
        (1, 1, 0.0, 0.0, 224.0, 224.0),
    ]


def test_extra_columns_are_kept_behind_the_fixed_ones(images: Images) -> None:
    rows = VIEWS["image"].rows(
        replace(images, table=images.table.with_columns(part=pl.lit("beak")))
    )
    assert rows.columns == [*ROW_SCHEMA, "part"]


def test_grid_cut_equals_cropping_by_hand() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    view, transform = VIEWS["grid"], Transform(size=96)
    canvas = view.canvas(Image.fromarray(pixels), transform)
    assert canvas.size == (224, 224)
    cut = view.cut(canvas, [(140, 56, 196, 112)], transform)
    by_hand = canvas.crop((140, 56, 196, 112)).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.array_equal(cut[0], np.asarray(by_hand))


def test_image_view_uses_the_encoders_transform() -> None:
    image = Image.new("RGB", (500, 300))
    transform = Transform(size=160, resize=180, interpolation="bilinear")
    view = VIEWS["image"]
    assert view.cut(view.canvas(image, transform), [(0, 0, 1, 1)], transform).shape == (
        1,
        160,
        160,
        3,
    )
    assert view.cut_key(transform) != view.cut_key(Transform(size=160, resize=180))


@pytest.mark.parametrize("name", list(VIEWS))
def test_views_survive_json(name: str) -> None:
    assert view_from_json(VIEWS[name].to_json()) == VIEWS[name]


def test_unknown_view_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown view 'gird'. Did you mean grid"):
        VIEWS["gird"]


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 0},
        {"window": 300},
        {"crop": 300},
        {"resize": 10**9},
        {"resize": True},
        {"stride": 1.5},
        {"interpolation": ["bicubic"]},
        {"interpolation": "sinc"},
        {"resize": 2000, "crop": 2000, "stride": 1},
    ],
)
def test_impossible_grid_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="view grid"):
        GridView(**options)
