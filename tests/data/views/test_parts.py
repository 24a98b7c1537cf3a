"""View `parts`: from keypoints to boxes under both protocols, checked by arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.images import Transform
from pa.data.schema import KEYPOINT_SCHEMA, Images, Keypoints
from pa.data.store.spec import canonical_json
from pa.data.views import VIEWS, configure, view_from_json
from pa.data.views.part_rows import PartCounts
from pa.data.views.parts import PAPER, PROTOCOLS, RELEASED, PartsView, protocol_of
from pa.errors import MissingError, UnknownNameError, UsageError
from tests.support.trees import write_cub

NAMES = ("a", "b", "c")
Point = tuple[int, str, float, float]


def images_of(*images: Sequence[Point], size: tuple[int, int] = (1000, 800)) -> Images:
    """Images with points (object, part, x, y); considered are a, b and c, and there is a part z."""
    n = len(images)
    table = pl.DataFrame(
        {
            "image": range(n),
            "path": [f"{i}.jpg" for i in range(n)],
            "label": ["species"] * n,
            "label_id": [0] * n,
            "file_bytes": [1] * n,
        }
    )
    points = [
        (f"{i}.jpg", object, part, x, y, 2, *size)
        for i, image in enumerate(images)
        for object, part, x, y in image
    ]
    keypoints = pl.DataFrame(points, schema=KEYPOINT_SCHEMA, orient="row")
    actual = Keypoints(keypoints, (*NAMES, "z"), NAMES)
    return Images("toy", "all", Path("/nowhere"), table, lambda: actual)


def select(view: PartsView, *images: Sequence[Point]) -> tuple[list[tuple[Any, ...]], PartCounts]:
    """(part, d, x0, y0, x1, y1) of each row, and the counts."""
    chosen = view.select(images_of(*images))
    return chosen.rows.select("label", "d", "x0", "y0", "x1", "y1").rows(), chosen.counts


PAIR: list[Point] = [(1, "a", 100.0, 100.0), (1, "b", 130.0, 140.0)]  # 3-4-5: d = 50


def test_paper_cuts_a_square_of_side_d() -> None:
    rows, _ = select(PAPER, PAIR)
    assert rows == [("a", 50.0, 75, 75, 125, 125), ("b", 50.0, 105, 115, 155, 165)]


def test_released_cuts_half_of_it_with_halves_to_even() -> None:
    # d/4 = 12.5 → 12, so the side is 24.
    rows, _ = select(RELEASED, PAIR)
    assert rows == [("a", 50.0, 88, 88, 112, 112), ("b", 50.0, 118, 128, 142, 152)]


def test_corners_are_rounded_half_to_even() -> None:
    # d = 5: a's box is 100 ± 2.5 = 97.5 … 102.5 → 98 … 102, and 101 ± 2.5 = 98.5 … 103.5 → 98 … 104.
    points: list[Point] = [(1, "a", 100.0, 101.0), (1, "b", 103.0, 105.0)]
    rows, _ = select(PAPER, points)
    assert rows[0] == ("a", 5.0, 98, 98, 102, 104)
    # One corner and the sides (5 → 5 pixels) keep it square.
    rows, _ = select(replace(PAPER, rounding="sides"), points)
    assert rows[0] == ("a", 5.0, 98, 98, 103, 103)


def test_rounding_is_that_of_pillow() -> None:
    rows, _ = select(PAPER, [(1, "a", 20.3, 30.7), (1, "b", 29.6, 41.2)])
    _, d, x0, y0, x1, y1 = rows[0]
    assert d == pytest.approx(math.hypot(9.3, 10.5), abs=1e-12)
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    floats = (20.3 - d / 2, 30.7 - d / 2, 20.3 + d / 2, 30.7 + d / 2)
    reference = image.crop(floats).resize((224, 224), Image.Resampling.BICUBIC)
    ours = PAPER.cut(PAPER.canvas(image, Transform()), [(x0, y0, x1, y1)], Transform())
    assert np.array_equal(ours[0], np.asarray(reference))


def test_parts_outside_the_list_do_not_count_as_neighbours_unless_asked() -> None:
    points: list[Point] = [*PAIR, (1, "z", 103.0, 104.0)]
    rows, counts = select(PAPER, points)
    assert [row[1] for row in rows] == [50.0, 50.0]
    assert counts.annotated == 2
    rows, counts = select(replace(PAPER, neighbours="all"), points)
    assert [row[1] for row in rows] == [5.0, 45.0]  # 27-36-45
    assert counts.annotated == 2


def test_parts_can_be_chosen_and_their_order_gives_the_label_ids() -> None:
    view = configure(PAPER, [("parts", "z, a")])
    rows = view.rows(images_of([*PAIR, (1, "z", 103.0, 104.0)]))
    assert rows.select("label", "label_id", "d").rows() == [("z", 0, 5.0), ("a", 1, 5.0)]
    with pytest.raises(
        UnknownNameError, match=r"unknown part of dataset toy 'y'. Known: a, b, c, z"
    ):
        configure(PAPER, [("parts", "y")]).rows(images_of(PAIR))


TWO_PERSONS: list[Point] = [
    (1000, "a", 100.0, 100.0),
    (1000, "b", 100.0, 200.0),
    (2000, "a", 130.0, 100.0),
    (2000, "b", 130.0, 250.0),
]


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("image", [30.0, math.hypot(30, 50), 30.0, math.hypot(30, 50)]),
        ("object", [100.0, 100.0, 150.0, 150.0]),
        ("image+id", [100.0, 100.0, 150.0, 150.0]),  # ids 1000 apart: another person is never near
    ],
)
def test_distance_rules(distance: str, expected: list[float]) -> None:
    rows, _ = select(replace(PAPER, distance=distance), TWO_PERSONS)
    assert [row[1] for row in rows] == pytest.approx(expected, abs=1e-12)


def test_close_ids_bring_another_person_near() -> None:
    # Ids 40 apart: √(30² + 40²) = 50 is less than the 100 to the person's own other part.
    points = [(object if object == 1000 else 1040, *rest) for object, *rest in TWO_PERSONS]
    rows, _ = select(RELEASED, points)  # type: ignore[arg-type]
    assert rows[0][1] == 50.0


def test_lone_parts() -> None:
    rows, counts = select(PAPER, PAIR, [(1, "c", 5.0, 5.0)])
    assert len(rows) == 2
    assert counts.skipped == {"no neighbour": {"a": 0, "b": 0, "c": 1}}
    assert (counts.images, counts.images_kept) == (2, 1)


def test_released_wants_two_parts_of_a_person() -> None:
    points: list[Point] = [*PAIR, (2, "c", 101.0, 100.0)]
    rows, counts = select(RELEASED, points)
    # The person with one part is not a neighbour either.
    assert [row[:2] for row in rows] == [("a", 50.0), ("b", 50.0)]
    assert counts.skipped == {"too few parts on the object": {"a": 0, "b": 0, "c": 1}}


def test_coincident_parts_are_skipped_or_ignored() -> None:
    points: list[Point] = [*PAIR, (1, "c", 100.0, 100.0)]
    rows, counts = select(PAPER, points)
    assert [row[0] for row in rows] == ["b"]
    assert counts.skipped == {"coincident": {"a": 1, "b": 0, "c": 1}}
    rows, counts = select(RELEASED, points)
    assert [row[:2] for row in rows] == [("a", 50.0), ("b", 50.0), ("c", 50.0)]
    rows, counts = select(RELEASED, PAIR, [(1, "a", 9.0, 9.0), (1, "b", 9.0, 9.0)])
    assert counts.skipped == {"no neighbour": {"a": 1, "b": 1, "c": 0}}


@pytest.mark.parametrize(("d", "kept"), [(40.0, 0), (40.01, 2), (1999.9, 2), (2000.0, 0)])
def test_distance_limits_are_exclusive(d: float, kept: int) -> None:
    view = replace(RELEASED, outside="keep")
    points: list[Point] = [(1, "a", 0.0, 0.0), (1, "b", d, 0.0)]
    others: list[Point] = [(1, "a", 0.0, 0.0), (1, "b", 50.0, 0.0)]
    rows, counts = select(view, points, others)
    assert len(rows) == kept + 2
    gated = sum(counts.skipped.get("d out of bounds", {}).values())
    assert gated == 2 - kept


def test_box_that_rounds_to_nothing_is_skipped() -> None:
    rows, counts = select(PAPER, PAIR, [(1, "a", 10.1, 10.1), (1, "b", 10.1, 10.4)])
    assert len(rows) == 2
    assert counts.skipped == {"box without pixels": {"a": 1, "b": 1, "c": 0}}


def test_keypoints_outside_the_image() -> None:
    points: list[Point] = [*PAIR, (1, "c", 1000.5, 100.0)]
    _, counts = select(PAPER, points)
    assert counts.skipped == {"outside the image": {"a": 0, "b": 0, "c": 1}}
    assert len(select(RELEASED, points)[0]) == 3
    # On the far border is inside.
    assert len(select(PAPER, [*PAIR, (1, "c", 1000.0, 800.0)])[0]) == 3


def test_sizes_come_from_the_headers_where_the_annotations_have_none(tmp_path: Path) -> None:
    birds = [
        {"right eye": (20.0, 10.0), "tail": (70.0, 20.0), "right leg": (20.0, 61.0)},
        {"right eye": (20.0, 10.0), "tail": (70.0, 20.0)},
    ]
    root = write_cub(tmp_path / "cub", birds, size=(80, 60))
    images = datasets.load("cub", "cub", root, "all")
    assert PAPER.select(images).counts.skipped["outside the image"]["right leg"] == 1
    # A torn file is reported by the extraction; here it keeps its rows.
    (root / "images/002.Wren/Wren_0002.jpg").write_bytes(b"torn")
    assert len(PAPER.rows(images)) == 4


def test_exif_rotated_images_count_upright(tmp_path: Path) -> None:
    root = write_cub(tmp_path / "cub", [{"right eye": (20.0, 10.0), "tail": (20.0, 75.0)}])
    file = root / "images/001.Auk/Auk_0001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(file, exif=exif)  # upright it is 60 wide and 80 high
    assert len(PAPER.rows(datasets.load("cub", "cub", root, "all"))) == 2


def test_black_beyond_the_border() -> None:
    white = Image.new("RGB", (40, 40), "white")
    cut = PAPER.cut(PAPER.canvas(white, Transform()), [(-20, 0, 20, 40)], Transform(size=64))[0]
    assert cut.shape == (64, 64, 3)
    assert cut[:, :30].max() == 0
    assert cut[:, 34:].min() == 255


@pytest.mark.parametrize("size", [224, 96])
def test_classification_of_the_released_code_trains_on_the_central_part(size: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    view = PROTOCOLS["released-train"]
    cut = view.cut(image, [(10, 10, 74, 74)], Transform(size=size))[0]
    side = round(256 * size / 224)
    by_hand = image.crop((10, 10, 74, 74)).resize((side, side), Image.Resampling.BICUBIC)
    start = round((side - size) / 2)
    by_hand = by_hand.crop((start, start, start + size, start + size))
    assert np.array_equal(cut, np.asarray(by_hand))


def test_empty_selection_states_reason() -> None:
    with pytest.raises(
        MissingError, match=r"no row. Of 1 annotated parts in 1 images: 1 no neighbour"
    ):
        select(PAPER, [(1, "a", 1.0, 1.0)])


def test_first_n_images_are_the_first_rows() -> None:
    images = images_of(PAIR, PAIR, PAIR)
    assert PAPER.rows(images.first(2)).equals(PAPER.rows(images).head(4))


# -- protocols and options --------------------------------------------------------------------


def test_protocols_differ_in_listed_fields() -> None:
    paper, released = PAPER.to_json(), RELEASED.to_json()
    assert {name: (paper[name], released[name]) for name in paper if paper[name] != released[name]} == {
        "side": ("d", "d/2"),
        "distance": ("image", "image+id"),
        "min_per_object": (1, 2),
        "coincident": ("skip", "ignore"),
        "outside": ("skip", "keep"),
        "min_d": (None, 40.0),
        "max_d": (None, 2000.0),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_protocols_survive_a_spec(name: str) -> None:
    view = replace(PROTOCOLS[name], parts=("a", "b"))
    fields = json.loads(canonical_json(view.to_json()))
    assert fields == view.to_json()  # a store's spec shows no difference after reading it back
    assert view_from_json(fields) == view


def test_closest_protocol_is_named_with_changed_fields() -> None:
    assert protocol_of(RELEASED) == ("released", {})
    assert protocol_of(configure(RELEASED, [("min_d", 20)])) == ("released", {"min_d": 20.0})
    assert protocol_of(configure(RELEASED, [("resize", 256)])) == ("released-train", {})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("sides", "d"), r"unknown option of view parts 'sides'. Did you mean side"),
        (("side", "2d"), r"unknown side of view parts '2d'. .*Known: d, d/2, given"),
        (("distance", 3), r"unknown distance of view parts '3'"),
        (("min_per_object", 0), r"min_per_object=0. Expected: a whole number from 1"),
        (("min_per_object", 1.5), r"min_per_object=1.5. Expected: a whole number"),
        (("resize", 200), r"resize=200. Expected: a whole number from 224"),
        (("min_d", "wide"), r"min_d=wide. Expected: a number from 0 to 1,000,000, or null"),
        (("max_d", -1), r"max_d=-1. Expected: a number from 0 to 1,000,000, or null"),
        (("parts", "a,a"), r"parts=a,a names a part twice"),
    ],
)
def test_wrong_options_are_refused(option: tuple[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        configure(PAPER, [option])


def test_options_of_other_views() -> None:
    assert configure(VIEWS["grid"], [("stride", 56)]) != VIEWS["grid"]
    with pytest.raises(
        UsageError, match=r"view grid: stride=0. Expected: a whole number from 1 to 16,384"
    ):
        configure(VIEWS["grid"], [("stride", 0)])
    with pytest.raises(UsageError, match=r"view grid: window=a. Expected: a whole number"):
        configure(VIEWS["grid"], [("window", "a")])
    with pytest.raises(UnknownNameError, match="interpolation of view grid 'sinc'"):
        configure(VIEWS["grid"], [("interpolation", "sinc")])


def test_images_without_annotations_say_what_to_give(tmp_path: Path) -> None:
    images = replace(images_of(PAIR), read_annotations=None)
    with pytest.raises(
        UsageError, match=r"dataset toy has no parts for view parts. Give a table of"
    ):
        PAPER.rows(images)
    with pytest.raises(
        UsageError, match=r"dataset toy has keypoints, which side=given of view parts"
    ):
        PROTOCOLS["boxes"].rows(images_of(PAIR))


def released_by_hand(actual: Keypoints) -> list[tuple[str, int, str, float]]:
    """The released code's rule written out with loops: (path, object, part, h), in no order."""
    by_image: dict[str, dict[int, list[tuple[str, float, float]]]] = {}
    for row in actual.table.iter_rows(named=True):
        if row["visible"] == 2 and row["part"] in actual.considered:
            objects = by_image.setdefault(row["path"], {})
            objects.setdefault(row["object"], []).append((row["part"], row["x"], row["y"]))
    kept = []
    for path, objects in by_image.items():
        points = [(o, *p) for o, ps in objects.items() if len(ps) >= 2 for p in ps]
        for o, part, x, y in points:
            all_d = [math.sqrt((x - u) ** 2 + (y - v) ** 2 + (o - q) ** 2) for q, _, u, v in points]
            m = min([d for d in all_d if d != 0], default=999999) / 2
            if 20 < m < 1000:
                kept.append((path, o, part, round(m / 2)))
    return kept


@pytest.mark.shared
@pytest.mark.parametrize(
    ("kind", "folder", "split"),
    [("cub", "CUB_200_2011_320px", "all"), ("coco", "coco_mini", "train2017")],
)
def test_sample_regions_equal_plain_loops(
    shared_dir: Path, kind: str, folder: str, split: str
) -> None:
    images = datasets.load(kind, kind, shared_dir / "data" / folder, split)
    rows = RELEASED.rows(images)
    actual = images.annotations()
    assert isinstance(actual, Keypoints)
    half = (pl.col("x1") - pl.col("x0")) / 2
    ours = rows.select("path", pl.col("object").cast(pl.Int64), "part", half).rows()
    assert sorted(ours) == sorted(released_by_hand(actual))
