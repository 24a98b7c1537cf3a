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
from pa.data.images import size_columns
from pa.data.schema import BOX, ROW_SCHEMA, Boxes, Images, Keypoints, in_schema, label_ids
from pa.errors import MissingError, UnknownNameError, UsageError

Floats = npt.NDArray[np.float64]
Reasons = npt.NDArray[np.int64]  # position in `REASONS` of why a part is skipped

# Follow the columns of ROW_SCHEMA. `label` is the part, the target of part retrieval and part
# classification; `class` is the label of the whole image.
PART_COLUMNS = ("part", "object", "class", "x", "y", "d")

# Why a part is skipped, as `pa datasets check` reports it: the first reason that applies.
REASONS = (
    "",
    "not visible",
    "outside the image",
    "no neighbour",
    "too few parts on the object",
    "coincident",
    "d out of bounds",
    "box without pixels",
    "box too large",
)
KEPT, NOT_VISIBLE, OUTSIDE, LONE, FEW, COINCIDENT, OUT_OF_BOUNDS, EMPTY, TOO_LARGE = range(9)


@dataclass(frozen=True)
class PartRules:
    """Which parts become boxes, and of which size; the defaults are the protocol `paper`.

    d is the distance from a keypoint to its nearest neighbour, in pixels.

    parts: the parts considered, in the order of their label ids; empty = the dataset's own list.
    side: of the box: "d"; "d/2", which is 2·round(d/4) with halves to even; "given" by the dataset.
    neighbours: d is measured to the "considered" parts only, or to "all" parts of the dataset.
    distance: to parts of all objects of the "image"; to those of the same "object"; or "image+id",
        with the id of the object as a third coordinate, as in the released code: parts of other
        objects are then far away unless the ids are close.
    visibility: "visible" parts only, or also those "labelled" but hidden.
    min_per_object: objects with fewer considered parts are skipped.
    coincident: "skip" a part at the position of its neighbour, or "ignore" that neighbour.
    outside: "skip" or "keep" keypoints outside the image (boxes: those that do not touch it).
    min_d, max_d: exclusive bounds of d; None = no bound.
    rounding: to pixels, halves to even: both "corners", as Pillow rounds a box of floats (one side
        may become a pixel longer), or the first corner and the "sides".
    """

    parts: tuple[str, ...] = ()
    side: str = "d"
    neighbours: str = "considered"
    distance: str = "image"
    visibility: str = "visible"
    min_per_object: int = 1
    coincident: str = "skip"
    outside: str = "skip"
    min_d: float | None = None
    max_d: float | None = None
    rounding: str = "corners"


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

    @property
    def annotated(self) -> int:
        return self.rows + sum(sum(counts.values()) for counts in self.skipped.values())

    def skip_reasons(self) -> list[str]:
        """Return the number of skipped parts for each reason."""
        return [f"{sum(n.values()):,} {reason}" for reason, n in self.skipped.items()]

    def __str__(self) -> str:
        kept = ", ".join(f"{part} {n:,}" for part, n in self.kept.items())
        return (
            f"{self.rows:,} patches from {self.images_kept:,} of {self.images:,} images ({kept}); "
            f"skipped: {', '.join(self.skip_reasons()) or 'none'}"
        )

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

    def per_part(reason: int) -> dict[str, int]:
        labels = candidates.filter(pl.col("reason") == reason)["label"]
        counted = dict(labels.value_counts().iter_rows())
        return {name: counted.get(name, 0) for name in names}

    kept = candidates.filter(pl.col("reason") == KEPT)
    skipped = {reason: per_part(number) for number, reason in enumerate(REASONS) if number != KEPT}
    counts = PartCounts(
        images=len(images.table),
        images_kept=kept["image"].n_unique(),
        kept=per_part(KEPT),
        skipped={reason: n for reason, n in skipped.items() if any(n.values())},
    )
    if kept.is_empty():
        why = ", ".join(counts.skip_reasons()) or "none is considered"
        raise MissingError(
            f"view parts of dataset {images.dataset}, split {images.split}: no row. Of "
            f"{counts.annotated} annotated parts in {counts.images} images: {why}."
        )
    columns = [name for name in ROW_SCHEMA if name != "row"]
    return Selection(in_schema(kept.select(*columns, *PART_COLUMNS)), counts)


