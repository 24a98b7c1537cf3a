"""`pa probe linear`: train, score and record linear heads on one stored vector per region.

Shapes: N training rows, n test rows, D width, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from pa.data.store.reader import Store
from pa.errors import UsageError
from pa.evaluate.classification import Scores
from pa.evaluate.devices import torch_device
from pa.evaluate.results import LinearProbeResult
from pa.probe.linear.choice import Choice, choose
from pa.probe.linear.head import LinearHead, save_heads
from pa.probe.linear.recipes import PAPER, LinearRecipe
from pa.probe.linear.references import AUTO_SIZE, METHODS, Reference, fit_reference
from pa.probe.linear.train import Candidate, Grid, TrainedHead, finite_heads, train_stack
from pa.probe.recipes import BEST_ON_TEST, permitted_differences
from pa.probe.recording import TrainedProbe, probe_result, write_probe
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import LabelledRows, Split, SplitOptions, split_rows
from pa.probe.validation import ProbeOptions, ValidationSplit, validation_split
from pa.progress import Progress, Silent, Stopwatch

TASK = LinearProbeResult.task
CONFUSION_CLASSES = 50  # a larger matrix would fill the JSON

ALL_ROWS = SplitOptions()


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ProbeOptions):
    """Options of the linear probe beyond one head of one recipe."""

    grid: Grid | None = None  # values to choose from; None chooses nothing
    references: bool | None = None  # fit ridge and logistic regression; None: if N·D·C is small

    def wants_references(self, n_train: int, width: int, n_classes: int) -> bool:
        """Return whether references are fitted to features (N, D) of C classes."""
        if self.references is None:
            return n_train * width * n_classes <= AUTO_SIZE
        return self.references


@dataclass(frozen=True, eq=False)
class LinearResult(TrainedProbe):
    """A scored run of `run_linear`."""

    recipe: LinearRecipe  # with the chosen rate and weight decay
    heads: tuple[LinearHead, ...]  # of each seed
    runs: tuple[TrainedHead, ...]  # their history
    choice: Choice | None
    references: dict[str, tuple[Reference, Scores]]  # by the name of the method


def run_linear(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    representation: str = "cls",
    split_options: SplitOptions = ALL_ROWS,
    recipe: LinearRecipe = PAPER,
    options: LinearOptions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LinearResult:
    """Train heads on stored features, score them, and write result, heads and tables.

    The same call replaces its own files.

    Parameters
    ----------
    train, test
        Stores of the training and the test split; without `test`, `split_options` select the test
        rows of `train`.
    results
        Folder of the results.
    options
        With a grid, representation, rate and weight decay are chosen on validation rows; the heads
        are then trained on all training rows.

    Raises
    ------
    UsageError
        Every head diverges, or the rows cannot be divided.
    FingerprintError, UnknownNameError, VerificationError, StorageError
        From the stores, the features and the disk.
    """
    recipe.to_json()  # an unknown protocol fails before the work
    torch_device(device)
    options, progress = options or LinearOptions(), progress or Silent()
    clock = Stopwatch()
    split = split_rows(train, test, split_options, permitted_differences(recipe.protocol))
    validation = _validation(split, options, recipe)
    choice = None
    if options.grid is not None and validation is not None:
        choice = choose(validation, options.grid, recipe, device=device, progress=progress)
        representation = choice.representation
        recipe = replace(recipe, lr=choice.lr, weight_decay=choice.weight_decay)
        clock.lap("sweep")
    rows = split.train.read(representation), split.test.read(representation)
    clock.lap("read")
    seeds = range(recipe.seed, recipe.seed + options.seeds)
    runs = _train(rows, representation, recipe, seeds, device, progress)
    clock.lap("train")
    references: list[Reference] = []
    n_train, width = rows[0].features.shape
    if options.wants_references(n_train, width, len(split.classes)):
        references = _references(rows, representation, validation, split, progress)
        clock.lap("references")
    return _record(
        results, split, representation, recipe, choice, runs, references, device, clock.laps
    )


def train_linear(
    train: LabelledRows,
    test: LabelledRows,
    recipe: LinearRecipe = PAPER,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TrainedHead:
    """Train one head on rows in memory and predict the test rows.

    The classes are 0 to the largest training target. Raise what `train_stack` raises, and
    `UsageError`, with the learning rate, for divergence.
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
    heads = train_stack(
        {representation: rows}.__getitem__,
        [Candidate(representation, recipe.lr, recipe.weight_decay, seed) for seed in seeds],
        recipe,
        device=device,
        progress=progress,
        title="training a linear head" + (f" for {len(seeds)} seeds" if len(seeds) > 1 else ""),
    )
    for head in heads:
        finite_heads([head], recipe)
    return heads


