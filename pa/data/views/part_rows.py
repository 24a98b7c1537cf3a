"""Turn annotated parts into the rows of view `parts`, and count the skipped parts by reason.

Shapes: N candidates, which are the annotated parts that a view considers (and their neighbours
while distances are measured); P points of an image.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.datasets.annotations import HIDDEN, VISIBLE
from pa.data.datasets.boxes import MAX_SIDE
from pa.data.images import read_headers
from pa.data.schema import BOX, ROW_SCHEMA, Boxes, Images, Keypoints, in_schema, label_ids
from pa.data.views.part_rules import PartRules
from pa.errors import MissingError, UnknownNameError, UsageError

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

# Follow the columns of ROW_SCHEMA. `label` is the part, the target of part retrieval and part
# classification; `class` is the label of the whole image.
PART_COLUMNS = ("part", "object", "class", "x", "y", "d")

# Why a part is skipped; the reasons are stored in the counts of `pa datasets check`.
KEPT, LONE, FEW, COINCIDENT = "", "lone", "too few on the object", "coincident"
NOT_VISIBLE, OUTSIDE = "not visible", "outside the image"
GATED, EMPTY, TOO_LARGE = "d outside the gate", "box of no pixel", "box too large"
# A skipped part has the first of these reasons that applies.
REASONS = (NOT_VISIBLE, OUTSIDE, LONE, FEW, COINCIDENT, GATED, EMPTY, TOO_LARGE)


@dataclass(frozen=True)
class PartCounts:
    """Counts of the annotated parts of a split.

    `images` counts all images of the split, `images_kept` those with at least one row.
    `kept[part]` and `skipped[reason][part]` add up to all annotated parts that were considered.
    """

    images: int
    images_kept: int
    kept: dict[str, int]
    skipped: dict[str, dict[str, int]]

    @property
    def rows(self) -> int:
        return sum(self.kept.values())

    def skip_reasons(self) -> list[str]:
        """Return the number of skipped parts for each reason."""
        return [f"{sum(n.values()):,} {reason}" for reason, n in self.skipped.items()]

    def __str__(self) -> str:
        kept = ", ".join(f"{part} {n:,}" for part, n in self.kept.items())
        return (
            f"{self.rows:,} patches from {self.images_kept:,} of {self.images:,} images ({kept}); "
            f"left out: {', '.join(self.skip_reasons()) or 'nothing'}"
        )

    @property
    def annotated(self) -> int:
        return self.rows + sum(sum(counts.values()) for counts in self.skipped.values())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rows": self.rows, "annotated": self.annotated}


@dataclass(frozen=True)
class Selection:
    """The rows of a view `parts`, and the counts of kept and skipped parts."""

    rows: pl.DataFrame
    counts: PartCounts


def select(rules: PartRules, images: Images) -> Selection:
    """Select the parts of a split, and compute their boxes, by the rules of a protocol.

    Raise `UsageError` if the dataset has no parts, or boxes instead of keypoints;
    `UnknownNameError` for a part that the dataset does not have; `MissingError` if no row remains.
    """
    annotated = images.annotations()
    has_boxes = isinstance(annotated, Boxes)
    if has_boxes != (rules.side == "given"):
        kind, protocol = ("boxes", "boxes") if has_boxes else ("keypoints", "paper")
        raise UsageError(
            f"dataset {images.dataset} has {kind}, which side={rules.side} of view parts cannot "
            f"use. Choose --protocol {protocol}."
        )
    for part in rules.parts:
        if part not in annotated.names:
            known = [json.dumps(n, ensure_ascii=False) if "," in n else n for n in annotated.names]
            hint = "Choose a name with a comma in a list: --view-option 'parts=[\"a, b\"]'."
            hint = hint if known != list(annotated.names) else ""
            raise UnknownNameError(f"part of dataset {images.dataset}", part, known, hint)
    if isinstance(annotated, Boxes):
        names = rules.parts or annotated.names
        candidates = _from_boxes(rules, images, annotated, names)
    else:
        names = rules.parts or annotated.considered
        candidates = _from_keypoints(rules, images, annotated, names)
    kept = candidates.filter(pl.col("reason") == KEPT)
    left = candidates.filter(pl.col("reason") != KEPT)  # the skipped parts, for the counts
    counts = PartCounts(
        images=len(images.table),
        images_kept=kept["image"].n_unique(),
        kept=_per_part(kept, names),
        skipped={
            reason: _per_part(group, names)
            for reason in REASONS
            if len(group := left.filter(pl.col("reason") == reason))
        },
    )
    if kept.is_empty():
        why = ", ".join(counts.skip_reasons()) or "none is considered"
        raise MissingError(
            f"view parts of dataset {images.dataset}, split {images.split}: no row. Of "
            f"{counts.annotated} annotated parts in {counts.images} images: {why}."
        )
    columns = [name for name in ROW_SCHEMA if name != "row"]
    return Selection(in_schema(kept.select(*columns, *PART_COLUMNS)), counts)


def _per_part(frame: pl.DataFrame, names: tuple[str, ...]) -> dict[str, int]:
    counted = dict(frame["label"].value_counts().iter_rows())
    return {name: counted.get(name, 0) for name in names}


def _joined(table: pl.DataFrame, images: Images) -> pl.DataFrame:
    """Join annotations with the number, size and label of their image; drop other images."""
    columns = images.table.select("path", "image", "file_bytes", image_class="label")
    return table.join(columns, on="path", how="inner", maintain_order="left")


# -- keypoints --------------------------------------------------------------------------------


def _from_keypoints(
    rules: PartRules, images: Images, annotated: Keypoints, names: tuple[str, ...]
) -> pl.DataFrame:
    """Return candidates (N rows) with d, box and reason, by image, object and part."""
    table = annotated.table
    if rules.neighbours == "considered":
        table = table.filter(pl.col("part").is_in(names))
    frame = _joined(table.with_columns(label="part"), images)
    frame = frame.join(label_ids(names), on="label", how="left", maintain_order="left")
    frame = frame.sort("image", "object", "label_id", maintain_order=True)
    least = VISIBLE if rules.visibility == "visible" else HIDDEN
    reasons = np.where(frame["visible"].to_numpy() < least, NOT_VISIBLE, KEPT)  # (N,)
    if rules.outside == "skip":
        widths, heights = _sizes(images, frame, reasons == KEPT)
        x, y = frame["x"].to_numpy(), frame["y"].to_numpy()  # (N,) each
        # The far border is inside: annotated coordinates reach the width and the height.
        beyond = (x < 0) | (y < 0) | (x > widths) | (y > heights)
        reasons = np.where((reasons == KEPT) & beyond, OUTSIDE, reasons)
    d, reasons = _measure(rules, frame, reasons)
    centre = frame.select("x", "y").to_numpy()  # (N, 2)
    half = np.rint(d / 4) if rules.side == "d/2" else d / 2  # (N,) half of the side
    half = np.where(reasons == KEPT, half, np.nan)[:, None]  # (N, 1)
    sides = np.repeat(2 * half, 2, axis=1)  # (N, 2)
    boxes, reasons = _rounded(rules, centre - half, centre + half, sides, reasons)
    return frame.with_columns(
        *(pl.Series(name, boxes[:, i]) for i, name in enumerate(BOX)),
        pl.col("object").cast(pl.String),
        pl.col("image_class").alias("class"),
        pl.Series("d", d),
        pl.Series("reason", reasons.tolist(), dtype=pl.String),
    ).filter(pl.col("label_id").is_not_null())


def _measure(rules: PartRules, frame: pl.DataFrame, reasons: Texts) -> tuple[Floats, Texts]:
    """Return d of every candidate (N,), NaN if not measured, and the reasons after the gate."""
    live = np.flatnonzero(reasons == KEPT)  # (live,) candidates not skipped so far
    image = frame["image"].to_numpy()[live]  # (live,)
    points = frame.select("x", "y").to_numpy()[live]  # (live, 2)
    objects = frame["object"].to_numpy()[live]  # (live,)
    considered = frame["label_id"].is_not_null().to_numpy()[live]  # (live,)
    d = np.full(len(frame), np.nan)  # (N,)
    reasons = reasons.astype("<U24")  # room for the longest reason
    borders = np.flatnonzero(np.diff(image)) + 1  # first candidate of each further image
    for group in np.split(np.arange(len(live)), borders) if len(live) else []:
        at = live[group]
        d[at], reasons[at] = _nearest(points[group], objects[group], considered[group], rules)
    low = -np.inf if rules.min_d is None else rules.min_d  # exclusive bounds
    high = np.inf if rules.max_d is None else rules.max_d
    gated = (reasons == KEPT) & ~((d > low) & (d < high))
    return d, np.where(gated, GATED, reasons)


def _nearest(
    points: Floats,
    objects: npt.NDArray[np.int64],
    considered: npt.NDArray[np.bool_],
    rules: PartRules,
) -> tuple[Floats, npt.NDArray[np.str_]]:
    """Return the distance d of each point (P,) to its nearest neighbour in the same image.

    `points` are x and y in pixels (P, 2), `objects` the ids of their objects (P,); points that are
    not `considered` (P,) are only neighbours. d is infinite without a neighbour. Also return the
    reasons (P,) why a point is skipped, `KEPT` for the others.
    """
    n = len(points)
    reasons = np.full(n, KEPT, dtype="<U24")  # the longest reason has 21 characters
    if n == 1:
        reasons[:] = LONE
        return np.full(n, np.inf), reasons
    n_considered = (objects[:, None] == objects[considered][None, :]).sum(axis=1)  # (P,)
    few = n_considered < rules.min_per_object
    vectors = points  # (P, 2)
    if rules.distance == "image+id":
        vectors = np.column_stack([points, objects.astype(np.float64)])  # (P, 3)
    difference = vectors[:, None, :] - vectors[None, :, :]  # (P, P, 2 or 3)
    distances: Floats = np.sqrt((difference**2).sum(axis=2))  # (P, P); infinite = not a neighbour
    np.fill_diagonal(distances, np.inf)
    if rules.distance == "object":
        distances[objects[:, None] != objects[None, :]] = np.inf
    if rules.coincident == "ignore":
        distances[distances == 0] = np.inf
    distances[:, few] = np.inf
    d: Floats = distances.min(axis=1)  # (P,)
    reasons[np.isinf(d)] = LONE
    reasons[d == 0] = COINCIDENT  # zeros remain only if the rules skip such points
    reasons[few] = FEW
    return d, reasons


def _rounded(
    rules: PartRules, low: Floats, high: Floats, sides: Floats, reasons: Texts
) -> tuple[Floats, Texts]:
    """Round corners and sides, (N, 2) each, to boxes (N, 4) in whole pixels, halves to even."""
    first = np.rint(low)  # (N, 2)
    last = np.rint(high) if rules.rounding == "corners" else first + np.rint(sides)  # (N, 2)
    boxes: Floats = np.concatenate([first, last], axis=1)  # (N, 4)
    empty = (reasons == KEPT) & (last <= first).any(axis=1)
    # Boxes of a dataset are limited to MAX_SIDE, and rounding may add a pixel.
    too_large = (reasons == KEPT) & (last - first > MAX_SIDE + 1).any(axis=1)
    return boxes, np.select([empty, too_large], [EMPTY, TOO_LARGE], reasons)


def _sizes(
    images: Images, frame: pl.DataFrame, needed: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Return widths and heights of the candidates' images (N,), from headers if not annotated.

    Infinite for images that cannot be read, which the extraction reports.
    """
    known = frame.select("path", "width", "height")  # N rows
    lacking = known.filter(pl.Series(needed), pl.col("width").is_null())["path"].unique(
        maintain_order=True
    )
    sizes = [header.size for header in read_headers(images.root, lacking.to_list())]
    read = pl.DataFrame(
        {
            "path": lacking,
            "read_width": [size and size[0] for size in sizes],
            "read_height": [size and size[1] for size in sizes],
        },
        schema={"path": pl.String, "read_width": pl.Int64, "read_height": pl.Int64},
    )
    both = known.join(read, on="path", how="left", maintain_order="left").select(
        width=pl.coalesce("width", "read_width").cast(pl.Float64).fill_null(float("inf")),
        height=pl.coalesce("height", "read_height").cast(pl.Float64).fill_null(float("inf")),
    )
    return both["width"].to_numpy(), both["height"].to_numpy()


