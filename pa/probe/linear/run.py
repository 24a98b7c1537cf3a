"""`pa probe linear`: train, score and record linear heads on one stored vector per region.

Shapes: N training rows, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pa.errors import UsageError
from pa.evaluate.devices import torch_device
from pa.evaluate.results import LinearProbeResult
from pa.probe.linear.head import LinearHead
from pa.probe.linear.recipes import PAPER, LinearRecipe
from pa.probe.linear.references import AUTO_SIZE, METHODS, Reference, fit_reference
from pa.probe.linear.train import Grid, finite_heads, train_stack
from pa.probe.recording import ClassificationScorer, TrainedProbe, probe_result, trained_heads
from pa.probe.selection import LabelledRows, ProbeStores, Split
from pa.probe.training import Candidate, TrainedHead, learning_curves
from pa.probe.validation import (
    SETTING,
    ProbeOptions,
    ValidationSplit,
    choose,
    validation_split,
)
from pa.progress import Progress, Silent, Stopwatch

TASK = LinearProbeResult.task
CONFUSION_CLASSES = 50  # a larger matrix would fill the JSON

LinearResult = TrainedProbe[LinearRecipe, LinearHead]


@dataclass(frozen=True, kw_only=True)
class LinearOptions(ProbeOptions):
    """Options of the linear probe."""

    recipe: LinearRecipe = PAPER
    representation: str = "cls"
    grid: Grid | None = None  # values to choose from; None chooses nothing
    references: bool | None = None  # fit ridge and logistic regression; None: if N·D·C is small

    def wants_references(self, n_train: int, width: int, n_classes: int) -> bool:
        """Return whether references are fitted to features (N, D) of C classes."""
        if self.references is None:
            return n_train * width * n_classes <= AUTO_SIZE
        return self.references


def run_linear(
    stores: ProbeStores,
    options: LinearOptions | None = None,
    *,
    results: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> LinearResult:
    """Train heads on stored features, score them, and write result, heads and tables.

    The same call replaces its own files.

    Parameters
    ----------
    stores
        Stores of the training and the test split, or one store whose rows are divided.
    options
        With a grid, representation, rate and weight decay are chosen on validation rows; the heads
        are then trained on all training rows.
    results
        Folder of the results.

    Raises
    ------
    UsageError
        Every head diverges, or the rows cannot be divided.
    FingerprintError, UnknownNameError, VerificationError, StorageError
        From the stores, the features and the disk.
    """
    options, progress = options or LinearOptions(), progress or Silent()
    recipe, representation = options.recipe, options.representation
    recipe.to_json()  # an unknown protocol fails before the work
    torch_device(device)
    clock = Stopwatch()
    split = stores.split(recipe.protocol)
    validation = _validation(split, options)
    choice, swept, chosen = None, None, None
    if options.grid is not None and validation is not None:
        candidates = options.grid.candidates()
        heads = train_stack(
            validation.read,
            candidates,
            recipe,
            monitored=False,
            device=device,
            progress=progress,
            title=f"sweeping {len(candidates)} linear heads",
        )
        finite_heads(heads, recipe)
        choice = choose(validation, heads, recipe)
        chosen = {
            **choice.setting,
            "by": validation.to_json(),
            "candidates": choice.settings().to_dicts(),
        }
        representation = choice.setting["representation"]
        recipe = replace(
            recipe, lr=choice.setting["lr"], weight_decay=choice.setting["weight_decay"]
        )
        # What was chosen from and the rows that chose are part of the protocol of the result.
        swept = {
            "by": validation.rule,
            "store": validation.score.store.fingerprint,
            "fraction": validation.fraction,
            **{name: getattr(options.grid, name) for name in SETTING},
        }
        clock.lap("sweep")
    rows = split.train.read(representation), split.test.read(representation)
    clock.lap("read")
    runs = _train(rows, representation, recipe, options.seed_range, device, progress)
    clock.lap("train")
    scorer, references = ClassificationScorer(split), {}
    n_train, width = rows[0].features.shape
    if options.wants_references(n_train, width, len(split.classes)):
        for reference in _references(rows, representation, validation, split, progress):
            references[reference.name] = (reference, scorer.score([reference.predicted]))
        clock.lap("references")
    confusion = scorer.confusion(runs)
    details = {
        "device": device,
        "runs": [run.to_json() for run in runs],
        "per_class": scorer.per_class(confusion),
        "confusion": confusion.tolist() if len(split.classes) <= CONFUSION_CLASSES else None,
        "chosen": chosen,
        "references": {name: reference.to_json() for name, (reference, _) in references.items()},
    }
    scores = scorer.score_heads(runs, recipe.reported)
    result = probe_result(
        LinearProbeResult,
        split,
        representation,
        {**recipe.to_json(), "seeds": options.seeds, "sweep": swept},
        {**scores, **{name: of_reference for name, (_, of_reference) in references.items()}},
        clock.laps,
        details,
    )
    trained = trained_heads(LinearHead, runs, split, {"bn_eps": repr(recipe.bn_eps)})
    probe = TrainedProbe(
        results, result, split, recipe, trained, runs, confusion, choice, references
    )
    probe.write(learning_curves(runs), choice.sweep if choice else None)
    return probe


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
    """Train a head for each seed. Raise `UsageError` if one of them diverges."""
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


def _validation(split: Split, options: LinearOptions) -> ValidationSplit | None:
    """Return the validation rows; None if only optional references want them and none can be."""
    try:
        return validation_split(split, options)
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