def _joined(table: pl.DataFrame, images: Images) -> pl.DataFrame:
    """Join annotations with the number, size and label of their image; drop other images."""
    columns = images.table.select("path", "image", "file_bytes", image_class="label")
    return table.join(columns, on="path", how="inner", maintain_order="left")


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
    centre = frame.select("x", "y").to_numpy()  # (N, 2)
    if rules.outside == "skip":
        sizes = _sizes(images, frame, reasons == KEPT)  # (N, 2)
        # The far border is inside: annotated coordinates reach the width and the height.
        beyond = ((centre < 0) | (centre > sizes)).any(axis=1)  # (N,)
        reasons[(reasons == KEPT) & beyond] = OUTSIDE
    d = np.full(len(frame), np.nan)  # (N,) NaN: not measured
    live = np.flatnonzero(reasons == KEPT)  # candidates not skipped so far
    objects = frame["object"].to_numpy()  # (N,)
    considered = frame["label_id"].is_not_null().to_numpy()  # (N,)
    borders = np.flatnonzero(np.diff(frame["image"].to_numpy()[live])) + 1  # between images
    for at in np.split(live, borders) if len(live) else []:
        d[at], reasons[at] = _nearest(centre[at], objects[at], considered[at], rules)
    # The bounds are exclusive.
    low = -np.inf if rules.min_d is None else rules.min_d
    high = np.inf if rules.max_d is None else rules.max_d
    reasons[(reasons == KEPT) & ~((d > low) & (d < high))] = OUT_OF_BOUNDS
    half = np.rint(d / 4) if rules.side == "d/2" else d / 2  # (N,) half of the side
    half = np.where(reasons == KEPT, half, np.nan)[:, None]  # (N, 1)
    # (N, 1) is one side for both axes.
    boxed = _with_boxes(frame, rules, centre - half, centre + half, 2 * half, reasons)
    return boxed.with_columns(
        pl.col("object").cast(pl.String),
        pl.col("image_class").alias("class"),
        pl.Series("d", d),
    ).filter(pl.col("label_id").is_not_null())


def _nearest(
    points: Floats,
    objects: npt.NDArray[np.int64],
    considered: npt.NDArray[np.bool_],
    rules: PartRules,
) -> tuple[Floats, Reasons]:
    """Return the distance d of each point (P,) to its nearest neighbour in the same image.

    `points` are x and y in pixels (P, 2), `objects` the ids of their objects (P,); points that are
    not `considered` (P,) are only neighbours. d is infinite without a neighbour. Also return the
    reasons (P,) why a point is skipped, `KEPT` for the others.
    """
    n = len(points)
    reasons = np.full(n, KEPT)
    if n == 1:
        return np.full(n, np.inf), np.full(n, LONE)
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
    # Parts of an object that is skipped are not neighbours either.
    distances[:, few] = np.inf
    d: Floats = distances.min(axis=1)  # (P,)
    reasons[np.isinf(d)] = LONE
    # Zeros remain only if the rules skip such points.
    reasons[d == 0] = COINCIDENT
    reasons[few] = FEW
    return d, reasons


def _with_boxes(
    frame: pl.DataFrame, rules: PartRules, low: Floats, high: Floats, side: Floats, reasons: Reasons
) -> pl.DataFrame:
    """Add the reasons, and boxes in whole pixels (halves to even) of corners and sides (N, 2)."""
    first = np.rint(low)  # (N, 2)
    last = np.rint(high) if rules.rounding == "corners" else first + np.rint(side)  # (N, 2)
    empty = (reasons == KEPT) & (last <= first).any(axis=1)
    # Boxes of a dataset are limited to MAX_SIDE, and rounding may add a pixel.
    too_large = (reasons == KEPT) & (last - first > MAX_SIDE + 1).any(axis=1)
    boxes = np.concatenate([first, last], axis=1)  # (N, 4)
    return frame.with_columns(
        *(pl.Series(name, boxes[:, i]) for i, name in enumerate(BOX)),
        pl.Series("reason", np.select([empty, too_large], [EMPTY, TOO_LARGE], reasons)),
    )


def _sizes(images: Images, frame: pl.DataFrame, needed: npt.NDArray[np.bool_]) -> Floats:
    """Return width and height of the candidates' images (N, 2), from headers if not annotated.

    Infinite for images that cannot be read, which the extraction reports.
    """
    known = frame.select("path", "width", "height")  # N rows
    lacking = known.filter(pl.Series(needed), pl.col("width").is_null())["path"].unique(
        maintain_order=True
    )
    headers = size_columns(images.root, lacking.to_list()).with_columns(path=lacking)
    both = known.join(headers, on="path", how="left", maintain_order="left", suffix="_read")
    sizes = both.select(
        pl.coalesce(name, f"{name}_read").cast(pl.Float64).fill_null(float("inf"))
        for name in ("width", "height")
    )
    return sizes.to_numpy()


def _from_boxes(
    rules: PartRules, images: Images, annotated: Boxes, names: tuple[str, ...]
) -> pl.DataFrame:
    """Return candidates (N rows) with boxes in whole pixels, by image, in their listed order."""
    frame = _joined(annotated.table, images).join(
        label_ids(names), on="label", how="inner", maintain_order="left"
    )
    frame = frame.sort("image", maintain_order=True)
    reasons = np.full(len(frame), KEPT)  # (N,)
    corners = frame.select(BOX).to_numpy()  # (N, 4)
    low, high = corners[:, :2], corners[:, 2:]
    if rules.outside == "skip":
        sized = frame.with_columns(width=pl.lit(None, pl.Int64), height=pl.lit(None, pl.Int64))
        sizes = _sizes(images, sized, reasons == KEPT)  # (N, 2)
        reasons[((high <= 0) | (low >= sizes)).any(axis=1)] = OUTSIDE
    return _with_boxes(frame, rules, low, high, high - low, reasons).with_columns(
        pl.coalesce("class", "image_class").alias("class"),
        *(pl.lit(None, pl.Float64).alias(name) for name in ("x", "y", "d")),
    )