# -- boxes ------------------------------------------------------------------------------------


def _from_boxes(
    rules: PartRules, images: Images, annotated: Boxes, names: tuple[str, ...]
) -> pl.DataFrame:
    """Return candidates (N rows) with boxes in whole pixels, by image, in their listed order."""
    frame = _joined(annotated.table, images).join(
        label_ids(names), on="label", how="inner", maintain_order="left"
    )
    frame = frame.sort("image", maintain_order=True)
    reasons = np.full(len(frame), KEPT, dtype="<U24")  # (N,)
    corners = frame.select(BOX).to_numpy()  # (N, 4)
    if rules.outside == "skip":
        sized = frame.with_columns(width=pl.lit(None, pl.Int64), height=pl.lit(None, pl.Int64))
        widths, heights = _sizes(images, sized, reasons == KEPT)
        x0, y0, x1, y1 = corners.T
        beyond = (x1 <= 0) | (y1 <= 0) | (x0 >= widths) | (y0 >= heights)
        reasons = np.where(beyond, OUTSIDE, reasons)
    low, high = corners[:, :2], corners[:, 2:]
    boxes, reasons = _rounded(rules, low, high, high - low, reasons)
    nothing = pl.lit(None, pl.Float64)
    return frame.with_columns(
        *(pl.Series(name, boxes[:, i]) for i, name in enumerate(BOX)),
        pl.coalesce("class", "image_class").alias("class"),
        nothing.alias("x"),
        nothing.alias("y"),
        nothing.alias("d"),
        pl.Series("reason", reasons.tolist(), dtype=pl.String),
    )
