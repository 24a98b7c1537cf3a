"""Train segmentation heads on the windows of one store, score them on another, write the results.

Shapes: C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pa.data.files import replacing
from pa.data.store.source import FeatureSource
from pa.data.store.spec import digest
from pa.errors import MissingError, StorageError, UsageError
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
from pa.evaluate.segmentation import SegmentationAreas, SegmentationScore
from pa.probe.linear.head import LinearHead
from pa.probe.segmentation.batches import TrainingWindows, grid_of
from pa.probe.segmentation.labels import (
    LabelCounts,
    LabelMaps,
    WindowRows,
    check_pair,
    count_labels,
    held_out,
)
from pa.probe.segmentation.loss import pixels_per_token
from pa.probe.segmentation.recipes import (
    PAPER,
    RELEASED_LAYERS,
    SegmentationRecipe,
    named_recipe,
)
from pa.probe.segmentation.score import ImagePrediction, score_heads
from pa.probe.segmentation.train import SAVE_SECONDS, HeadSpec, TrainedHead, train_heads
from pa.progress import Progress, Silent, Stopwatch

TASK = SegmentationProbeResult.task
TEST_FRACTION = 0.2  # of the images of one split, which has no test split of its own
CURVE_POINTS = 100  # of the loss curve in a result: enough to plot


@dataclass(frozen=True)
class SegmentationOptions:
    """How heads are trained and scored.

    Attributes
    ----------
    recipe, variants
        The recipe of all heads, and the same with other learning rates and initial seeds; without
        variants `recipe` alone is trained.
    test_fraction
        Fraction of the images held out if both stores have the same split; 0 scores the training
        images. Default: 0.2.
    ceiling
        Also score the labels themselves at token resolution.
    figures, image_root
        Number of images whose class maps are returned to be drawn, and the folder of these images.
        Default: none, and the root of the first label set.
    online
        Recorded in the results: the sources encode on the fly.
    save_seconds
        Seconds between states from which a killed run resumes.
    """

    recipe: SegmentationRecipe = PAPER
    variants: tuple[SegmentationRecipe, ...] = ()
    test_fraction: float | None = None
    ceiling: bool = False
    figures: int = 0
    image_root: Path | None = None
    online: bool = False
    device: str = "cpu"
    save_seconds: float = SAVE_SECONDS


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


@dataclass(frozen=True, eq=False)
class SegmentationRun:
    """The results of a run, one per head, and the images to draw.

    `shown` holds `heads_per_set` predictions for each label set; `image_root` holds the images.
    """

    results: list[SegmentationResult]
    shown: list[ImagePrediction]
    heads_per_set: int
    image_root: Path


def run_segmentation(
    train: FeatureSource,
    test: FeatureSource,
    maps: Sequence[LabelMaps],
    results: Path,
    options: SegmentationOptions | None = None,
    progress: Progress | None = None,
) -> SegmentationRun:
    """Train heads for one or more label sets of the same images, score them, write the results.

    One result is written per label set and variant, in this order, each with its head and its table
    of classes; every head equals the same head trained alone. A killed run resumes. Everything
    that can be checked without reading labels is checked before they are read.

    Parameters
    ----------
    train, test
        Training windows, and sliding windows to score, of one encoder and resolution.
    maps
        Label sets of the images.
    results
        Folder of the results.

    Raises
    ------
    UsageError
        If options contradict each other, nothing can be trained, or training diverged.
    MismatchError
        If the stores are of different encoders or resolutions, or an image has changed.
    StorageError
        If results cannot be written.
    """
    options, progress, clock = options or SegmentationOptions(), progress or Silent(), Stopwatch()
    recipe, variants = options.recipe, options.variants or (options.recipe,)
    names = [labels.name for labels in maps]
    if len(set(names)) < len(names):
        raise UsageError(f"label sets need different names, not {', '.join(names)}.")
    if len(set(variants)) < len(variants):
        raise UsageError("each variant of the recipe may be given once: it has one result.")
    check_pair(train, test, recipe.representation)
    grid, _ = grid_of(train, recipe.representation)
    pixels_per_token(int(train.spec.view["crop"]), grid)
    check_writable(results / TASK)
    rows, selection = _select(train, test, recipe.seed, options)
    root = options.image_root or maps[0].root
    images = rows[1].images
    missing = [image["path"] for image in images if not (root / image["path"]).is_file()]
    if options.figures and missing:
        raise MissingError(
            f"figures need the images: {len(missing)} of {len(images)} are not in {root}, such as "
            f"{missing[0]}. Give their folder with --root, or omit --figures."
        )
    # Reads all masks: a faulty one is reported before hours of training.
    counts = [count_labels(labels, rows[0], progress) for labels in maps]
    specs = [HeadSpec(i, r.lr, r.init_seed) for i in range(len(maps)) for r in variants]
    clock.lap("labels")
    # Everything that determines the training: a state with another key is not resumed.
    features, heads_key = [train.fingerprint, train.checksum], [list(astuple(s)) for s in specs]
    labels_key = [[entry.to_json(), list(entry.classes), str(entry.root)] for entry in maps]
    key = digest([TASK, features, recipe.to_json(), selection, labels_key, heads_key])
    state = results / TASK / f"running-{key[:16]}.safetensors"
    heads = train_heads(
        TrainingWindows(rows[0], maps, recipe.representation, recipe.batch, recipe.seed),
        specs,
        recipe,
        device=options.device,
        progress=progress,
        state=state,
        key=key,
        save_seconds=options.save_seconds,
    )
    clock.lap("train")
    areas = score_heads(
        rows[1],
        maps,
        specs,
        heads,
        recipe,
        ceiling=options.ceiling,
        figures=options.figures,
        device=options.device,
        progress=progress,
    )
    clock.lap("score")
    record = _RunRecord(*rows, selection, clock.laps, options.device, results)
    written = []
    # Heads are ordered by label set, then by variant.
    of_heads = zip(specs, variants * len(maps), heads, areas.heads, strict=True)
    for spec, variant, head, of_head in of_heads:
        ceiling = areas.ceilings[spec.maps] if areas.ceilings else None
        set_counts = counts[spec.maps]
        written.append(record.write(maps[spec.maps], set_counts, variant, head, of_head, ceiling))
    state.unlink(missing_ok=True)  # after the results: a kill before them loses no training
    return SegmentationRun(written, areas.shown, len(variants), root)


def _select(
    train: FeatureSource, test: FeatureSource, seed: int, options: SegmentationOptions
) -> tuple[tuple[WindowRows, WindowRows], dict[str, Any]]:
    """Return the windows of both sides, and the rule that divides the images."""
    splits, fraction = (train.spec.split, test.spec.split), options.test_fraction
    paths: tuple[set[str] | None, set[str] | None] = None, None  # all images
    if splits[0] != splits[1] and fraction is not None:
        raise UsageError(
            f"--test-fraction is the fraction of images held out of one split; here split "
            f"{splits[0]} trains and split {splits[1]} is scored. Leave it out, or name one "
            f"split twice."
        )
    if splits[0] != splits[1]:
        selection: dict[str, Any] = {
            "rule": f"split {splits[0]} trains, split {splits[1]} is scored"
        }
    elif fraction == 0:
        selection = {"rule": f"trained and scored on the same images, split {splits[0]}"}
    else:
        fraction = TEST_FRACTION if fraction is None else fraction
        images = set(test.rows["path"].unique().to_list())
        chosen = held_out(sorted(images), fraction, seed)
        paths = set(train.rows["path"].unique().to_list()) - chosen, chosen
        rule = f"{len(chosen)} of {len(images)} images of split {splits[0]} held out"
        selection = {"rule": rule, "test_fraction": fraction, "seed": seed}
    if options.online:
        selection["features"] = "encoded on the fly"
    return (WindowRows.of(train, paths[0]), WindowRows.of(test, paths[1])), selection


@dataclass(frozen=True)
class _RunRecord:
    """What all results of a run share."""

    train: WindowRows
    test: WindowRows
    selection: dict[str, Any]
    seconds: dict[str, float]
    device: str
    results: Path

    def write(
        self,
        maps: LabelMaps,
        counts: LabelCounts,
        recipe: SegmentationRecipe,
        head: TrainedHead,
        areas: SegmentationAreas,
        ceiling_areas: SegmentationAreas | None,
    ) -> SegmentationResult:
        """Score the areas of a head and write its files."""
        score = areas.score(counts.majority)
        ceiling = None if ceiling_areas is None else ceiling_areas.score(counts.majority)
        curve = np.array_split(head.losses.double().numpy(), min(CURVE_POINTS, len(head.losses)))
        details = {
            "device": self.device,
            "majority_class": counts.majority,
            "train_loss": [round(float(part.mean()), 6) for part in curve],
            "windows": {"train": self.train.store.spec.view, "test": self.test.store.spec.view},
        }
        if ceiling is not None:
            details["grid_ceiling"] = {n: measure.value for n, measure in ceiling.measures.items()}
        result = self._result(maps, counts, recipe, score, details)
        store, path = self.train.store, result.path(self.results)
        linear = LinearHead(
            head.weight.numpy(),
            head.bias.numpy(),
            maps.classes,
            recipe.representation,
            store.fingerprint,
            store_checksum=store.checksum,
        )
        losses = head.losses  # (iterations,)
        scored = SegmentationResult(maps, recipe, score, ceiling, losses, linear, result, path)
        linear.save(scored.head_path)
        with replacing(scored.table_path) as partial:
            score.table(maps.classes).write_parquet(partial, compression="zstd")
        write_result(self.results, result)  # last: a result that exists has all its files
        return scored

    def _result(
        self,
        maps: LabelMaps,
        label_counts: LabelCounts,
        recipe: SegmentationRecipe,
        score: SegmentationScore,
        details: dict[str, Any],
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
        labels = LabelsReference(**maps.to_json())
        return SegmentationProbeResult(
            protocol=RecordedProtocol(protocol),
            stores=TrainTest(StoreReference.of(train), StoreReference.of(test)),
            representation=recipe.representation,
            selection=SegmentationSelection(**self.selection, labels=labels),
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
