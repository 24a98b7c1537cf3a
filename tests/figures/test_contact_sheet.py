"""The contact sheet of view `parts`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pa.data import datasets
from pa.data.images import Transform
from pa.data.schema import Images
from pa.data.views import VIEWS
from pa.data.views.base import FixedView
from pa.data.views.parts import PAPER
from pa.errors import UnknownNameError, UsageError
from pa.figures import contact_sheet
from pa.figures.colours import OKABE_ITO
from pa.figures.contact_sheet import CELL, IMAGE, NAMES, SheetOptions, draw_parts, draw_regions
from pa.figures.paper import MARGIN, to_pixels
from tests.support.trees import write_cub

BIRDS = [{"right eye": (20.0, 10.0), "tail": (50.0, 50.0)}] * 3


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return datasets.load("cub", "cub", write_cub(tmp_path / "cub", BIRDS), "all")


def draw(images: Images, path: Path, options: SheetOptions | None = None) -> Image.Image:
    drawn = draw_parts(path, images, PAPER.select(images), "a title", options or SheetOptions())
    with Image.open(drawn) as image:
        return image.convert("RGB")


def test_sheet_shows_each_part(images: Images, tmp_path: Path) -> None:
    whole = draw(images, tmp_path / "sheet.png")
    first = draw(images, tmp_path / "one.png", SheetOptions(parts=("tail",)))
    assert whole.width == first.width == 1950
    assert to_pixels(CELL) < whole.height - first.height < 2 * to_pixels(CELL)
    shown = {colour for _, colour in whole.getcolors(maxcolors=1 << 24)}
    assert set(OKABE_ITO[:2]) <= shown


def test_equal_selections_give_equal_files(images: Images, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(images, tmp_path / name, SheetOptions(examples=2))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawn_patch_equals_cut_patch(images: Images, tmp_path: Path) -> None:
    # d = 50, so the eye's box is (-5, -15) to (45, 35): black left of and above the image.
    options = SheetOptions(parts=("right eye",), examples=1)
    pixels = np.asarray(draw(images, tmp_path / "sheet.png", options))
    left, cell = to_pixels(MARGIN + NAMES), to_pixels(CELL)
    black = (pixels[:300, left + 1 : left + 9] == 0).all(axis=(1, 2))  # 300: above the images
    assert cell - 10 <= black.sum() <= cell


@pytest.mark.parametrize("far", [(5_000.0, 50.0), (50.0, 5_000.0), (6_000.0, 6_000.0)])
def test_boxes_far_beyond_the_image(tmp_path: Path, far: tuple[float, float]) -> None:
    """The picture of the whole image is made small before it is laid on black."""
    birds = [{"tail": far, "left wing": (20.0, 10.0)}]
    images = datasets.load("cub", "cub", write_cub(tmp_path / "cub", birds), "all")
    selection = replace(PAPER, outside="keep").select(images)
    drawn = draw_parts(tmp_path / "far.png", images, selection, "far", SheetOptions())
    with Image.open(drawn) as image:
        assert image.height < 1500


def test_unreadable_images_leave_a_grey_cell(images: Images, tmp_path: Path) -> None:
    for path in images.table["path"]:
        (images.root / path).write_bytes(b"torn")
    assert draw(images, tmp_path / "sheet.jpg").size[0] > 1000


def test_long_list_of_parts_is_shortened(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "MAX_PARTS", 1)
    two = draw(images, tmp_path / "a.png")
    monkeypatch.undo()
    assert two.height < draw(images, tmp_path / "b.png").height


def test_wrong_calls(images: Images, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a file ending in .png, .jpg, .pdf; found .svg"):
        draw(images, tmp_path / "sheet.svg")
    with pytest.raises(UnknownNameError, match=r"unknown part with rows 'tale'. Did you mean tail"):
        draw(images, tmp_path / "sheet.png", SheetOptions(parts=("tale",)))


@pytest.mark.shared
def test_sheets_of_the_real_samples(shared_dir: Path, tmp_path: Path) -> None:
    root = shared_dir / "data" / "coco_mini"
    drawn = draw(datasets.load("coco", "coco", root, "val2017"), tmp_path / "sheet.png")
    assert drawn.width > 1500


def test_smaller_crop_is_drawn_as_encoded(images: Images, tmp_path: Path) -> None:
    """Resized to 448 and cut to the middle 224, a patch is its own middle half."""
    whole = draw(images, tmp_path / "a.png", SheetOptions(examples=1))
    half = draw(images, tmp_path / "b.png", SheetOptions(examples=1, resize=448))
    extra = half.height - whole.height  # the line that says so
    assert extra > 0
    left, cell = to_pixels(MARGIN + NAMES), to_pixels(CELL)
    # Below the title and two notes.
    top = next(y for y in range(140, whole.height) if whole.getpixel((left, y)) != WHITE)
    quarter = cell // 4
    middle = whole.crop(
        (left + quarter, top + quarter, left + 3 * quarter, top + 3 * quarter)
    ).resize((cell, cell), Image.Resampling.BICUBIC)
    shown = half.crop((left, top + extra, left + cell, top + extra + cell))
    inner = (10, 10, cell // 2 - 20, cell - 10)  # left of the ring and inside the frame
    apart = np.abs(
        np.asarray(middle.crop(inner), np.int16) - np.asarray(shown.crop(inner), np.int16)
    )
    assert np.median(apart) <= 4


WHITE = (255, 255, 255)


@pytest.mark.parametrize("name", ["grid", "image"])
def test_regions_are_those_that_are_cut(images: Images, tmp_path: Path, name: str) -> None:
    view = VIEWS[name]
    assert isinstance(view, FixedView)
    drawn = draw_regions(tmp_path / "sheet.png", images, view, "a title", 2)
    actual = np.asarray(Image.open(drawn).convert("RGB"))
    image = Image.open(images.root / images.table["path"][0]).convert("RGB")
    transform = Transform()
    canvas = view.canvas(image, transform)
    if name == "grid":
        first = view.cut(canvas, [tuple(view.boxes()[0])], transform)[0]  # type: ignore[list-item]
        tile = Image.fromarray(first).resize(
            (to_pixels(CELL), to_pixels(CELL)), Image.Resampling.LANCZOS
        )
    else:
        tile = canvas.resize((to_pixels(IMAGE), to_pixels(IMAGE)))
    wanted = np.asarray(tile)
    windows = np.lib.stride_tricks.sliding_window_view(actual, wanted.shape[:2], axis=(0, 1))
    corner = wanted[0, 0]
    places = np.argwhere((actual == corner).all(axis=2))
    assert any(
        np.array_equal(windows[y, x].transpose(1, 2, 0), wanted)
        for y, x in places
        if y < windows.shape[0] and x < windows.shape[1]
    )


def test_regions_of_unreadable_images_are_marked(images: Images, tmp_path: Path) -> None:
    (images.root / images.table["path"][0]).write_text("torn")
    for name in ("grid", "image"):
        view = VIEWS[name]
        assert isinstance(view, FixedView)
        assert draw_regions(tmp_path / f"{name}.jpg", images, view, "t", 3).is_file()
    with pytest.raises(UsageError, match="expected a file ending in"):
        draw_regions(tmp_path / "sheet.gif", images, view, "t", 3)
