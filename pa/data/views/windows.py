"""View `windows`: pieces of a resized image at the resolution of a segmentation recipe.

Sliding windows that cover the whole image, for evaluation, or K training crops of each image. A box
refers to the *resized* image, whose size is a column of the row, so that the same piece can be cut
from the mask. The random numbers of mmsegmentation 0.11 (RandomCrop, RandomFlip,
PhotoMetricDistortion) are drawn once and are columns too: a crop can be cut again without a random
generator.

Shapes: B windows, S side of a window, H and W of the image's mask.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_type_hints

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.data.datasets.segmentation.releases import RELEASES
from pa.data.images import Transform, size_columns
from pa.data.schema import BOX, Images, in_schema
from pa.data.views.base import View
from pa.errors import UsageError

HUE_CIRCLE = 180  # OpenCV's 8-bit hue, the unit of the limit in mmsegmentation; Pillow has 256
Size = tuple[int, int]


class Window(NamedTuple):
    """One piece: its box on the resized image, the size of that image, and its augmentation.

    The box is a square of S pixels and may exceed the image on the right and below. The piece is
    cut, then flipped, then distorted, then padded. The defaults distort nothing: brightness is
    added to every channel, contrast multiplies them, saturation multiplies S and hue is added to H
    (of 180) in HSV. Contrast comes before the latter two, or last.
    """

    x0: float  # box in pixels of the resized image
    y0: float
    x1: float
    y1: float
    canvas_width: int  # size of the resized image
    canvas_height: int
    flip: bool = False  # left to right
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: int = 0
    contrast_last: bool = False

    @property
    def size(self) -> int:
        """The side of the piece in pixels."""
        return round(self.x1 - self.x0)

    @property
    def canvas(self) -> Size:
        """Width and height of the resized image."""
        return self.canvas_width, self.canvas_height

    @property
    def inside(self) -> tuple[int, int, int, int]:
        """The part of the box inside the image."""
        x1, y1 = min(round(self.x1), self.canvas_width), min(round(self.y1), self.canvas_height)
        return round(self.x0), round(self.y0), x1, y1


# The columns that follow the box: of every row, and of augmented rows.
CANVAS_COLUMNS = ("canvas_width", "canvas_height")
AUGMENTED_COLUMNS = Window._fields[6:]  # flip and the colour distortion


@dataclass(frozen=True)
class WindowsView(View):
    """Windows of `crop` pixels; the defaults are the released recipe for ADE20K.

    `views` = 0 selects sliding windows of the image resized to the test lengths; `views` = 1 the
    centre crop of the image resized to the training lengths; `views` = K > 1 selects K random
    crops, drawn by `seed`, for which `rows` reads every mask at each call. The image is scaled
    until its long or its short side reaches the given length. Source: _base_/datasets/*.py of the
    released code. Bilinear is Pillow's, which averages when it shrinks an image (OpenCV's skips
    pixels).
    """

    name = "windows"
    default_representations = ("patch",)
    crop: int = 512  # side of a window in pixels
    stride: int = 341  # pixels between sliding windows: two thirds of 512
    test_long: int = 2048  # limits of the resized sides in pixels, for sliding windows
    test_short: int = 512
    train_long: int = 2048  # the same, for training crops
    train_short: int = 512
    interpolation: str = "bilinear"
    views: int = 0
    seed: int = 0
    ratio_low: float = 0.5  # random scale of a training crop
    ratio_high: float = 2.0
    category_share: float = 0.75  # cat_max_ratio of RandomCrop
    tries: int = 10  # attempts of RandomCrop
    flip: float = 0.5  # probability
    brightness: float = 32.0  # PhotoMetricDistortion: added to 0..255
    contrast: float = 0.5  # factor within 1 ± 0.5
    saturation: float = 0.5  # factor within 1 ± 0.5
    hue: int = 18  # added to 0..180

    # Longer sides would not fit in memory, a smaller scale would leave no pixel, stronger
    # distortions would make a contrast or a probability negative.
    RANGES: ClassVar = {
        **dict.fromkeys(("crop", "stride"), (1, 10_000)),
        **dict.fromkeys(("test_long", "test_short", "train_long", "train_short"), (1, 50_000)),
        **dict.fromkeys(("ratio_low", "ratio_high"), (0.01, 100)),
        **dict.fromkeys(("category_share", "flip", "contrast", "saturation"), (0, 1)),
        **dict.fromkeys(("views", "tries"), (0, 10_000)),
        "brightness": (0, 255),
        "hue": (0, 180),  # OpenCV's 8-bit hue
        "seed": (0, 2**63 - 1),  # int64 of the JSON spec
    }
    CHOICES: ClassVar = {"interpolation": im.RESAMPLING}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride > self.crop:
            raise UsageError(
                f"windows of {self.crop} pixels every {self.stride}: no window would contain the "
                "pixels between them. Choose a stride from 1 to the side of a window."
            )
        if self.ratio_low > self.ratio_high:
            raise UsageError(
                f"view windows: ratio_low={self.ratio_low} and ratio_high={self.ratio_high}. "
                f"Expected: ratio_low ≤ ratio_high."
            )

    @property
    def cut_columns(self) -> tuple[str, ...]:  # type: ignore[override]
        extra = AUGMENTED_COLUMNS if self.views > 1 else ()
        return (*BOX, *CANVAS_COLUMNS, *extra)

    def input_size(self, transform: Transform) -> int:
        return self.crop

    def kept(self, available: Collection[str]) -> tuple[str, ...]:
        return ("layers",) if "layers" in available else self.default_representations

    def rows(self, images: Images) -> pl.DataFrame:
        table = with_sizes(images)
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="pa-windows") as pool:
            per_image = pool.map(lambda row: self._windows(images, row), table.to_dicts())
            windows = [(row, w) for row, ws in enumerate(per_image) for w in ws]
        cut = pl.DataFrame([w for _, w in windows], get_type_hints(Window), orient="row")
        images_of_rows = [row for row, _ in windows]  # row of the table of images
        return in_schema(table[images_of_rows].with_columns(cut.select(self.cut_columns)))

    def _windows(self, images: Images, row: dict[str, Any]) -> list[Window]:
        size = (row["width"], row["height"])
        if None in size:  # not an image: the extraction records the fault of its rows
            side = self.crop
            return [Window(0, 0, side, side, side, side)] * max(self.views, 1)
        if self.views == 0:
            canvas = rescaled(size, self.test_long, self.test_short)
            return list(sliding(canvas, self.crop, self.stride))
        if self.views == 1:
            canvas = rescaled(size, self.train_long, self.train_short)
            x, y = (max(length - self.crop, 0) // 2 for length in canvas)
            return [Window(x, y, x + self.crop, y + self.crop, *canvas)]
        mask = None
        if row.get("mask") is not None:
            mask = masks.read_index(images.root / row["mask"])
            masks.check_size(mask, size, images.root / row["mask"])
        return [self._random_crop(size, row["path"], k, mask) for k in range(self.views)]

    def _random_crop(self, size: Size, path: str, number: int, mask: Map | None) -> Window:
        # The generator of a crop depends only on the seed, the image and the number of the crop.
        digest = hashlib.sha256(f"{self.seed}\n{path}\n{number}".encode()).digest()
        draw = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
        ratio = draw.uniform(self.ratio_low, self.ratio_high)
        canvas = rescaled(size, int(self.train_long * ratio), int(self.train_short * ratio))
        flip = bool(draw.random() < self.flip)
        # Each of the four distortions has probability 1/2 (PhotoMetricDistortion).
        on = draw.integers(0, 2, 4)  # (4,)
        low, high = 1 - self.contrast, 1 + self.contrast
        brightness = float(draw.uniform(-self.brightness, self.brightness)) * int(on[0])
        contrast = float(draw.uniform(low, high)) if on[1] else 1.0
        low, high = 1 - self.saturation, 1 + self.saturation
        saturation = float(draw.uniform(low, high)) if on[2] else 1.0
        hue = int(draw.integers(-self.hue, self.hue)) * int(on[3]) if self.hue else 0
        last = bool(draw.integers(0, 2))
        # Last, because the number of draws depends on the mask: all else depends on seed and path.
        x, y = self._draw_corner(draw, canvas, mask)
        box = (x, y, x + self.crop, y + self.crop)
        return Window(*box, *canvas, flip, brightness, contrast, saturation, hue, last)

    def _draw_corner(self, draw: np.random.Generator, canvas: Size, mask: Map | None) -> Size:
        """Draw the top left corner (x, y) of a crop on a canvas (width, height).

        With a mask of the image (any size; 0 and 255 = ignored) the corner is drawn again, up to
        `tries` times, while one class has `category_share` or more of the crop's labelled pixels,
        or all of them (RandomCrop's cat_max_ratio). The last draw is used in any case.
        """
        is_limited = mask is not None and self.category_share < 1
        for _ in range(self.tries + 1 if is_limited else 1):
            y = int(draw.integers(0, max(canvas[1] - self.crop, 0) + 1))
            x = int(draw.integers(0, max(canvas[0] - self.crop, 0) + 1))
            if mask is not None and is_limited:
                ys = masks.nearest(canvas[1], mask.shape[0])[y : y + self.crop]
                xs = masks.nearest(canvas[0], mask.shape[1])[x : x + self.crop]
                if is_mixed(mask[np.ix_(ys, xs)], self.category_share):
                    break
        return x, y

    def canvas(self, image: Image.Image, transform: Transform) -> Image.Image:
        """Return the resized image; the image itself if every crop has its own scale."""
        if self.views > 1:
            return image
        train, test = (self.train_long, self.train_short), (self.test_long, self.test_short)
        return self.resized(image, rescaled(image.size, *(train if self.views else test)))

    def resized(self, image: Image.Image, size: Size) -> Image.Image:
        """Resize an image to the canvas of a window, by the interpolation of the view."""
        method = im.RESAMPLING[self.interpolation]
        return image if image.size == size else image.resize(size, method)

    def cut(
        self, canvas: Image.Image, boxes: Sequence[tuple[Any, ...]], transform: Transform
    ) -> npt.NDArray[np.uint8]:
        """Crop the windows: (B, S, S, 3), uint8, with S = `crop`; padded with the mean colour."""
        pieces = []
        for window in (Window(*box) for box in boxes):
            piece = self.resized(canvas, window.canvas).crop(window.inside)
            if window.flip:
                piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            padded = Image.new("RGB", (window.size, window.size), mean_colour(transform))
            padded.paste(distort(piece, window))
            pieces.append(padded)
        return im.stack(pieces)

    def cut_key(self, transform: Transform) -> tuple[Any, ...]:
        return mean_colour(transform)


def is_mixed(values: Map, share: float) -> bool:
    """Return whether a crop has several classes, none with `share` or more of its pixels."""
    counts = np.bincount(values.ravel(), minlength=IGNORED + 1)  # (256,)
    # Without 0 and 255, which are ignored.
    labelled = counts[1:IGNORED]
    total = int(labelled.sum())
    return int(np.count_nonzero(labelled)) > 1 and int(labelled.max()) < share * total


def distort(image: Image.Image, window: Window) -> Image.Image:
    """Apply a distortion to an RGB image; after each step values are truncated to 0..255."""
    # The order of mmsegmentation's PhotoMetricDistortion.
    image = _scaled(image, 1.0, window.brightness)
    if not window.contrast_last:
        image = _scaled(image, window.contrast)
    if window.saturation != 1 or window.hue:
        hue, saturation, value = image.convert("HSV").split()
        shift = round(window.hue * 256 / HUE_CIRCLE)
        hue = hue.point([(level + shift) % 256 for level in range(256)])  # the hue is a circle
        saturation = _scaled(saturation, window.saturation)
        image = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    if window.contrast_last:
        image = _scaled(image, window.contrast)
    return image


def _scaled(image: Image.Image, factor: float, shift: float = 0.0) -> Image.Image:
    if factor == 1 and shift == 0:
        return image
    table = [min(max(int(level * factor + shift), 0), 255) for level in range(256)]  # clipped
    return image.point(table * len(image.getbands()))


def mean_colour(transform: Transform) -> tuple[int, int, int]:
    """Return the colour that the encoder's normalisation maps to zero, up to rounding."""
    red, green, blue = (round(255 * value) for value in transform.mean)
    return red, green, blue


def with_sizes(images: Images) -> pl.DataFrame:
    """Return the table of images with width and height, read from headers if it lacks them."""
    table = images.table
    if {"width", "height"} <= set(table.columns):
        return table
    return table.with_columns(size_columns(images.root, table["path"].to_list()))


def rescaled(size: Size, long: int, short: int) -> Size:
    """Scale (width, height) until the long side is `long` or the short side `short`."""
    # The rule of mmcv's `imrescale`: both sides are rounded half up.
    scale = min(long / max(size), short / min(size))
    width, height = (max(1, int(length * scale + 0.5)) for length in size)
    return width, height


def sliding(canvas: Size, crop: int, stride: int) -> Iterator[Window]:
    """Yield the windows that cover a canvas (width, height), row by row, as in mmsegmentation."""
    # The last windows are shifted inside the border; a canvas smaller than a window gets one window
    # that exceeds it, and is padded.
    for y in starts(canvas[1], crop, stride):
        for x in starts(canvas[0], crop, stride):
            yield Window(x, y, x + crop, y + crop, *canvas)


def starts(length: int, crop: int, stride: int) -> list[int]:
    """Return the first pixels of the windows along one side."""
    n = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, length) - crop, 0) for i in range(n)]


def windows_in(rows: pl.DataFrame) -> list[Window]:
    """Return the windows of a table of rows, such as `Store.rows`."""
    names = [name for name in Window._fields if name in rows.columns]
    missing = [name for name in (*BOX, *CANVAS_COLUMNS) if name not in names]
    if missing:
        raise UsageError(
            f"these rows are not of view windows: missing columns {', '.join(missing)}."
        )
    return [Window(**row) for row in rows.select(names).iter_rows(named=True)]


def cut_mask(classes: Map, window: Window) -> Map:
    """Crop a window from the class map (H, W) of an image: (S, S), uint8, padded with 255.

    The map is resized to the canvas of the window by nearest neighbour and flipped as the window.
    """
    height, width = classes.shape
    x0, y0, x1, y1 = window.inside
    ys = masks.nearest(window.canvas_height, height)[y0:y1]
    xs = masks.nearest(window.canvas_width, width)[x0:x1]
    piece = classes[np.ix_(ys, xs)]  # (≤ S, ≤ S)
    if window.flip:
        piece = piece[:, ::-1]
    cut = np.full((window.size, window.size), IGNORED, np.uint8)  # (S, S)
    cut[: piece.shape[0], : piece.shape[1]] = piece
    return cut


def windows_for(kind: str, views: int = 0) -> WindowsView:
    """Return the view of a kind of dataset: sliding windows, or `views` crops of every image.

    The recipe is the released one of the dataset; other kinds use that of ADE20K.
    """
    recipe = RELEASES[kind].windows if kind in RELEASES else ()
    return WindowsView(*recipe, views=views)  # type: ignore[arg-type, misc]
