"""`pa probe attentive`: train, score and record attentive heads on stored tokens.

Shapes: n test rows, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from pa.data.store.reader import Store
from pa.data.store.spec import digest
from pa.data.store.stream import Stream
from pa.errors import UsageError
from pa.evaluate.results import AttentiveProbeResult, versions
from pa.probe.attentive.choice import choose_rate
from pa.probe.attentive.head import AttentiveHead, save_attentive_heads, split_heads
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.tokens import PATCH, REPRESENTATION, Tokens, check_tokens
from pa.probe.attentive.train import Candidate, Trained, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.optim import torch_device
from pa.probe.recipes import BEST_ON_TEST, permitted_differences
from pa.probe.recording import TrainedProbe, probe_result, write_probe
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import Split, SplitOptions, split_rows
from pa.probe.validation import SELECT_FRACTION, ValidationSplit, validation_split
from pa.progress import Progress, Silent, Stopwatch

TASK = AttentiveProbeResult.task
MEMORY = 2e9  # bytes of patch tokens: leaves room for torch on a machine with 8 GB
CHOOSING, TRAINING = "choosing", "training"  # stages with a state file of their own

ALL_ROWS = SplitOptions()


@dataclass(frozen=True)
class AttentiveOptions:
    """Options beyond one head of one recipe.

    Parameters
    ----------
    seeds
        Number of heads, with the recipe's seed and the following ones; their mean is reported.
    lr
        Learning rates to choose from; a single one is used as it is.
    select_split
        Store whose rows choose; None holds out a share of the training images.
    select_fraction
        The share.
    memory
        Bytes of patch tokens to keep in memory; more are streamed, with the same result.
    resume
        Resume a killed run.
    """

    seeds: int = 1
    lr: tuple[float, ...] = ()
    select_split: Store | None = None
    select_fraction: float = SELECT_FRACTION
    memory: float = MEMORY
    resume: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"the number of seeds must be 1 or more, not {self.seeds}.")
        if len(set(self.lr)) < len(self.lr) or not all(rate > 0 for rate in self.lr):
            raise UsageError(f"learning rates must be positive and different: {list(self.lr)}.")
        if self.memory < 0:
            raise UsageError(f"memory for features must not be negative: {self.memory:g} bytes.")


@dataclass(frozen=True, eq=False)
class AttentiveResult(TrainedProbe):
    """A scored run: its heads, how they were `trained`, and the sweep results of `choose_rate`."""

    recipe: AttentiveRecipe
    heads: tuple[AttentiveHead, ...]
    trained: Trained
    sweep: pl.DataFrame | None


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
    permitted = permitted_differences(recipe.protocol)
    split = split_rows(train, test, split_options, permitted)
    for store in (train, split.test.store):
        recipe.heads_of(check_tokens(store))
    validation = None
    if len(options.lr) > 1:
        if options.select_split is not None:
            check_tokens(options.select_split)
        validation = validation_split(
            split, options.select_split, options.select_fraction, recipe.seed, permitted
        )
    clock.lap("rows")
    # The names of the result and of the state files are fixed before the training.
    planned = _planned(split, recipe, options, validation)
    stages = _Stages(results, planned, options, torch_device(device), progress)
    sweep = None
    if validation is not None:
        sweep = stages.choose(validation, len(split.classes), recipe)
        recipe = replace(recipe, lr=sweep.filter("chosen")["lr"][0])
        clock.lap("choose")
    trained = stages.train(split, recipe)
    clock.lap("train")

    scorer = ClassificationScorer(split)
    predicted = list(trained.predicted.numpy())
    scores, confusion = scorer.score(predicted), scorer.confusion(predicted)
    reported, last_epoch = {"accuracy": scores}, None
    if recipe.reported == BEST_ON_TEST:
        last_epoch = scorer.score(list(trained.last_predicted.numpy()))
        reported["accuracy_last_epoch"] = last_epoch
    chosen = None
    if validation is not None and sweep is not None:
        chosen = {**validation.to_json(), "candidates": sweep.to_dicts()}
    result = replace(
        planned,
        scores=reported,
        seconds=clock.laps,
        details={
            "device": device,
            "lr": recipe.lr,
            "chosen": chosen,
            "memory": _memory(split, recipe, options),
            "epochs": trained.epoch.tolist(),
            "train_accuracy": [round(float(share), 6) for share in trained.accuracy[-1]],
            "train_loss": [round(float(loss), 6) for loss in trained.loss[-1]],
            "resumed_after_epoch": trained.resumed or None,
            "confusion": confusion.tolist(),
            "per_class": scorer.per_class(confusion),
        },
    )
    heads = tuple(split_heads(trained.heads, split.classes, train))
    curves = _learning_curves(trained, recipe.lr, _seeds(recipe, options))
    files = write_probe(results, result, partial(save_attentive_heads, heads=heads), curves)
    for stage in (CHOOSING, TRAINING):
        stages.checkpoint(stage).remove()
    return AttentiveResult(
        scores=scores,
        last_epoch=last_epoch,
        confusion=confusion,
        split=split,
        result=result,
        files=files,
        recipe=recipe,
        heads=heads,
        trained=trained,
        sweep=sweep,
    )


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


@dataclass(frozen=True, eq=False)
class _Stages:
    """The two stages of a run; each saves its state and resumes from it."""

    results: Path
    planned: AttentiveProbeResult
    options: AttentiveOptions
    device: torch.device
    progress: Progress

    def checkpoint(self, stage: str) -> Checkpoint:
        """Return the state file of a stage; its key names features, kind of device and torch."""
        path = self.planned.path(self.results).with_suffix(f".{stage}.state")
        features = [store.checksum for store in self.planned.stores_by_role.values()]
        key = digest([self.planned.digest, features, stage, self.device.type, versions()["torch"]])
        return Checkpoint(path, key)

    def _begin(self, stage: str) -> Checkpoint:
        checkpoint = self.checkpoint(stage)
        if not self.options.resume:
            checkpoint.remove()
        return checkpoint

    def choose(
        self, validation: ValidationSplit, n_classes: int, recipe: AttentiveRecipe
    ) -> pl.DataFrame:
        seeds = _seeds(recipe, self.options)
        return choose_rate(
            validation,
            n_classes,
            [Candidate(seed, lr) for lr in self.options.lr for seed in seeds],
            recipe,
            device=self.device,
            memory=self.options.memory,
            checkpoint=self._begin(CHOOSING),
            progress=self.progress,
        )

    def train(self, split: Split, recipe: AttentiveRecipe) -> Trained:
        monitored = recipe.reported == BEST_ON_TEST
        seeds = _seeds(recipe, self.options)
        train = Tokens(split.train, self.device, memory=self.options.memory)
        # Test rows that are read after every epoch share the memory with the training rows.
        left = self.options.memory - train.patches.row_bytes * len(train)
        test = Tokens(split.test, self.device, memory=max(left, 0) if monitored else 0)
        return train_heads(
            train,
            test,
            len(split.classes),
            [Candidate(seed, recipe.lr) for seed in seeds],
            recipe,
            device=self.device,
            best_on_test=monitored,
            checkpoint=self._begin(TRAINING),
            progress=self.progress,
            title="training an attentive head" + (f" for {len(seeds)} seeds" if seeds[1:] else ""),
        )


def _seeds(recipe: AttentiveRecipe, options: AttentiveOptions) -> range:
    return range(recipe.seed, recipe.seed + options.seeds)


def _learning_curves(trained: Trained, lr: float, seeds: Sequence[int]) -> pl.DataFrame:
    """Return a row for each head and epoch: training metrics are means over the epoch's rows."""
    epochs = len(trained.loss)
    return pl.concat(
        pl.DataFrame(
            {
                "lr": np.full(epochs, lr),
                "seed": np.full(epochs, seed),
                "epoch": np.arange(1, epochs + 1),
                "train_loss": trained.loss[:, index].numpy(),
                "train_accuracy": trained.accuracy[:, index].numpy(),
                "test_accuracy": trained.test_accuracy[:, index].numpy(),
            }
        )
        for index, seed in enumerate(seeds)
    )


def _memory(split: Split, recipe: AttentiveRecipe, options: AttentiveOptions) -> dict[str, Any]:
    """Return whether the training rows' patch tokens are in memory, and the bytes they take."""
    train = Stream(split.train.store, PATCH, split.train.rows, memory=options.memory)
    order = recipe.order
    buffer_rows = -(-order.buffer_rows // order.block_rows) * order.block_rows  # whole blocks
    return {"kept": train.is_kept, "bytes": train.held_bytes(min(buffer_rows, len(train)))}
