"""Score trained segmentation heads on the sliding windows of a store, image by image.

Shapes: H and W of an image, n windows of it, g tokens per side, C classes of one head, D width,
M = sum of C over the heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pa.data.datasets.segmentation.labels import IGNORED
from pa.data.datasets.segmentation.masks import Map
from pa.evaluate.devices import full_precision
from pa.evaluate.segmentation import SegmentationAreas
from pa.probe.segmentation.batches import check_finite, grid_of, read_ahead, token_features
from pa.probe.segmentation.labels import LabelMaps, WindowRows
from pa.probe.segmentation.predict import SlidingPrediction, label_shares
from pa.probe.segmentation.recipes import SegmentationRecipe
from pa.probe.segmentation.train import HeadSpec, TrainedHead
from pa.progress import Progress


@dataclass(frozen=True, eq=False)
class ImagePrediction:
    """Labels by every label set and predictions by every head, (H, W), uint8, of one image."""

    image: dict[str, Any]
    truth: list[Map]  # one per label set
    predicted: list[Map]  # one per head


@dataclass(eq=False)
class HeadAreas:
    """Areas of every head, areas of the labels at token resolution per label set (if requested),
    and the images to draw."""

    heads: list[SegmentationAreas]
    ceilings: list[SegmentationAreas]
    shown: list[ImagePrediction] = field(default_factory=list)


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
) -> HeadAreas:
    """Predict every image at its original size and count the areas of its classes.

    With `ceiling`, also score the labels themselves, averaged over each token and upsampled again.
    Return the class maps of `figures` images with labels, spread evenly. Raise `UsageError` for
    windows that do not cover their image, and what reading the store and the masks raises.
    """
    torch_device = torch.device(device)
    grid, _ = grid_of(windows.store, recipe.representation)
    weight = torch.cat([head.weight for head in heads]).T.contiguous().to(torch_device)  # (D, M)
    bias = torch.cat([head.bias for head in heads]).to(torch_device)  # (M,)
    sizes = [len(head.bias) for head in heads]  # C of each head
    areas = HeadAreas(
        [SegmentationAreas(n) for n in sizes],
        [SegmentationAreas(len(labels.classes)) for labels in maps] if ceiling else [],
    )
    spread = np.linspace(0, len(windows.images) - 1, figures).round().astype(int).tolist()
    items = list(windows.by_image())

    def read(item: tuple[dict[str, Any], slice]) -> tuple[npt.NDArray[Any], list[Map]]:
        image, at = item
        raw = windows.store.read(recipe.representation, windows.rows[at])  # (n, L, D), (n, K, L, D)
        return raw, [labels.read(image) for labels in maps]  # (H, W) each

    progress.start("scoring", len(items), "images")
    try:
        with full_precision(), contextlib.closing(read_ahead(read, items)) as images:
            for number, ((image, at), (raw, truths)) in enumerate(zip(items, images, strict=True)):
                cut, size = windows.windows[at], (image["width"], image["height"])
                prediction = SlidingPrediction(cut, size, grid, recipe.upsample_first)
                features = token_features(raw, torch_device)  # (n·g², D)
                check_finite(features, windows.rows[at], windows.store)
                logits = torch.addmm(bias, features, weight).view(len(cut), grid, grid, -1)
                predicted = [
                    prediction.classes(of_head.contiguous())  # (H, W)
                    for of_head in torch.split(logits, sizes, dim=-1)
                ]
                for head_areas, spec, classes in zip(areas.heads, specs, predicted, strict=True):
                    head_areas.add(classes, truths[spec.maps])
                for set_areas, truth in zip(areas.ceilings, truths, strict=False):
                    shares = label_shares(truth, cut, grid, set_areas.n_classes)  # (n, g, g, C)
                    on_grid = torch.from_numpy(shares).to(torch_device)
                    set_areas.add(prediction.classes(on_grid), truth)
                n_shown = len(areas.shown)
                is_due = n_shown < figures and number >= spread[n_shown]
                if is_due and any((truth != IGNORED).any() for truth in truths):
                    areas.shown.append(ImagePrediction(image, truths, predicted))
                progress.advance(1)
    finally:
        progress.stop()
    return areas
