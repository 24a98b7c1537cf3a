"""Score trained segmentation heads on the sliding windows of a store, image by image.

Shapes: H and W of an image, C classes of one head, D width, M = sum of C over the heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.evaluate.precision import full_precision
from pa.evaluate.segmentation import SegmentationAreas
from pa.probe.segmentation.batches import ahead, check_finite, grid_of, token_features
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.predict import SlidingPrediction, label_shares
from pa.probe.segmentation.recipes import SegmentationRecipe
from pa.probe.segmentation.train import HeadSpec, TrainedHead
from pa.progress import Progress


@dataclass(frozen=True, eq=False)
class Shown:
    """One image to draw: `truth` of every label set and `predicted` by every head, (H, W) uint8."""

    image: dict[str, Any]
    truth: list[Map]
    predicted: list[Map]


@dataclass(eq=False)
class Scored:
    """The areas of every head, those of the labels brought to the grid and back up (one per label
    set, where asked for), and the images to draw."""

    heads: list[SegmentationAreas]
    ceilings: list[SegmentationAreas]
    shown: list[Shown] = field(default_factory=list)


def score_heads(
    windows: WindowRows,
    maps: Sequence[LabelMaps],
    specs: Sequence[HeadSpec],
    heads: Sequence[TrainedHead],
    recipe: SegmentationRecipe,
    *,
    ceiling: bool = False,
    figures: int = 0,
    device: str = "cpu",
    progress: Progress,
) -> Scored:
    """Predict every image at its own size and count the areas of its classes.

    With `ceiling`, the labels themselves are brought to the grid of tokens and back up and scored
    too. The class maps of `figures` images that have labels, spread evenly, are kept. Raises what
    reading the store and the masks raises, and `UsageError` for windows that do not cover their
    image.
    """
    place = torch.device(device)
    grid, _ = grid_of(windows.store, recipe.representation)
    weight = torch.cat([head.weight for head in heads]).T.contiguous().to(place)
    bias = torch.cat([head.bias for head in heads]).to(place)
    sizes = [len(head.bias) for head in heads]
    found = Scored(
        [SegmentationAreas(n) for n in sizes],
        [SegmentationAreas(len(one.classes)) for one in maps] if ceiling else [],
    )
    wanted = np.linspace(0, len(windows.images) - 1, figures).round().astype(int).tolist()
    items = list(enumerate(windows.by_image()))

    def read(item: tuple[int, tuple[dict[str, Any], slice]]) -> _Read:
        number, (image, at) = item
        raw = windows.store.read(recipe.representation, windows.rows[at])
        return _Read(number, image, at, raw, [one.read(image) for one in maps])

    progress.start("scoring", len(items), "images")
    try:
        with full_precision(), contextlib.closing(ahead(read, items)) as coming:
            for one in coming:
                pieces, first = windows.windows[one.at], recipe.upsample_first
                size = (one.image["width"], one.image["height"])
                prediction = SlidingPrediction(pieces, size, grid, first)
                features = token_features(one.raw, place)
                check_finite(features, windows.rows[one.at], windows.store)
                logits = torch.split(torch.addmm(bias, features, weight), sizes, dim=1)
                predicted = [prediction.classes(_on_grid(of, len(pieces), grid)) for of in logits]
                for areas, spec, guess in zip(found.heads, specs, predicted, strict=True):
                    areas.add(guess, one.truth[spec.maps])
                for areas, truth in zip(found.ceilings, one.truth, strict=False):
                    shares = label_shares(truth, pieces, grid, areas.n_classes)
                    areas.add(prediction.classes(torch.from_numpy(shares).to(place)), truth)
                due = len(found.shown) < figures and one.number >= wanted[len(found.shown)]
                if due and any((truth != IGNORED).any() for truth in one.truth):
                    found.shown.append(Shown(one.image, one.truth, predicted))
                progress.advance(1)
    finally:
        progress.stop()
    return found


@dataclass(frozen=True, eq=False)
class _Read:
    """What is read of one image: its number, its windows' features, its labels."""

    number: int
    image: dict[str, Any]
    at: slice
    raw: npt.NDArray[Any]
    truth: list[Map]


def _on_grid(logits: Tensor, n_windows: int, grid: int) -> Tensor:
    return logits.reshape(n_windows, grid, grid, -1)