def _validation(
    split: Split, options: LinearOptions, recipe: LinearRecipe
) -> ValidationSplit | None:
    """Return the validation rows; None if only optional references want them and none can be."""
    try:
        permitted = permitted_differences(recipe.protocol)
        return validation_split(split, options, recipe.seed, permitted)
    except UsageError:
        if options.select_split is not None or options.grid is not None or options.references:
            raise
        return None


def _references(
    rows: tuple[LabelledRows, LabelledRows],
    representation: str,
    validation: ValidationSplit | None,
    split: Split,
    progress: Progress,
) -> list[Reference]:
    if validation is None:
        progress.note(
            "no references: a class has too few training images to hold some out for the choice "
            "of the penalty."
        )
        return []
    fit, score = validation.read(representation)
    pairs = (fit.features, fit.targets), (score.features, score.targets)
    train, test = rows
    return [
        fit_reference(
            name, (train.features, train.targets), test.features, pairs, len(split.classes)
        )
        for name in METHODS
    ]


def _record(
    results: Path,
    split: Split,
    representation: str,
    recipe: LinearRecipe,
    choice: Choice | None,
    runs: Sequence[TrainedHead],
    references: Sequence[Reference],
    device: str,
    seconds: dict[str, float],
) -> LinearResult:
    """Score heads and references on the test rows; write result, heads and tables."""
    scorer = ClassificationScorer(split)
    last = [run.last_predicted for run in runs] if recipe.reported == BEST_ON_TEST else None
    report = scorer.report([run.predicted for run in runs], last)
    scored = {r.name: (r, scorer.score([r.predicted])) for r in references}
    confusion = report.confusion.tolist() if len(split.classes) <= CONFUSION_CLASSES else None
    result = probe_result(
        LinearProbeResult,
        split,
        representation,
        {**recipe.to_json(), "seeds": len(runs), "sweep": choice.protocol() if choice else None},
        {**report.scores, **{name: scores for name, (_, scores) in scored.items()}},
        seconds,
        {
            "device": device,
            "runs": [run.to_json() for run in runs],
            "per_class": report.per_class,
            "confusion": confusion,
            "chosen": choice.to_json() if choice else None,
            "references": {reference.name: reference.to_json() for reference in references},
        },
    )
    store = split.train.store
    heads = tuple(
        LinearHead(
            run.weight,
            run.bias,
            split.classes,
            representation,
            store.fingerprint,
            run.norm,
            store.checksum,
        )
        for run in runs
    )
    sweep = choice.sweep if choice else None
    save = partial(save_heads, heads=heads)
    files = write_probe(results, result, save, _learning_curves(runs), sweep)
    return LinearResult(
        confusion=report.confusion,
        split=split,
        result=result,
        files=files,
        recipe=recipe,
        heads=heads,
        runs=tuple(runs),
        choice=choice,
        references=scored,
    )


def _learning_curves(heads: Sequence[TrainedHead]) -> pl.DataFrame:
    """Return a row for each head and epoch: training metrics are means over the epoch's steps."""
    frames = []
    for head in heads:
        epochs, test = len(head.train_loss), head.test_accuracy
        frames.append(
            pl.DataFrame(
                {
                    **{name: [v] * epochs for name, v in asdict(head.candidate).items()},
                    "epoch": np.arange(1, epochs + 1),
                    "train_loss": head.train_loss,
                    "train_accuracy": head.train_accuracy,
                    "test_accuracy": np.full(epochs, np.nan) if test is None else test,
                }
            )
        )
    return pl.concat(frames, how="vertical_relaxed")
