"""Write the results of a segmentation run: scores, heads and tables of classes.

Shapes: C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from pa.data.files import replacing
from pa.data.store.source import FeatureSource
from pa.errors import StorageError
from pa.evaluate.results import (
    LabelsReference,
    RecordedProtocol,
    SegmentationCounts,
    SegmentationProbeResult,
    SegmentationSelection,
    StoreReference,
    TrainTest,
    write_result,
)
from pa.evaluate.segmentation import SegmentationScore
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.labels import LabelMaps, Survey, WindowRows
from pa.probe.segmentation.recipes import RELEASED_LAYERS, SegmentationRecipe, named_recipe
from pa.probe.segmentation.score import Scored
from pa.probe.segmentation.train import TrainedHead

TASK = SegmentationProbeResult.task
CURVE_POINTS = 100


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """One scored head: its score, the score of labels brought to the grid and back up (where asked
    for), and the files that were written. `losses` is the loss of every batch."""

    maps: LabelMaps
    recipe: SegmentationRecipe
    score: SegmentationScore
    ceiling: SegmentationScore | None
    losses: torch.Tensor
    head: LinearHead
    result: SegmentationProbeResult
    result_path: Path
    head_path: Path
    table_path: Path

    def to_json(self) -> dict[str, Any]:
        """The result and the files that were written."""
        files = {"file": self.result_path, "head": self.head_path, "table": self.table_path}
        return {**self.result.to_json(), **{name: str(path) for name, path in files.items()}}


@dataclass(frozen=True)
class Work:
    """What all results of a run share."""

    train: WindowRows
    test: WindowRows
    selection: dict[str, Any]
    seconds: dict[str, float]
    device: str
    results: Path


def check_folder(folder: Path) -> None:
    """Raise `StorageError` where no file can be put below `folder`, which need not be there yet."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        found = "is not writable" if there.is_dir() else "is a file, not a folder"
        raise StorageError(
            f"nothing can be written to {folder}: {there} {found}. Give write permission, or "
            f"choose another place with --workspace DIR or PA_WORKSPACE."
        )


def write(
    work: Work,
    maps: Sequence[LabelMaps],
    surveys: Sequence[Survey],
    recipes: Sequence[SegmentationRecipe],
    heads: Sequence[TrainedHead],
    scored: Scored,
) -> list[SegmentationResult]:
    """Score the areas of every head and write its files."""
    written: list[SegmentationResult] = []
    for index, (head, areas) in enumerate(zip(heads, scored.heads, strict=True)):
        of, recipe = index // len(recipes), recipes[index % len(recipes)]
        score = areas.score(surveys[of].majority)
        ceiling = scored.ceilings[of].score(surveys[of].majority) if scored.ceilings else None
        result = _result(work, maps[of], surveys[of], recipe, score)
        result.details.update(_details(work, ceiling, surveys[of], head))
        path = result.path(work.results)
        linear = LinearHead(
            head.weight.numpy(),
            head.bias.numpy(),
            maps[of].classes,
            recipe.representation,
            work.train.store.fingerprint,
            store_checksum=work.train.store.checksum,
        )
        made = SegmentationResult(
            maps=maps[of],
            recipe=recipe,
            score=score,
            ceiling=ceiling,
            losses=head.losses,
            head=linear,
            result=result,
            result_path=path,
            head_path=path.with_suffix(".safetensors"),
            table_path=path.with_suffix(".classes.parquet"),
        )
        made.head.save(made.head_path)  # first: where the result is, its other files are too
        _write_table(made.table_path, score.table(maps[of].classes))
        write_result(work.results, result)
        written.append(made)
    return written


def _result(
    work: Work,
    maps: LabelMaps,
    seen: Survey,
    recipe: SegmentationRecipe,
    score: SegmentationScore,
) -> SegmentationProbeResult:
    train, test = work.train.store, work.test.store
    protocol = recipe.to_json(named_recipe(recipe.protocol, train.encoder))
    protocol["changed"].update(_departures(train, recipe))
    return SegmentationProbeResult(
        protocol=RecordedProtocol(protocol),
        stores=TrainTest(StoreReference.of(train), StoreReference.of(test)),
        representation=recipe.representation,
        selection=SegmentationSelection(**work.selection, labels=LabelsReference(**maps.to_json())),
        counts=SegmentationCounts(
            train_windows=seen.n_windows,
            train_windows_unlabelled=seen.unlabelled_windows,
            train_images=seen.n_images,
            train_images_unlabelled=seen.unlabelled_images,
            train_images_bad=len(train.bad),
            test_windows=len(work.test),
            test_images=score.n_images,
            test_images_unlabelled=score.n_unlabelled,
            test_images_bad=len(test.bad),
            classes=len(maps.classes),
            classes_trained=seen.trained,
            classes_scored=score.n_present,
        ),
        scores=score.measures,
        seconds=work.seconds,
    )


def _details(
    work: Work,
    ceiling: SegmentationScore | None,
    seen: Survey,
    head: TrainedHead,
) -> dict[str, Any]:
    names = ("mIoU", "mAcc", "aAcc")
    parts = np.array_split(head.losses.double().numpy(), min(CURVE_POINTS, len(head.losses)))
    details: dict[str, Any] = {
        "device": work.device,
        "majority_class": seen.majority,
        "train_loss": [round(float(part.mean()), 6) for part in parts],
        "windows": {
            "train": work.train.store.spec.view,
            "test": work.test.store.spec.view,
        },
    }
    if ceiling is not None:
        values = (ceiling.miou.value, ceiling.macc.value, ceiling.aacc.value)
        details["grid_ceiling"] = dict(zip(names, values, strict=True))
    return details


def _departures(train: FeatureSource, recipe: SegmentationRecipe) -> dict[str, Any]:
    """Where the features are not what the named protocol trains on."""
    views = train.spec.view["views"]
    kinds = {0: "sliding windows", 1: "one plain crop per image"}
    # Both protocols draw a fresh random crop of an image each time that it is seen.
    departures: dict[str, Any] = {
        "windows": kinds.get(views, f"{views} cached random crops per image")
    }
    layers = tuple(train.spec.encoder.get("options", {}).get("layers", ()))
    if recipe.representation == "layers" and layers != RELEASED_LAYERS:
        departures["layers"] = list(layers)
    return departures


def _write_table(path: Path, table: pl.DataFrame) -> None:
    with replacing(path) as partial:
        table.write_parquet(partial, compression="zstd")
