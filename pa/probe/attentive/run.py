"""`pa probe attentive`: train, score and record attentive heads on stored tokens.

Shapes: n test rows, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from pa.data.store.reader import Store
from pa.data.store.spec import digest
from pa.data.store.stream import Stream
from pa.errors import UsageError
from pa.evaluate.devices import torch_device
from pa.evaluate.results import AttentiveProbeResult, versions
from pa.probe.attentive.choice import choose_rate
from pa.probe.attentive.head import AttentiveHead, save_attentive_heads, split_heads
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.tokens import PATCH, REPRESENTATION, Tokens, check_tokens
from pa.probe.attentive.train import Candidate, Trained, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.recipes import BEST_ON_TEST, permitted_differences
from pa.probe.recording import TrainedProbe, probe_result, write_probe
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import Split, SplitOptions, split_rows
from pa.probe.validation import ProbeOptions, ValidationSplit, validation_split
from pa.progress import Progress, Silent, Stopwatch

TASK = AttentiveProbeResult.task
MEMORY = 2e9  # bytes of patch tokens: leaves room for torch on a machine with 8 GB
CHOOSING, TRAINING = "choosing", "training"  # stages with a state file of their own

ALL_ROWS = SplitOptions()


@dataclass(frozen=True, kw_only=True)
class AttentiveOptions(ProbeOptions):
    """Options of the attentive probe beyond one head of one recipe."""

    lr: tuple[float, ...] = ()  # rates to choose from; a single one is used as it is
    memory: float = MEMORY  # bytes of patch tokens to keep; more are streamed, to the same result
    resume: bool = True  # resume a killed run

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.lr)) < len(self.lr) or not all(rate > 0 for rate in self.lr):
            raise UsageError(f"learning rates must be positive and different: {list(self.lr)}.")
        if self.memory < 0:
            raise UsageError(f"memory for features must not be negative: {self.memory:g} bytes.")


@dataclass(frozen=True, eq=False)
class AttentiveResult(TrainedProbe):
    """A scored run of `run_attentive`."""

    recipe: AttentiveRecipe  # with the chosen rate
    heads: tuple[AttentiveHead, ...]  # of each seed
    trained: Trained  # their history
    sweep: pl.DataFrame | None  # results of `choose_rate`, if a rate was chosen


def run_attentive(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    split_options: SplitOptions = ALL_ROWS,
    recipe: AttentiveRecipe = PAPER,
    options: AttentiveOptions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AttentiveResult:
    """Train attentive heads on stored tokens, score them, and write result, heads and curves.

    The state of training is stored next to the result until the result is written. The same call
    replaces its own files.

    Parameters
    ----------
    train, test
        Stores of the training and the test split; without `test`, `split_options` select the test
        rows of `train`.
    results
        Folder of the results.
    options
        Of several learning rates one is chosen on validation rows; the heads are then trained on
        all training rows.

    Raises
    ------
    UsageError
        Every head diverges, the rows cannot be divided, or the tokens differ in width.
    FingerprintError, UnknownNameError, VerificationError, StorageError
        From the stores, the tokens and the disk.
    """
    options, progress = options or AttentiveOptions(), progress or Silent()
    if len(options.lr) == 1:
        recipe = replace(recipe, lr=options.lr[0])
    recipe.to_json()  # an unknown protocol fails before the work
    clock = Stopwatch()
    split = split_rows(train, test, split_options, permitted_differences(recipe.protocol))
    validation = _validation(split, recipe, options)
    clock.lap("rows")
    # The names of the result and of the state files are fixed before the training.
    planned = _planned(split, recipe, options, validation)
    target_device = torch.device(torch_device(device))
    states = _states(results, planned, target_device, options.resume)
    seeds, sweep = range(recipe.seed, recipe.seed + options.seeds), None
    if validation is not None:
        sweep = choose_rate(
            validation,
            len(split.classes),
            [Candidate(seed, lr) for lr in options.lr for seed in seeds],
            recipe,
            device=target_device,
            memory=options.memory,
            checkpoint=states[CHOOSING],
            progress=progress,
        )
        recipe = replace(recipe, lr=sweep.filter("chosen")["lr"][0])
        clock.lap("choose")
    state, memory = states[TRAINING], options.memory
    trained = _train(split, recipe, seeds, memory, target_device, state, progress)
    clock.lap("train")
    planned = replace(planned, seconds=clock.laps)
    result = _record(results, planned, split, recipe, validation, sweep, trained, memory, device)
    for state in states.values():
        state.remove()
    return result


def _validation(
    split: Split, recipe: AttentiveRecipe, options: AttentiveOptions
) -> ValidationSplit | None:
    """Check the tokens of all stores; return the rows that choose between several rates."""
    for store in (split.train.store, split.test.store):
        recipe.heads_of(check_tokens(store))
    if len(options.lr) < 2:
        return None
    if options.select_split is not None:
        check_tokens(options.select_split)
    permitted = permitted_differences(recipe.protocol)
    return validation_split(split, options, recipe.seed, permitted)


def _planned(
    split: Split,
    recipe: AttentiveRecipe,
    options: AttentiveOptions,
    validation: ValidationSplit | None,
) -> AttentiveProbeResult:
    """Return the part of the result that is known before the work."""
    protocol = {
        **recipe.to_json(),
        "seeds": options.seeds,
        "lr_choices": list(options.lr) if validation else None,
        "choosing": validation.to_json() if validation else None,
    }
    return probe_result(AttentiveProbeResult, split, REPRESENTATION, protocol, {}, {}, {})


def _states(
    results: Path, planned: AttentiveProbeResult, device: torch.device, resume: bool
) -> dict[str, Checkpoint]:
    """Return the state file of each stage; its key names features, kind of device and torch.

    Remove the states of an earlier run unless `resume`.
    """
    features = [store.checksum for store in planned.stores_by_role.values()]
    states = {}
    for stage in (CHOOSING, TRAINING):
        path = planned.path(results).with_suffix(f".{stage}.state")
        key = digest([planned.digest, features, stage, device.type, versions()["torch"]])
        states[stage] = Checkpoint(path, key)
        if not resume:
            states[stage].remove()
    return states


def _train(
    split: Split,
    recipe: AttentiveRecipe,
    seeds: Sequence[int],
    memory: float,
    device: torch.device,
    state: Checkpoint,
    progress: Progress,
) -> Trained:
    monitored = recipe.reported == BEST_ON_TEST
    train = Tokens(split.train, device, memory=memory)
    # Test rows that are read after every epoch share the memory with the training rows.
    left = memory - train.patches.row_bytes * len(train)
    test = Tokens(split.test, device, memory=max(left, 0) if monitored else 0)
    return train_heads(
        train,
        test,
        len(split.classes),
        [Candidate(seed, recipe.lr) for seed in seeds],
        recipe,
        device=device,
        best_on_test=monitored,
        checkpoint=state,
        progress=progress,
        title="training an attentive head" + (f" for {len(seeds)} seeds" if seeds[1:] else ""),
    )


def _record(
    results: Path,
    planned: AttentiveProbeResult,
    split: Split,
    recipe: AttentiveRecipe,
    validation: ValidationSplit | None,
    sweep: pl.DataFrame | None,
    trained: Trained,
    memory: float,
    device: str,
) -> AttentiveResult:
    """Score the heads on the test rows; write result, heads and curves."""
    predicted = list(trained.predicted.numpy())  # (n,) each
    last = list(trained.last_predicted.numpy()) if recipe.reported == BEST_ON_TEST else None
    report = ClassificationScorer(split).report(predicted, last)
    chosen = None
    if validation is not None and sweep is not None:
        chosen = {**validation.to_json(), "candidates": sweep.to_dicts()}
    patches = Stream(split.train.store, PATCH, split.train.rows, memory=memory)
    order = recipe.order
    buffer_rows = -(-order.buffer_rows // order.block_rows) * order.block_rows  # whole blocks
    held_bytes = patches.held_bytes(min(buffer_rows, len(patches)))
    details = {
        "device": device,
        "lr": recipe.lr,
        "chosen": chosen,
        "memory": {"kept": patches.is_kept, "bytes": held_bytes},
        "epochs": trained.epoch.tolist(),
        "train_accuracy": [round(float(accuracy), 6) for accuracy in trained.accuracy[-1]],
        "train_loss": [round(float(loss), 6) for loss in trained.loss[-1]],
        "resumed_after_epoch": trained.resumed or None,
        "confusion": report.confusion.tolist(),
        "per_class": report.per_class,
    }
    result = replace(planned, scores=report.scores, details=details)
    heads = tuple(split_heads(trained.heads, split.classes, split.train.store))
    save = partial(save_attentive_heads, heads=heads)
    files = write_probe(results, result, save, _learning_curves(trained, recipe))
    return AttentiveResult(
        confusion=report.confusion,
        split=split,
        result=result,
        files=files,
        recipe=recipe,
        heads=heads,
        trained=trained,
        sweep=sweep,
    )


def _learning_curves(trained: Trained, recipe: AttentiveRecipe) -> pl.DataFrame:
    """Return a row for each head and epoch: training metrics are means over the epoch's rows."""
    epochs, n_heads = trained.loss.shape
    return pl.concat(
        pl.DataFrame(
            {
                "lr": np.full(epochs, recipe.lr),
                "seed": np.full(epochs, recipe.seed + index),
                "epoch": np.arange(1, epochs + 1),
                "train_loss": trained.loss[:, index].numpy(),
                "train_accuracy": trained.accuracy[:, index].numpy(),
                "test_accuracy": trained.test_accuracy[:, index].numpy(),
            }
        )
        for index in range(n_heads)
    )
