"""Train segmentation heads on the windows of one store and score them on those of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from pa.data.store.source import FeatureSource
from pa.data.store.spec import digest
from pa.errors import MissingError, UsageError
from pa.probe.segmentation.batches import TrainingWindows, grid_of
from pa.probe.segmentation.labels import LabelMaps, WindowRows, check_pair, count_labels, held_out
from pa.probe.segmentation.loss import pixels_per_token
from pa.probe.segmentation.recipes import PAPER, SegmentationRecipe
from pa.probe.segmentation.record import TASK, RunRecord, SegmentationResult, check_writable
from pa.probe.segmentation.score import ImagePrediction, score_heads
from pa.probe.segmentation.train import SAVE_SECONDS, HeadSpec, train_heads
from pa.progress import Progress, Silent, Stopwatch

TEST_FRACTION = 0.2  # of the images of one split, which has no test split of its own


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
    *,
    results: Path,
    recipe: SegmentationRecipe = PAPER,
    variants: Sequence[SegmentationRecipe] = (),
    test_fraction: float | None = None,
    ceiling: bool = False,
    figures: int = 0,
    image_root: Path | None = None,
    online: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    save_seconds: float = SAVE_SECONDS,
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

    Raises
    ------
    UsageError
        If options contradict each other, nothing can be trained, or training diverged.
    MismatchError
        If the stores are of different encoders or resolutions, or an image has changed.
    StorageError
        If results cannot be written.
    """
    progress = progress or Silent()
    clock = Stopwatch()
    variants = variants or (recipe,)
    names = [labels.name for labels in maps]
    if len(set(names)) < len(names):
        raise UsageError(f"label sets need different names, not {', '.join(names)}.")
    if len(set(variants)) < len(variants):
        raise UsageError("each variant of the recipe may be given once: it has one result.")
    check_pair(train, test, recipe.representation)
    grid, _ = grid_of(train, recipe.representation)
    pixels_per_token(int(train.spec.view["crop"]), grid)
    check_writable(results / TASK)
    selection, train_paths, test_paths = _select(train, test, recipe.seed, test_fraction)
    if online:
        selection["features"] = "encoded on the fly"
    train_rows, test_rows = WindowRows.of(train, train_paths), WindowRows.of(test, test_paths)
    root = image_root or maps[0].root
    missing = [image["path"] for image in test_rows.images if not (root / image["path"]).is_file()]
    if figures and missing:
        raise MissingError(
            f"figures need the images: {len(missing)} of {len(test_rows.images)} are not in "
            f"{root}, such as {missing[0]}. Give their folder with --root, or omit --figures."
        )
    # Reads all masks: a faulty one is reported before hours of training.
    label_counts = [count_labels(labels, train_rows, progress) for labels in maps]
    specs = [HeadSpec(i, r.lr, r.init_seed) for i in range(len(maps)) for r in variants]
    clock.lap("labels")
    # Everything that determines the training: a state with another key is not resumed.
    features, heads_key = [train.fingerprint, train.checksum], [list(astuple(s)) for s in specs]
    labels_key = [[entry.to_json(), list(entry.classes), str(entry.root)] for entry in maps]
    key = digest([TASK, features, recipe.to_json(), selection, labels_key, heads_key])
    state = results / TASK / f"running-{key[:16]}.safetensors"
    windows = TrainingWindows(train_rows, maps, recipe.representation, recipe.batch, recipe.seed)
    heads = train_heads(
        windows,
        specs,
        recipe,
        device=device,
        progress=progress,
        state=state,
        key=key,
        save_seconds=save_seconds,
    )
    clock.lap("train")
    areas = score_heads(
        test_rows,
        maps,
        specs,
        heads,
        recipe,
        ceiling=ceiling,
        figures=figures,
        device=device,
        progress=progress,
    )
    clock.lap("score")
    record = RunRecord(train_rows, test_rows, selection, clock.laps, device, results)
    written = record.write(maps, label_counts, variants, heads, areas)
    state.unlink(missing_ok=True)  # after the results: a kill before them loses no training
    return SegmentationRun(written, areas.shown, len(variants), root)


def _select(
    train: FeatureSource, test: FeatureSource, seed: int, test_fraction: float | None
) -> tuple[dict[str, Any], set[str] | None, set[str] | None]:
    """Return the rule that divides the images, and the paths of both sides (None: all)."""
    splits = train.spec.split, test.spec.split
    if splits[0] != splits[1]:
        if test_fraction is not None:
            raise UsageError(
                f"--test-fraction is the fraction of images held out of one split; here split "
                f"{splits[0]} trains and split {splits[1]} is scored. Leave it out, or name one "
                f"split twice."
            )
        return {"rule": f"split {splits[0]} trains, split {splits[1]} is scored"}, None, None
    if test_fraction == 0:
        return {"rule": f"trained and scored on the same images, split {splits[0]}"}, None, None
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    paths = set(test.rows["path"].unique().to_list())
    test_paths = held_out(sorted(paths), fraction, seed)
    rule = {
        "rule": f"{len(test_paths)} of {len(paths)} images of split {splits[0]} held out",
        "test_fraction": fraction,
        "seed": seed,
    }
    return rule, set(train.rows["path"].unique().to_list()) - test_paths, test_paths
