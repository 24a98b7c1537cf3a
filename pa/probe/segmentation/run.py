"""`pa probe segmentation`: train heads on the cached windows of one store, score them on another's.

Shapes: C classes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pa.data.store.source import FeatureSource
from pa.data.store.spec import digest
from pa.errors import MissingError, UsageError
from pa.probe.segmentation.batches import TrainingWindows, grid_of
from pa.probe.segmentation.labels import LabelMaps, WindowRows, check_pair, held_out, survey
from pa.probe.segmentation.loss import pixels_per_token
from pa.probe.segmentation.recipes import PAPER, SegmentationRecipe
from pa.probe.segmentation.record import TASK, SegmentationResult, Work, check_folder, write
from pa.probe.segmentation.score import Shown, score_heads
from pa.probe.segmentation.train import SAVE_SECONDS, HeadSpec, train_heads
from pa.progress import Progress, Silent, Stopwatch


@dataclass(frozen=True)
class SegmentationOptions:
    """What is trained and scored beside the recipe.

    Every label set is trained with every learning rate of `lrs` and every seed of `init_seeds`
    (empty: the recipe's). Where both stores are of one split, `test_fraction` of the images is held
    out; 0 scores the images that were trained on, and the result says so. The class maps of
    `figures` images are returned for a picture; the images must then be in `image_root` (default:
    the root of the first label set). `online` is recorded: the stores encode on the fly.
    """

    lrs: tuple[float, ...] = ()
    init_seeds: tuple[int, ...] = ()
    test_fraction: float = 0.2
    ceiling: bool = False
    figures: int = 0
    image_root: Path | None = None
    save_seconds: float = SAVE_SECONDS
    online: bool = False


PLAIN = SegmentationOptions()


@dataclass(frozen=True, eq=False)
class SegmentationRun:
    """The results of a run, one per head, and what a picture of it shows.

    `shown` holds the class maps of the images to draw, `heads_per_set` predictions for each label
    set; `image_root` holds the images.
    """

    results: list[SegmentationResult]
    shown: list[Shown]
    heads_per_set: int
    image_root: Path


def run_segmentation(
    train: FeatureSource,
    test: FeatureSource,
    maps: Sequence[LabelMaps],
    *,
    results: Path,
    recipe: SegmentationRecipe = PAPER,
    options: SegmentationOptions = PLAIN,
    device: str = "cpu",
    progress: Progress | None = None,
) -> SegmentationRun:
    """Train heads for one or more label sets of the same images, score them, write the results.

    One result per label set, learning rate and seed, in this order, each with its head and its
    table of classes beside it; what they say equals what each would say alone. A killed run goes
    on where it was. Whatever can be known to be wrong without reading labels is found before they
    are read. Raises what `check_pair`, `survey`, `train_heads` and `score_heads` raise,
    `StorageError` for folders that cannot be written to.
    """
    progress = progress or Silent()
    clock = Stopwatch()
    recipes = _recipes(recipe, options)
    names = [one.name for one in maps]
    if len(set(names)) < len(names):
        raise UsageError(f"label sets must have names of their own, not {', '.join(names)}.")
    check_pair(train, test, recipe.representation)
    grid, _ = grid_of(train, recipe.representation)
    pixels_per_token(int(train.spec.view["crop"]), grid)
    check_folder(results / TASK)
    selection, train_paths, test_paths = _select(train, test, recipe, options)
    if options.online:
        selection["features"] = "encoded on the fly"
    train_rows, test_rows = WindowRows.of(train, train_paths), WindowRows.of(test, test_paths)
    root = options.image_root or maps[0].root
    missing = [image["path"] for image in test_rows.images if not (root / image["path"]).is_file()]
    if options.figures and missing:
        raise MissingError(
            f"figures need the images: {len(missing)} of {len(test_rows.images)} are not in "
            f"{root}, such as {missing[0]}. Give their folder with --root, or omit --figures."
        )
    surveys = [survey(one, train_rows, progress) for one in maps]
    specs = [HeadSpec(i, r.lr, r.init_seed) for i in range(len(maps)) for r in recipes]
    clock.lap("labels")
    key = _key(train, recipe, selection, maps, specs)
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
        save_seconds=options.save_seconds,
    )
    clock.lap("train")
    scored = score_heads(
        test_rows,
        maps,
        specs,
        heads,
        recipe,
        ceiling=options.ceiling,
        figures=options.figures,
        device=device,
        progress=progress,
    )
    clock.lap("score")
    work = Work(train_rows, test_rows, selection, clock.laps, device, results)
    written = write(work, maps, surveys, recipes, heads, scored)
    state.unlink(missing_ok=True)
    return SegmentationRun(written, scored.shown, len(recipes), root)


def _recipes(recipe: SegmentationRecipe, options: SegmentationOptions) -> list[SegmentationRecipe]:
    """The recipe of every head of a label set. Raises `UsageError` for two that are the same."""
    made = [
        replace(recipe, lr=lr, init_seed=seed)
        for lr in options.lrs or (recipe.lr,)
        for seed in options.init_seeds or (recipe.init_seed,)
    ]
    if len(set(made)) < len(made):
        raise UsageError(
            f"each learning rate and each seed may be named once: found rates "
            f"{', '.join(f'{lr:g}' for lr in options.lrs)} and seeds "
            f"{', '.join(map(str, options.init_seeds))}."
        )
    return made


def _select(
    train: FeatureSource,
    test: FeatureSource,
    recipe: SegmentationRecipe,
    options: SegmentationOptions,
) -> tuple[dict[str, Any], set[str] | None, set[str] | None]:
    """The rule that divides the images, and the paths on both sides (None: all of them)."""
    splits = [store.spec.split for store in (train, test)]
    if splits[0] != splits[1]:
        return {"rule": f"split {splits[0]} trains, split {splits[1]} is scored"}, None, None
    if options.test_fraction == 0:
        return {"rule": f"trained and scored on the same images, split {splits[0]}"}, None, None
    paths = set(test.rows["path"].unique().to_list())
    out = held_out(sorted(paths), options.test_fraction, recipe.seed)
    rule = {
        "rule": f"{len(out)} of {len(paths)} images of split {splits[0]} held out",
        "test_fraction": options.test_fraction,
        "seed": recipe.seed,
    }
    return rule, set(train.rows["path"].unique().to_list()) - out, out


def _key(
    train: FeatureSource,
    recipe: SegmentationRecipe,
    selection: dict[str, Any],
    maps: Sequence[LabelMaps],
    specs: Sequence[HeadSpec],
) -> str:
    """Digest of all that determines the training of the heads."""
    labels = [[one.to_json(), list(one.classes), str(one.root)] for one in maps]
    heads = [[spec.maps, spec.lr, spec.init_seed] for spec in specs]
    features = [train.fingerprint, train.checksum]
    return digest([TASK, features, recipe.to_json(), selection, labels, heads])
