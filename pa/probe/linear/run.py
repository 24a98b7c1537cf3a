"""`pa probe linear`: train, score and record linear heads on one stored vector per region.

Shapes: N training rows, D width, C classes.
"""

from __future__ import annotations

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
from pa.probe.training import Candidate, learning_curves
from pa.probe.validation import (
    SETTING,
    Choice,
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
        choice = _sweep(validation, options.grid, recipe, device, progress)
        representation, lr, weight_decay = choice.setting.values()
        recipe = replace(recipe, lr=lr, weight_decay=weight_decay)
        # What was chosen from and the rows that chose are part of the protocol of the result.
        swept = {
            "by": validation.rule,
            "store": validation.score.store.fingerprint,
            "fraction": validation.fraction,
            **{name: getattr(options.grid, name) for name in SETTING},
        }
        candidates = choice.settings().to_dicts()
        chosen = {**choice.setting, "by": validation.to_json(), "candidates": candidates}
        clock.lap("sweep")
    train, test = split.train.read(representation), split.test.read(representation)
    clock.lap("read")
    seeds = options.seed_range
    runs = train_stack(
        {representation: (train, test)}.__getitem__,
        [Candidate(representation, recipe.lr, recipe.weight_decay, seed) for seed in seeds],
        recipe,
        device=device,
        progress=progress,
        title="training a linear head" + (f" for {len(seeds)} seeds" if len(seeds) > 1 else ""),
    )
    for run in runs:
        finite_heads([run], recipe)
    clock.lap("train")
    scorer, references = ClassificationScorer(split), {}
    n_train, width = train.features.shape
    if options.wants_references(n_train, width, len(split.classes)):
        for reference in _references(train, test, representation, validation, progress):
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
    scores |= {name: of_reference for name, (_, of_reference) in references.items()}
    protocol = {**recipe.to_json(), "seeds": options.seeds, "sweep": swept}
    result = probe_result(
        LinearProbeResult, split, representation, protocol, scores, clock.laps, details
    )
    heads = trained_heads(LinearHead, runs, split, {"bn_eps": repr(recipe.bn_eps)})
    probe = TrainedProbe(results, result, split, recipe, heads, runs, confusion, choice, references)
    probe.write(learning_curves(runs), choice.sweep if choice else None)
    return probe


def _validation(split: Split, options: LinearOptions) -> ValidationSplit | None:
    """Return the validation rows; None if only optional references want them and none can be."""
    try:
        return validation_split(split, options)
    except UsageError:
        if options.select_split is not None or options.grid is not None or options.references:
            raise
        return None


def _sweep(
    validation: ValidationSplit, grid: Grid, recipe: LinearRecipe, device: str, progress: Progress
) -> Choice:
    """Train all candidates of a grid on the rows that fit, and choose by the rows that score."""
    candidates = grid.candidates()
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
    return choose(validation, heads, recipe)


def _references(
    train: LabelledRows,
    test: LabelledRows,
    representation: str,
    validation: ValidationSplit | None,
    progress: Progress,
) -> list[Reference]:
    """Fit the references to the training rows; their penalty is chosen on the validation rows."""
    if validation is None:
        progress.note(
            "no references: a class has too few training images to hold some out for the choice "
            "of the penalty."
        )
        return []
    sides = validation.read(representation)
    return [fit_reference(name, train, test, sides) for name in METHODS]
