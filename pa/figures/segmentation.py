"""Label maps and predictions over their images (Figure 6: objects against parts).

Every image has one line per label set; the columns are the image, the labels, and one encoder each.
Ignored pixels are faded. The classes with the most pixels have a colour and a number, all others
share a grey. All lengths are in inches.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pa.data import images as im
from pa.data.datasets.segmentation import masks
from pa.data.datasets.segmentation.labels import IGNORED, LabelSet
from pa.data.datasets.segmentation.masks import Map
from pa.data.schema import Images
from pa.errors import ImageError
from pa.figures.colours import CLASSES, OTHER, Colour, as_hex, colours_of, overlay, pale
from pa.figures.contact_sheet import spread
from pa.figures.paper import MARGIN, Paper
from pa.figures.style import (
    GREY,
    PAGE_WIDTH,
    PRINT_DPI,
    SHEET_SUFFIXES,
    Metadata,
    Target,
)

if TYPE_CHECKING:
    from pa.probe.segmentation.run import SegmentationRun

LINE_TITLES = {"object": "objects", "part": "parts"}  # of pascal-object, ade20k-part …
_GAP = 0.04  # between pictures
_SIDE, _HEAD = 0.2, 0.18  # of the titles of lines and of columns
_BETWEEN, _APART = 0.1, 0.15  # between examples, vertically and horizontally
_MIN_WIDTH = 0.9  # of a picture; with room for more, examples share a line
_MAX_ASPECT = 1.15  # height over width of a picture
_LINE, _SWATCH, _ENTRY = (
    0.15,
    0.1,
    1.2,
)  # height of a line of a legend, its colour, and at least its width
_ROOM = 12  # pixels around a number: it is written only inside a region
_ACROSS = 2  # images in a line of a contact sheet; twice as many on a sheet of many


@dataclass(frozen=True, eq=False)
class Line:
    """One image by one label set: labels, and the prediction of every encoder, all (H, W)."""

    truth: Map
    predicted: list[Map]


@dataclass(frozen=True, eq=False)
class Example:
    """One image, with a line for each label set."""

    image: Image.Image
    lines: list[Line]


@dataclass(frozen=True)
class Labels:
    """A label set: the title of its lines, and its classes."""

    title: str
    classes: Sequence[str]


def line_title(name: str, n_sets: int) -> str:
    """Return the title of a label set in a figure: its kind, if there are several sets."""
    kind = name.rpartition("-")[2]
    return LINE_TITLES.get(kind, name) if n_sets > 1 else name


def draw_run(path: Path, run: SegmentationRun) -> None:
    """Draw labels and predictions of a run, by the first head of each label set, to a PNG."""
    examples = []
    for shown in run.shown:
        file = run.image_root / shown.image["path"]
        predicted = shown.predicted[:: run.heads_per_set]
        lines = [Line(truth, [p]) for truth, p in zip(shown.truth, predicted, strict=True)]
        examples.append(Example(im.decode(file.read_bytes(), file), lines))
    firsts = run.results[:: run.heads_per_set]
    first, test = firsts[0], firsts[0].result.stores.test
    metadata = Metadata(
        f"Segmentation of {test.title}: protocol {first.recipe.protocol}, "
        f"{first.recipe.iterations:,} iterations at learning rate {first.recipe.lr:g}",
        "Image, labels and prediction of a linear head; ignored pixels are faded.",
        f"result {first.result_path.name}",
    )
    sets = [Labels(line_title(r.maps.name, len(firsts)), r.maps.classes) for r in firsts]
    draw(examples, sets, ["prediction"], Target([path], metadata=metadata))


def draw_masks(path: Path, images: Images, label_set: LabelSet, n: int = 6) -> list[str]:
    """Draw masks over n images spread evenly over a split, to a PNG, JPEG or PDF file.

    Return the paths of the images drawn. Raise `UsageError` for another suffix, `AnnotationError`
    or `ImageError` for a faulty file.
    """
    rows = spread(images.table, n)
    across = _ACROSS if len(rows) <= 2 * _ACROSS else 2 * _ACROSS  # not a tall sheet
    paper = Paper(Target([path], PAGE_WIDTH * across / _ACROSS), SHEET_SUFFIXES)
    notes = [
        f"{images.dataset} · {images.split} · {label_set.title}",
        f"{len(label_set)} classes; the largest of each image have a colour, ignored pixels are "
        f"faded",
    ]
    if "not certain" in label_set.certainty:
        notes.append("The authors' 209 classes cannot be recovered: this is one reading.")
    for i, text in enumerate(notes, 1):
        paper.text(MARGIN, MARGIN + i * _HEAD - 0.05, text, 7 if i > 1 else 9, room=paper.room)
    labels = Labels(label_set.title, label_set.names)
    top, bottom = 0.0, MARGIN + len(notes) * _HEAD
    block = (paper.room - (across - 1) * _APART) / across
    for i, row in enumerate(rows):
        file = images.root / row["path"]
        try:
            image = im.decode(file.read_bytes(), file)
        except OSError as error:
            raise ImageError(file, f"cannot read the file: {error.strerror}") from None
        truth = masks.read(images.root / row["mask"], len(label_set), image.size)
        share = f"{(truth != IGNORED).mean():.1%} labelled"
        top = top if i % across else bottom + _BETWEEN
        left = MARGIN + i % across * (block + _APART)
        title = f"{file.name}  {image.width}×{image.height}  {share}"
        paper.text(left, top + 0.1, title, 6.5, room=block, color=GREY)
        example = Example(image, [Line(truth, [])])
        end = _draw_group(paper, [example], [labels], [], (left, top + 0.15, block))
        bottom = max(bottom, end)
    paper.write(bottom + MARGIN)
    return [str(row["path"]) for row in rows]


def draw(
    examples: Sequence[Example], sets: Sequence[Labels], encoders: Sequence[str], target: Target
) -> float:
    """Draw examples above a legend of every label set; return the height in inches."""
    paper = Paper(target)
    heads = ["image", "labels", *encoders]
    return paper.write(
        _draw_group(paper, examples, sets, heads, (MARGIN, MARGIN, paper.room)) + MARGIN
    )


def _draw_group(
    paper: Paper,
    examples: Sequence[Example],
    sets: Sequence[Labels],
    heads: Sequence[str],
    box: tuple[float, float, float],
) -> float:
    """Draw examples with common colours and their legends in a box (left, top, width).

    Without heads of columns, the legend shows the share of each class. Return the lower end.
    """
    corner, top, width = box
    n_columns = 2 + len(examples[0].lines[0].predicted)
    side = _SIDE if len(sets) > 1 else 0.0
    fitting = int((width + _APART) / (side + n_columns * _MIN_WIDTH + _APART))
    across = max(1, min(len(examples), fitting))
    block = (width - (across - 1) * _APART) / across
    column = (block - side - (n_columns - 1) * _GAP) / n_columns
    lefts = [corner + i * (block + _APART) for i in range(across)]
    # At the size printed first: everything below works on few pixels.
    drawn = [_reduced(example, column) for example in examples]
    colours = [
        colours_of([classes for line in lines for classes in (line.truth, *line.predicted)])
        for lines in zip(*(example.lines for example in drawn), strict=True)  # of one label set
    ]
    for left, (number, head) in itertools.product(lefts, enumerate(heads)):
        middle = left + side + number * (column + _GAP) + column / 2
        paper.text(middle, top + _HEAD - 0.06, head, room=column, ha="center")
    top += _HEAD if heads else 0.0
    for start in range(0, len(drawn), across):
        row = drawn[start : start + across]
        height = max(example.image.height for example in row) / PRINT_DPI
        for example, left in zip(row, lefts, strict=False):
            _draw_example(paper, example, sets, colours, (left + side, top, column, height))
        top += len(sets) * (height + _GAP) + _BETWEEN
    truth = None if heads else drawn[0].lines[0].truth
    for labels, of in zip(sets, colours, strict=True):
        title = labels.title if heads else ""
        entries = list(_entries(of, labels, truth))
        top = _draw_legend(paper, title, entries, corner + side, top, width - side) + _BETWEEN
    return top - _BETWEEN


def _draw_example(
    paper: Paper,
    example: Example,
    sets: Sequence[Labels],
    colours: Sequence[Sequence[tuple[int, Colour]]],
    box: tuple[float, float, float, float],
) -> None:
    """Draw an example in a box (left, top, width of a column, height of a line).

    The image is centred on its lines.
    """
    left, top, column, line_height = box
    bottom = top + len(sets) * (line_height + _GAP)
    left += (column - example.image.width / PRINT_DPI) / 2
    height = example.image.height / PRINT_DPI
    paper.paste(example.image, left, (top + bottom - _GAP - height) / 2, edged=False)
    # In grey and pale, so that a class has the colour of the legend over any photograph.
    background = pale(example.image)
    for line, labels, of in zip(example.lines, sets, colours, strict=True):
        if len(sets) > 1:
            look: Any = {"ha": "right", "va": "center", "rotation": 90}  # reads upwards
            paper.text(box[0] - 0.05, top + line_height / 2, labels.title, **look)
        for number, classes in enumerate([line.truth, *line.predicted], 1):
            x, y = left + number * (column + _GAP), top + (line_height - height) / 2
            paper.paste(overlay(background, classes, dict(of)), x, y, edged=False)
            _number_regions(paper, classes, of, x, y)
        top += line_height + _GAP


def _number_regions(
    paper: Paper, classes: Map, colours: Sequence[tuple[int, Colour]], left: float, top: float
) -> None:
    """Write the number of each class into its region: colours alone are hard to look up."""
    from matplotlib.patheffects import withStroke
    from scipy.ndimage import distance_transform_edt

    halo = [withStroke(linewidth=1.2, foreground="white")]
    for number, (value, _) in enumerate(colours[: len(CLASSES)], 1):
        # The pixel farthest from the border; a region that ends at the edge of the image, too.
        depth = distance_transform_edt(np.pad(classes == value, 1))[1:-1, 1:-1]  # (H, W)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] >= _ROOM:
            at = left + float(x) / PRINT_DPI, top + float(y) / PRINT_DPI
            look: Any = {"ha": "center", "va": "center", "path_effects": halo}
            paper.text(*at, str(number), 5.5, **look)


def _reduced(example: Example, column: float) -> Example:
    """Resize an example to the pixels that are printed, and ignore predictions without labels."""
    image = example.image
    scale = min(column / image.width, _MAX_ASPECT * column / image.height) * PRINT_DPI
    width, height = (max(1, round(length * scale)) for length in image.size)
    # Class ids are not interpolated: the nearest pixel is taken.
    at = np.ix_(masks.nearest(height, image.height), masks.nearest(width, image.width))
    lines = []
    for line in example.lines:
        ignored = line.truth[at] == IGNORED
        predicted = [np.where(ignored, np.uint8(IGNORED), p[at]) for p in line.predicted]
        lines.append(Line(line.truth[at], predicted))
    return Example(image.resize((width, height), Image.Resampling.LANCZOS), lines)


def _entries(
    colours: Sequence[tuple[int, Colour]], labels: Labels, truth: Map | None = None
) -> Iterator[tuple[str, Colour]]:
    """Yield the legend: the classes drawn, with their share of the pixels of `truth`, and one
    entry for those that share the grey."""
    for number, (value, colour) in enumerate(colours[: len(CLASSES)], 1):
        share = 0.0 if truth is None else (truth == value).mean()
        shown = "" if truth is None else f" {share:.1%}" if share >= 0.001 else " <0.1%"
        yield f"{number}  {labels.classes[value].replace('_', ' ')}{shown}", colour
    if (others := len(colours) - len(CLASSES)) > 0:
        yield f"{others} smaller", OTHER


def _draw_legend(
    paper: Paper,
    title: str,
    entries: Sequence[tuple[str, Colour]],
    left: float,
    top: float,
    width: float,
) -> float:
    """Draw a legend in lines as wide as `width`, and return its lower end."""
    if title:
        top += _LINE
        paper.text(left, top - 0.03, title, 7, weight="bold")
    per_line = max(1, int(width / _ENTRY))
    step = width / per_line
    for entry, (text, colour) in enumerate(entries):
        line, column = divmod(entry, per_line)
        x, upper = left + column * step, top + line * _LINE + 0.03
        paper.fill(x, upper, _SWATCH, _SWATCH, as_hex(colour))
        paper.text(x + _SWATCH + 0.05, upper + 0.09, text, 7, room=step - _SWATCH - 0.08)
    return top + -(-len(entries) // per_line) * _LINE
