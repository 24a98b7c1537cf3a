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
import torch

from pa.data.files import replacing
from pa.errors import StorageError
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import (
    LabelsReference,
    RecordedProtocol,
    SegmentationCounts,
    SegmentationSelection,
    StoreReference,
    TrainTest,
)
from pa.evaluate.results import SegmentationProbeResult
from pa.evaluate.segmentation import SegmentationScore
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.labels import LabelCounts, LabelMaps, WindowRows
from pa.probe.segmentation.recipes import RELEASED_LAYERS, SegmentationRecipe, named_recipe
from pa.probe.segmentation.score import HeadAreas
from pa.probe.segmentation.train import TrainedHead

TASK = SegmentationProbeResult.task
CURVE_POINTS = 100  # of the loss curve in a result: enough to plot


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """One scored head and its files. `losses` holds the loss of every batch.

    `ceiling` is the score of the labels at token resolution, if it was requested.
    """

    maps: LabelMaps
    recipe: SegmentationRecipe
    score: SegmentationScore
    ceiling: SegmentationScore | None
    losses: torch.Tensor  # (iterations,)
    head: LinearHead
    result: SegmentationProbeResult
    result_path: Path

    @property
    def head_path(self) -> Path:
        return self.result_path.with_suffix(".safetensors")

    @property
    def table_path(self) -> Path:
        return self.result_path.with_suffix(".classes.parquet")

    def to_json(self) -> dict[str, Any]:
        """Return the result and the files that were written."""
        files = {"file": self.result_path, "head": self.head_path, "table": self.table_path}
        return {**self.result.to_json(), **{name: str(path) for name, path in files.items()}}


@dataclass(frozen=True)
class RunRecord:
    """What all results of a run share."""

    train: WindowRows
    test: WindowRows
    selection: dict[str, Any]
    seconds: dict[str, float]
    device: str
    results: Path

    def write(
        self,
        maps: Sequence[LabelMaps],
        label_counts: Sequence[LabelCounts],
        recipes: Sequence[SegmentationRecipe],
        heads: Sequence[TrainedHead],
        areas: HeadAreas,
    ) -> list[SegmentationResult]:
        """Score the areas of every head and write its files: label sets × recipes, in order."""
        written: list[SegmentationResult] = []
        for index, (head, head_areas) in enumerate(zip(heads, areas.heads, strict=True)):
            # Heads are ordered by label set, then by recipe.
            of, recipe = index // len(recipes), recipes[index % len(recipes)]
            labels, counts = maps[of], label_counts[of]
            score = head_areas.score(counts.majority)
            ceiling = areas.ceilings[of].score(counts.majority) if areas.ceilings else None
            result = self._result(labels, counts, recipe, score, ceiling, head)
            path = result.path(self.results)
            linear = LinearHead(
                head.weight.numpy(),
                head.bias.numpy(),
                labels.classes,
                recipe.representation,
                self.train.store.fingerprint,
                store_checksum=self.train.store.checksum,
            )
            scored = SegmentationResult(
                labels, recipe, score, ceiling, head.losses, linear, result, path
            )
            linear.save(scored.head_path)  # before the result, which is complete when it exists
            with replacing(scored.table_path) as partial:
                score.table(labels.classes).write_parquet(partial, compression="zstd")
            write_result(self.results, result)
            written.append(scored)
        return written

    def _result(
        self,
        maps: LabelMaps,
        label_counts: LabelCounts,
        recipe: SegmentationRecipe,
        score: SegmentationScore,
        ceiling: SegmentationScore | None,
        head: TrainedHead,
    ) -> SegmentationProbeResult:
        train, test = self.train.store, self.test.store
        protocol = recipe.to_json(named_recipe(recipe.protocol, train.encoder))
        # Both protocols draw a new random crop of an image each time that it is used.
        views = train.spec.view["views"]
        kinds = {0: "sliding windows", 1: "one plain crop per image"}
        protocol["changed"]["windows"] = kinds.get(views, f"{views} cached random crops per image")
        layers = tuple(train.spec.encoder.get("options", {}).get("layers", ()))
        if recipe.representation == "layers" and layers != RELEASED_LAYERS:
            protocol["changed"]["layers"] = list(layers)
        curve = np.array_split(head.losses.double().numpy(), min(CURVE_POINTS, len(head.losses)))
        details: dict[str, Any] = {
            "device": self.device,
            "majority_class": label_counts.majority,
            "train_loss": [round(float(part.mean()), 6) for part in curve],
            "windows": {"train": train.spec.view, "test": test.spec.view},
        }
        if ceiling is not None:
            details["grid_ceiling"] = {n: measure.value for n, measure in ceiling.measures.items()}
        return SegmentationProbeResult(
            protocol=RecordedProtocol(protocol),
            stores=TrainTest(StoreReference.of(train), StoreReference.of(test)),
            representation=recipe.representation,
            selection=SegmentationSelection(
                **self.selection, labels=LabelsReference(**maps.to_json())
            ),
            counts=SegmentationCounts(
                train_windows=label_counts.n_windows,
                train_windows_unlabelled=label_counts.unlabelled_windows,
                train_images=label_counts.n_images,
                train_images_unlabelled=label_counts.unlabelled_images,
                train_images_bad=len(train.bad),
                test_windows=len(self.test),
                test_images=score.n_images,
                test_images_unlabelled=score.n_unlabelled,
                test_images_bad=len(test.bad),
                classes=len(maps.classes),
                classes_trained=label_counts.trained,
                classes_scored=score.n_present,
            ),
            scores=score.measures,
            seconds=self.seconds,
            details=details,
        )


def check_writable(folder: Path) -> None:
    """Raise `StorageError` if no file can be written below `folder`, which may not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is not writable" if existing.is_dir() else "is a file, not a folder"
        raise StorageError(
            f"nothing can be written to {folder}: {existing} {reason}. Give write permission, or "
            f"choose another folder with --workspace DIR or PA_WORKSPACE."
        )
