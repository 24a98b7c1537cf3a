"""`pa probe linear`: a linear classifier on one stored vector per region.

Shapes: N training rows, n test rows, D width, C classes, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.data.store.spec import Difference
from pa.errors import UsageError
from pa.evaluate.classification import Scores
from pa.evaluate.results import Result, describe_store, write_result
from pa.probe.linear.choice import Choice, choose
from pa.probe.linear.head import LinearHead, save_heads
from pa.probe.linear.recipes import LINEAR_PROTOCOLS, PAPER, LinearRecipe
from pa.probe.linear.record import details, protocol_json
from pa.probe.linear.references import AUTO_SIZE, METHODS, Reference, fit_reference
from pa.probe.linear.sweep import (
    Candidate,
    Grid,
    TrainedHead,
    find_device,
    fixed,
    surviving,
    train_stack,
)
from pa.probe.recipes import BEST_ON_TEST, permitted_differences
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import LabelledRows, Split, SplitOptions, split_rows
from pa.probe.tables import learning_curves, write_table
from pa.probe.validation import ValidationSplit, hold_out_validation, validation_from_store
from pa.progress import Progress, Silent, Stopwatch

__all__ = [
    "LINEAR_PROTOCOLS",
    "PAPER",
    "LinearOptions",
    "LinearRecipe",
    "LinearResult",
    "permitted_differences",
    "run_linear",
    "train_linear",
]

TASK = "probe-linear"

ANY_ROWS = SplitOptions()


@dataclass(frozen=True)
class LinearOptions:
    """What goes beyond one head of one recipe.

    seeds: how many heads, of the recipe's seed and the following ones; their mean is reported.
    grid: values of representation, lr and weight decay to choose from; None = nothing is chosen.
    select_split: the store whose rows choose; None = a part of the training images held out.
    select_fraction: how large a part.
    references: ridge and logistic regression; None = where N·D·C is at most `AUTO_SIZE`.
    """

    seeds: int = 1
    grid: Grid | None = None
    select_split: Store | None = None
    select_fraction: float = 0.2
    references: bool | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"the number of seeds must be 1 or more, not {self.seeds}.")


@dataclass(frozen=True)
class Files:
    """What a run wrote: the result, the heads of all seeds, the learning curves, and the surface of
    the sweep where there was one."""

    result: Path
    heads: Path
    curves: Path
    surface: Path | None


@dataclass(frozen=True, eq=False)
class LinearResult:
    """One scored run.

    `scores` of all seeds on the test rows; `confusion` (C, C), true class by predicted class,
    summed over the seeds; the trained `heads` and their `runs`; what was chosen, if anything; the
    `references` with their scores; and the files that were written.
    """

    scores: Scores
    confusion: npt.NDArray[np.int64]
    runs: tuple[TrainedHead, ...]
    recipe: LinearRecipe
    split: Split
    heads: tuple[LinearHead, ...]
    choice: Choice | None
    references: dict[str, tuple[Reference, Scores]]
    result: Result
    files: Files

    @property
    def result_path(self) -> Path:
        return self.files.result

    @property
    def head_path(self) -> Path:
        return self.files.heads


def run_linear(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    representation: str = "cls",
    options: SplitOptions = ANY_ROWS,
    recipe: LinearRecipe = PAPER,
    extras: LinearOptions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LinearResult:
    """Train heads on stored features, score them, and write result, heads and curves.

    `test` is the store of the test split; without it, `options` says which rows of `train` are
    tested. With a grid in `extras`, representation, rate and weight decay are chosen first by other
    rows than the test rows, and the heads are trained on all training rows with what was chosen.
    The same call replaces its own files. Raises what `split_rows`, `choose`, `Store.shape` and
    `train_stack` raise, `UsageError` for a head that diverges, and `StorageError`.
    """
    recipe.to_json()  # an unknown protocol fails before the work, not after it
    find_device(device)
    extras, progress = extras or LinearOptions(), progress or Silent()
    clock = Stopwatch()
    permitted = permitted_differences(recipe.protocol)
    split = split_rows(train, test, options, permitted)
    validation = _choosers(split, extras, recipe, permitted)
    choice = None
    if extras.grid is not None and validation is not None:
        choice = choose(validation, extras.grid, recipe, device=device, progress=progress)
        representation = choice.representation
        recipe = replace(recipe, lr=choice.lr, weight_decay=choice.weight_decay)
        clock.lap("sweep")
    rows = split.train.read(representation), split.test.read(representation)
    clock.lap("read")
    seeds = range(recipe.seed, recipe.seed + extras.seeds)
    runs = _train(rows, representation, recipe, seeds, device, progress)
    clock.lap("train")
    scorer = ClassificationScorer(split)
    scores = scorer.score([run.predicted for run in runs])
    references: dict[str, tuple[Reference, Scores]] = {}
    if wants_references(extras, rows[0].features.shape, split):
        fitted = _references(rows, representation, validation, len(split.classes), progress)
        references = {name: (one, scorer.score([one.predicted])) for name, one in fitted.items()}
        clock.lap("references")
    confusion = scorer.confusion([run.predicted for run in runs])
    reported = {"accuracy": scores.to_json()}
    if recipe.reported == BEST_ON_TEST:
        reported["accuracy_last_epoch"] = scorer.score([r.last_predicted for r in runs]).to_json()
    reported |= {name: of_reference.to_json() for name, (_, of_reference) in references.items()}
    fitted = {name: reference for name, (reference, _) in references.items()}
    result = Result(
        task=TASK,
        protocol=protocol_json(recipe, extras.seeds, extras.grid, choice),
        stores={"train": describe_store(train), "test": describe_store(split.test.store)},
        representation=representation,
        selection=split.to_json(),
        counts=split.counts(),
        scores=reported,
        seconds=clock.laps,
        details={"device": device, **details(runs, split, confusion, choice, fitted)},
    )
    heads = tuple(
        LinearHead(
            run.weight,
            run.bias,
            split.classes,
            representation,
            train.fingerprint,
            run.norm,
            train.checksum,
        )
        for run in runs
    )
    return LinearResult(
        scores=scores,
        confusion=confusion,
        runs=tuple(runs),
        recipe=recipe,
        split=split,
        heads=heads,
        choice=choice,
        references=references,
        result=result,
        files=_write(results, result, heads, runs, choice),
    )


def train_linear(
    train: LabelledRows,
    test: LabelledRows,
    recipe: LinearRecipe = PAPER,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TrainedHead:
    """Train one head on rows in memory and predict the test rows; see `pa.probe.linear.sweep`.

    The classes are those of the training targets, 0 to their largest. Raises what `train_stack`
    raises, and `UsageError`, with the learning rate, for divergence.
    """
    return _train((train, test), "features", recipe, [recipe.seed], device, progress or Silent())[0]


def _train(
    rows: tuple[LabelledRows, LabelledRows],
    representation: str,
    recipe: LinearRecipe,
    seeds: Sequence[int],
    device: str,
    progress: Progress,
) -> list[TrainedHead]:
    candidates = [Candidate(representation, recipe.lr, recipe.weight_decay, seed) for seed in seeds]
    title = "training a linear head" + (f" for {len(seeds)} seeds" if len(seeds) > 1 else "")
    heads = train_stack(
        fixed({representation: rows}),
        candidates,
        recipe,
        device=device,
        progress=progress,
        title=title,
    )
    for head in heads:
        surviving([head], recipe)
    return heads


def _choosers(
    split: Split, extras: LinearOptions, recipe: LinearRecipe, permitted: Sequence[Difference]
) -> ValidationSplit | None:
    """The rows that choose, None where nothing does and none could be held out for references."""
    if extras.select_split is not None:
        return validation_from_store(split, extras.select_split, permitted)
    try:
        return hold_out_validation(split, extras.select_fraction, recipe.seed)
    except UsageError:
        if extras.grid is not None or extras.references:
            raise
        return None


def wants_references(extras: LinearOptions, shape: tuple[int, ...], split: Split) -> bool:
    """Whether references are fitted to training features of this shape (N, D)."""
    size = math.prod(shape) * len(split.classes)
    return extras.references or (extras.references is None and size <= AUTO_SIZE)


def _references(
    rows: tuple[LabelledRows, LabelledRows],
    representation: str,
    validation: ValidationSplit | None,
    n_classes: int,
    progress: Progress,
) -> dict[str, Reference]:
    if validation is None:
        progress.note(
            "no references: a class has too few training images to hold some out for the choice "
            "of the penalty."
        )
        return {}
    fit, held = validation.read(representation)
    pairs = (fit.features, fit.targets), (held.features, held.targets)
    train, test = rows
    return {
        name: fit_reference(name, (train.features, train.targets), test.features, pairs, n_classes)
        for name in METHODS
    }


def _write(
    results: Path,
    result: Result,
    heads: tuple[LinearHead, ...],
    runs: Sequence[TrainedHead],
    choice: Choice | None,
) -> Files:
    """The result comes last: where it is, what it speaks of is too."""
    stem = result.path(results)
    surface = stem.with_suffix(".sweep.parquet") if choice is not None else None
    files = Files(
        stem, stem.with_suffix(".safetensors"), stem.with_suffix(".curves.parquet"), surface
    )
    save_heads(files.heads, heads)
    write_table(files.curves, learning_curves(runs))
    if choice is not None and surface is not None:
        write_table(surface, choice.surface)
    write_result(results, result)
    return files
