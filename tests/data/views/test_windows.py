"""View `windows`: positions of windows, and equal cuts of image and mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from pa.data.crops import Crops
from pa.data.datasets import load
from pa.data.datasets.segmentation import masks
from pa.data.images import Transform
from pa.data.schema import Images
from pa.data.store.writer import claim, create
from pa.data.views import VIEWS, view_from_json, windows
from pa.data.views.windows import (
    Window,
    cut_mask,
    rescaled,
    sliding,
    windows_for,
    windows_in,
)
from pa.errors import AnnotationError, UnknownNameError, UsageError
from tests.support.segmentation_trees import index_tree
from tests.support.stores import make_spec

ADE, PASCAL, LIP = map(windows_for, ("ade20k", "pascal-part", "lip"))
SMALL = replace(
    PASCAL, crop=16, stride=6, test_long=160, test_short=20, train_long=24, train_short=24
)


def of_size(*sizes: tuple[int | None, int | None]) -> Images:
    n = len(sizes)
    table = pl.DataFrame(
        {
            "image": range(n),
            "path": [f"{i}.jpg" for i in range(n)],
            "label": pl.Series([None] * n, dtype=pl.String),
            "label_id": pl.Series([None] * n, dtype=pl.Int64),
            "file_bytes": [10] * n,
            "width": pl.Series([w for w, _ in sizes], dtype=pl.Int64),
            "height": pl.Series([h for _, h in sizes], dtype=pl.Int64),
        }
    )
    return Images("toy", "val", Path("/photos"), table)


def slide_inference(
    height: int, width: int, crop: int, stride: int
) -> list[tuple[int, int, int, int]]:
    """The boxes of mmsegmentation 0.11, encoder_decoder.py, as its loop computes them."""
    h_grids = max(height - crop + stride - 1, 0) // stride + 1
    w_grids = max(width - crop + stride - 1, 0) // stride + 1
    boxes = []
    for h_idx in range(h_grids):
        for w_idx in range(w_grids):
            y1, x1 = h_idx * stride, w_idx * stride
            y2, x2 = min(y1 + crop, height), min(x1 + crop, width)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            boxes.append((x1, y1, x2, y2))
    return boxes


@pytest.mark.parametrize("view", [ADE, PASCAL, LIP], ids=["ade", "pascal", "lip"])
def test_positions_are_those_of_mmsegmentation(view: windows.WindowsView) -> None:
    for width, height in [
        (512, 512),
        (513, 512),
        (683, 512),
        (853, 512),
        (854, 512),
        (2048, 512),
        (640, 480),
        (480, 641),
        (320, 961),
    ]:
        if min(width, height) < view.crop:
            continue
        actual = [w[:4] for w in sliding((width, height), view.crop, view.stride)]
        assert actual == slide_inference(height, width, view.crop, view.stride)


def test_windows_by_hand() -> None:
    # 683 wide: 512 + 341 is beyond the border, so the second window is shifted back to 171.
    assert windows.starts(683, 512, 341) == [0, 171]
    assert windows.starts(512, 512, 341) == [0]
    assert windows.starts(853, 512, 341) == [0, 341]
    assert windows.starts(854, 512, 341) == [0, 341, 342]
    assert windows.starts(640, 480, 161) == [0, 160]
    assert windows.starts(100, 320, 161) == [0]


def test_recipes() -> None:
    assert (ADE.crop, ADE.stride, ADE.test_long, ADE.test_short) == (512, 341, 2048, 512)
    assert (PASCAL.crop, PASCAL.stride, PASCAL.test_long, PASCAL.test_short) == (
        480,
        161,
        3840,
        480,
    )
    assert (LIP.crop, LIP.stride, LIP.test_long, LIP.test_short) == (320, 161, 4096, 320)
    trains = [(v.train_long, v.train_short) for v in (ADE, PASCAL, LIP)]
    assert trains == [(2048, 512), (520, 520), (1024, 320)]
    assert windows_for("pascal-object") == PASCAL
    assert windows_for("lip", 3) == replace(LIP, views=3)
    assert windows_for("folder") == windows_for("ade20k-part") == ADE
    assert VIEWS["windows"] == ADE


@pytest.mark.parametrize(
    ("size", "long", "short", "expected"),
    [
        ((683, 512), 2048, 512, (683, 512)),
        ((2048, 1536), 2048, 512, (683, 512)),  # 682.67
        ((6000, 500), 2048, 512, (2048, 171)),  # the long side decides: 170.67
        ((500, 375), 3840, 480, (640, 480)),
        ((500, 375), 520, 520, (520, 390)),  # Pascal's training: the LONG side becomes 520
        ((100, 241), 4096, 320, (320, 771)),  # 771.2
        ((5, 1), 2, 2, (2, 1)),  # 0.4 rounds to 0: one pixel is left
    ],
)
def test_resizing_keeps_the_ratio(
    size: tuple[int, int], long: int, short: int, expected: tuple[int, int]
) -> None:
    assert rescaled(size, long, short) == expected


def test_rows_carry_the_resized_image() -> None:
    rows = PASCAL.rows(of_size((500, 375), (375, 500), (480, 480)))
    assert rows.select("image", "x0", "y0", "x1", "y1", "canvas_width", "canvas_height").rows() == [
        (0, 0, 0, 480, 480, 640, 480),
        (0, 160, 0, 640, 480, 640, 480),
        (1, 0, 0, 480, 480, 480, 640),
        (1, 0, 160, 480, 640, 480, 640),
        (2, 0, 0, 480, 480, 480, 480),
    ]
    assert windows_in(rows)[1] == Window(160, 0, 640, 480, 640, 480)
    with pytest.raises(
        UsageError, match="not of view windows: missing columns canvas_width, canvas_height"
    ):
        windows_in(rows.drop("canvas_width", "canvas_height"))


def test_image_without_size_gets_one_row() -> None:
    """So that the extraction meets it, and records why it cannot be read."""
    for views in (0, 1, 3):
        rows = replace(PASCAL, views=views).rows(of_size((None, None)))
        assert len(rows) == max(views, 1)


def test_small_image_is_padded() -> None:
    """A strip of 6000x100: the long side decides, and the short one stays below the window."""
    view = ADE
    (first, *others) = sliding(rescaled((6000, 100), view.test_long, view.test_short), 512, 341)
    assert first == Window(0, 0, 512, 512, 2048, 34)
    assert all(w.size == 512 for w in others)
    transform = Transform()
    cut = view.cut(Image.new("RGB", (2048, 34), (9, 8, 7)), [tuple(first[:6])], transform)[0]
    assert cut.shape == (512, 512, 3)
    assert (cut[:34] == (9, 8, 7)).all()
    assert (cut[34:] == (124, 116, 104)).all()  # the mean colour: zeros after normalising
    mask = cut_mask(np.zeros((100, 6000), np.uint8), first)
    assert (mask[:34] == 0).all()
    assert (mask[34:] == 255).all()


def position_image(width: int, height: int) -> tuple[Image.Image, npt.NDArray[np.uint8]]:
    """An image whose red is its column and green its row in coarse steps, and a mask that says the same."""
    ys, xs = np.mgrid[:height, :width]
    red, green = xs * 6 // width, ys * 6 // height
    pixels = np.stack([red * 40, green * 40, np.zeros_like(red)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels), (red * 6 + green).astype(np.uint8)


@pytest.mark.parametrize("views", [0, 1, 5])
def test_image_and_mask_are_cut_alike(views: int) -> None:
    image, classes = position_image(90, 60)
    view = replace(
        SMALL,
        views=views,
        interpolation="bilinear",
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0,
    )
    rows = view.rows(of_size((90, 60)))
    boxes = [tuple(row) for row in rows.select(view.cut_columns).iter_rows()]
    transform = Transform(mean=(0.0, 0.0, 1.0))
    cut = view.cut(view.canvas(image, transform), boxes, transform)
    assert cut.shape == (len(rows), 16, 16, 3)
    for pixels, window in zip(cut, windows_in(rows), strict=True):
        mask = cut_mask(classes, window)
        padded = pixels[..., 2] == 255
        assert np.array_equal(padded, mask == 255)
        # Away from the borders of the steps, where bilinear mixes, colour and class say the same.
        red, green = np.round(pixels[..., 0] / 40), np.round(pixels[..., 1] / 40)
        agree = (red * 6 + green == mask) | padded
        assert agree.mean() > 0.8


@pytest.mark.parametrize("views", [0, 1, 4])
def test_figures_show_what_was_encoded(tmp_path: Path, views: int) -> None:
    image, _ = position_image(90, 60)
    image.save(tmp_path / "a.png")
    view = replace(SMALL, views=views)
    rows = view.rows(load("photos", "folder", tmp_path))
    transform = Transform(mean=(0.0, 0.0, 1.0))
    spec = replace(make_spec(rows), view=view.to_json(), transform=transform.to_json())
    store = create(tmp_path / "store", spec, rows, {"root": str(tmp_path)}, 16)
    for shard in store.missing():
        with claim(store, shard) as writer:
            assert writer is not None
            features = {
                name: np.zeros((shard.n_rows, *shape), np.float32)
                for name, shape in spec.representations.items()
            }
            writer.append(features, np.ones(shard.n_rows, np.bool_))
    crops = Crops(store)
    boxes = [tuple(row) for row in rows.select(view.cut_columns).iter_rows()]
    encoded = view.cut(view.canvas(image, transform), boxes, transform)
    for row, window in enumerate(windows_in(rows)):
        assert crops.canvas(row).size == window.canvas  # the box is drawn on this
        assert np.array_equal(crops.region(row, 16), encoded[row])


@pytest.mark.parametrize("size", [(1, 1), (10_000, 20), (20, 10_000), (700, 1)])
@pytest.mark.parametrize("views", [0, 1, 3])
def test_images_of_odd_shapes(tmp_path: Path, size: tuple[int, int], views: int) -> None:
    root = index_tree(tmp_path, "val", {"a": np.ones(size[::-1])})
    images = load("mine", "ade20k-part", root)
    view = replace(ADE, views=views)
    rows, transform = view.rows(images), Transform()
    assert len(rows) == (
        views
        or len(windows.starts(rows["canvas_width"][0], 512, 341))
        * len(windows.starts(rows["canvas_height"][0], 512, 341))
    )
    with Image.open(root / "img/val/a.jpg") as image:
        boxes = [tuple(row) for row in rows.select(view.cut_columns).iter_rows()]
        cut = view.cut(view.canvas(image, transform), boxes, transform)
    assert cut.shape == (len(rows), 512, 512, 3)
    labelled = [cut_mask(np.zeros(size[::-1], np.uint8), w) == 0 for w in windows_in(rows)]
    for existing, window in zip(labelled, windows_in(rows), strict=True):
        x0, y0, x1, y1 = window.inside
        assert existing.sum() == (x1 - x0) * (y1 - y0) > 0


def test_window_larger_than_every_image_is_padded() -> None:
    view = replace(ADE, crop=4096, stride=4096)
    (window,) = windows_in(view.rows(of_size((640, 480))))
    assert window == Window(0, 0, 4096, 4096, 683, 512)
    cut = view.cut(Image.new("RGB", (683, 512), (9, 8, 7)), [tuple(window[:6])], Transform())[0]
    assert (cut[:512, :683] == (9, 8, 7)).all()
    assert (cut[512:] == (124, 116, 104)).all()
    assert (cut[:, 683:] == (124, 116, 104)).all()


def test_single_crop_is_central() -> None:
    rows = replace(PASCAL, views=1).rows(of_size((500, 375), (1000, 1000)))
    assert rows.select("x0", "y0", "canvas_width", "canvas_height").rows() == [
        (20, 0, 520, 390),
        (20, 20, 520, 520),
    ]
    assert "flip" not in rows.columns


def test_crops_depend_on_seed_and_path_only() -> None:
    images = of_size((500, 375), (640, 480))
    few, many = (replace(PASCAL, views=k).rows(images) for k in (2, 5))
    fields = [c for c in few.columns if c != "row"]
    assert many.filter(pl.col("row") % 5 < 2).select(fields).equals(few.select(fields))
    other = replace(PASCAL, views=2, seed=1).rows(images)
    assert not other.select("canvas_width").equals(few.select("canvas_width"))


def test_crops_follow_the_recipe() -> None:
    rows = replace(ADE, views=200).rows(of_size((683, 512)))
    scales = rows["canvas_height"].to_numpy() / 512
    assert scales.min() >= 0.49
    assert scales.max() <= 2.0
    assert 1.1 < scales.mean() < 1.4
    assert 70 < rows["flip"].sum() < 130
    for name, neutral, low, high in (
        ("brightness", 0, -32, 32),
        ("contrast", 1, 0.5, 1.5),
        ("saturation", 1, 0.5, 1.5),
        ("hue", 0, -18, 17),
    ):
        values = rows[name].to_numpy()
        assert 60 < np.count_nonzero(values == neutral) < 140
        assert values.min() >= low
        assert values.max() <= high
    inside = rows.filter(pl.col("canvas_height") >= 512)
    assert (inside["x1"] <= inside["canvas_width"]).all()
    assert (inside["y1"] <= inside["canvas_height"]).all()


def test_crops_avoid_one_class_alone(tmp_path: Path) -> None:
    """Left half class 1, right half class 2: a crop with both is found in nearly all images."""
    values = np.ones((48, 96), np.uint8)
    values[:, 48:] = 2
    root = index_tree(tmp_path, "train", {"a": values})
    images = load("pascal-part", "pascal-part", root)
    classes = masks.read(root / "ann/train/a.png", 193)

    def mixed(share: float) -> float:
        # Each crop is a quarter of the width: seven of ten random ones show one half alone.
        view = replace(
            SMALL,
            views=60,
            category_share=share,
            train_long=64,
            train_short=64,
            ratio_low=1.0,
            ratio_high=1.0,
        )
        cuts = [cut_mask(classes, w) for w in windows_in(view.rows(images))]
        return float(
            np.mean(
                [np.bincount(c[c < 255], minlength=2).max() / (c < 255).sum() < 0.75 for c in cuts]
            )
        )

    assert mixed(1.0) < 0.4
    assert mixed(0.75) > 0.7


def test_mask_of_other_size_is_an_error(tmp_path: Path) -> None:
    root = index_tree(tmp_path, "train", {"a": np.ones((48, 96))}, {"a": (95, 48)})
    images = load("pascal-part", "pascal-part", root)
    with pytest.raises(AnnotationError, match="the mask is 96x48, its image 95x48 pixels"):
        replace(SMALL, views=2).rows(images)


def test_sizes_are_read_where_the_table_lacks_them(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"torn")
    rows = SMALL.rows(load("photos", "folder", tmp_path))
    assert rows.group_by("path", maintain_order=True).len().rows() == [("a.png", 10), ("b.png", 1)]


def test_view_is_restored_from_spec() -> None:
    view = replace(LIP, views=4, seed=7)
    assert view_from_json(view.to_json()) == view
    assert view.input_size(Transform()) == 320
    assert view.kept({"cls": (1,), "patch": (1, 1)}) == ("patch",)
    assert view.kept({"patch": (1, 1), "layers": (4, 1, 1)}) == ("layers",)
    same, other = Transform(size=96), Transform(mean=(0.5, 0.5, 0.5))
    assert view.cut_key(same) == view.cut_key(Transform()) != view.cut_key(other)


def test_impossible_windows() -> None:
    with pytest.raises(UsageError, match=r"windows of 16 pixels every 17: no window would contain"):
        replace(SMALL, stride=17)
    with pytest.raises(
        UnknownNameError, match=r"interpolation of view windows 'cubic'. Did you mean"
    ):
        replace(SMALL, interpolation="cubic")
    with pytest.raises(UsageError, match=r"interpolation of view windows \"\['bicubic'\]\""):
        replace(SMALL, interpolation=["bicubic"])
    with pytest.raises(UsageError, match=r"ratio_low=3.0 and ratio_high=2.0. .* ratio_low ≤ ratio"):
        replace(SMALL, ratio_low=3.0)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("views", -1, "a whole number from 0 to 10,000"),
        ("test_short", 0, "a whole number from 1 to 50,000"),
        ("crop", 10**9, "a whole number from 1 to 10,000"),
        ("crop", 16.0, "a whole number from 1 to 10,000"),
        ("hue", -5, "a whole number from 0 to 180"),
        ("tries", 10**12, "a whole number from 0 to 10,000"),
        ("flip", "often", "a number from 0 to 1"),
        ("flip", None, "a number from 0 to 1"),
        ("flip", True, "a number from 0 to 1"),
        ("contrast", 1.5, "a number from 0 to 1"),
        ("brightness", float("nan"), "a number from 0 to 255"),
        ("ratio_high", float("inf"), "a number from 0.01 to 100"),
    ],
)
def test_numbers_out_of_range_are_refused(field: str, value: object, expected: str) -> None:
    with pytest.raises(UsageError, match=rf"view windows: {field}={value}. Expected: {expected}"):
        replace(SMALL, **{field: value})


# -- colours ----------------------------------------------------------------------------------


def test_neutral_distortion_changes_nothing() -> None:
    image, _ = position_image(30, 20)
    assert np.array_equal(windows.distort(image, Window(0, 0, 1, 1, 1, 1)), image)


def test_distortion_by_hand() -> None:
    image = Image.new("RGB", (1, 1), (200, 100, 50))

    def of(**changes: float) -> tuple[int, ...]:
        return windows.distort(image, Window(0, 0, 1, 1, 1, 1, **changes)).getpixel((0, 0))  # type: ignore[arg-type, return-value]

    assert of(brightness=30.7) == (230, 130, 80)  # truncated, as mmsegmentation does
    assert of(brightness=-60.0) == (140, 40, 0)
    assert of(contrast=1.5) == (255, 150, 75)
    assert of(contrast=0.5, contrast_last=True) == (100, 50, 25)
    # Brightness comes before contrast: (200 + 10) * 0.5.
    assert of(brightness=10.0, contrast=0.5) == (105, 55, 30)
    assert of(saturation=0.0) == (200, 200, 200)  # V, the largest channel, stays
    red, green, blue = of(hue=60)  # a third of the circle: red to green
    assert (abs(red - 50), abs(green - 200), abs(blue - 100)) <= (3, 3, 3)


def test_mixed_crops_are_detected() -> None:
    def mixed(*values: int) -> bool:
        return windows.is_mixed(np.array(values, np.uint8), 0.75)

    assert mixed(1, 1, 2, 2)
    assert not mixed(1, 1, 1, 2)  # exactly 0.75 is too much
    assert mixed(1, 1, 2, 0, 0, 0, 0, 255)  # ignored pixels do not count
    assert not mixed(1, 1, 0, 0)
    assert not mixed(0, 0)
