"""`pa probe attentive`: which rows, which learning rate, the scores, and the files.

Shapes: n test rows, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from pa.data.store.reader import Store
from pa.data.store.spec import digest
from pa.data.store.stream import Stream
from pa.errors import UsageError
from pa.evaluate.classification import Scores, per_class_accuracy
from pa.evaluate.results import Result, describe_store, versions, write_result
from pa.probe.attentive.choice import choice_json, choose_rate, choosing_rows
from pa.probe.attentive.head import AttentiveHead, save_attentive_heads, split_heads
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.tokens import PATCH, REPRESENTATION, Tokens, check_tokens
from pa.probe.attentive.train import Candidate, Trained, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.linear.sweep import find_device
from pa.probe.recipes import BEST_ON_TEST, permitted_differences
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import Split, SplitOptions, split_rows
from pa.probe.tables import write_table
from pa.probe.validation import ValidationSplit
from pa.progress import Progress, Silent, Stopwatch

TASK = "probe-attentive"
MEMORY = 2e9  # bytes
CHOOSING, TRAINING = "choosing", "training"  # stages that leave a state when they are killed

ANY_ROWS = SplitOptions()


@dataclass(frozen=True)
class AttentiveOptions:
    """What goes beyond one head of one recipe.

    seeds: how many heads, of the recipe's seed and the following ones; their mean is reported.
    lr: rates to choose from; one or none chooses nothing.
    select_split: the store whose rows choose; None = a part of the training images held out.
    select_fraction: how large a part.
    memory: bytes of patch tokens that may be kept in memory; more are streamed, to the same result.
    resume: go on with a run that was killed.
    """

    seeds: int = 1
    lr: tuple[float, ...] = ()
    select_split: Store | None = None
    select_fraction: float = 0.2
    memory: float = MEMORY
    resume: bool = True

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError(f"the number of seeds must be 1 or more, not {self.seeds}.")
        if len(set(self.lr)) < len(self.lr) or not all(rate > 0 for rate in self.lr):
            raise UsageError(f"learning rates must be positive and different: {list(self.lr)}.")
        if self.memory < 0:
            raise UsageError(f"memory for features must not be negative: {self.memory:g} bytes.")


@dataclass(frozen=True)
class Files:
    """What a run wrote: the result, the heads of all seeds, the learning curves."""

    result: Path
    heads: Path
    curves: Path


@dataclass(frozen=True, eq=False)
class AttentiveResult:
    """One scored run.

    `scores` of all seeds on the test rows; `confusion` (C, C), true class by predicted class,
    summed over the seeds; the `heads`, how they were `trained`, and the files that were written.
    `surface` has a row for each candidate of a choice between learning rates: lr, seed, accuracy
    and loss on the rows that chose, diverged (epoch or null), chosen; None where none was chosen.
    """

    scores: Scores
    confusion: npt.NDArray[np.int64]
    heads: tuple[AttentiveHead, ...]
    trained: Trained
    surface: pl.DataFrame | None
    recipe: AttentiveRecipe
    split: Split
    result: Result
    files: Files

    @property
    def result_path(self) -> Path:
        return self.files.result

    @property
    def head_path(self) -> Path:
        return self.files.heads


def run_attentive(
    train: Store,
    test: Store | None = None,
    *,
    results: Path,
    options: SplitOptions = ANY_ROWS,
    recipe: AttentiveRecipe = PAPER,
    extras: AttentiveOptions | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AttentiveResult:
    """Train attentive heads on stored tokens, score them, and write result, heads and curves.

    `test` is the store of the test split; without it, `options` says which rows of `train` are
    tested. Of several learning rates one is chosen first, by other rows than the test rows; then
    the heads are trained on all training rows. The state of training lies beside the result until
    that is written. The same call replaces its own files. Raises what `split_rows`, `check_tokens`
    and `train_heads` raise, and `StorageError`.
    """
    extras, progress = extras or AttentiveOptions(), progress or Silent()
    if len(extras.lr) == 1:
        recipe = replace(recipe, lr=extras.lr[0])
    recipe.to_json()  # an unknown protocol fails before the work, not after it
    clock = Stopwatch()
    permitted = permitted_differences(recipe.protocol)
    split = split_rows(train, test, options, permitted)
    for store in (train, split.test.store):
        recipe.heads_of(check_tokens(store))
    validation = None
    if len(extras.lr) > 1:
        validation = choosing_rows(
            split, extras.select_split, extras.select_fraction, recipe.seed, permitted
        )
    clock.lap("rows")
    # Where the result will lie, and whose state a killed run left, is settled before the training.
    planned = _planned(train, split, recipe, extras, validation)
    work = _Work(results, planned, extras, find_device(device), progress)
    surface = None
    if validation is not None:
        surface = _choose(work, validation, len(split.classes), recipe)
        recipe = replace(recipe, lr=surface.filter("chosen")["lr"][0])
        clock.lap("choose")
    trained = _train(work, split, recipe)
    clock.lap("train")
    scorer = ClassificationScorer(split)
    predicted = list(trained.predicted.numpy())
    scores, confusion = scorer.score(predicted), scorer.confusion(predicted)
    reported = {"accuracy": scores.to_json()}
    if recipe.reported == BEST_ON_TEST:
        last = list(trained.last_predicted.numpy())
        reported["accuracy_last_epoch"] = scorer.score(last).to_json()
    result = replace(
        planned,
        scores=reported,
        seconds=clock.laps,
        details={
            "device": device,
            "lr": recipe.lr,
            "chosen": choice_json(validation, surface),
            "memory": _memory(split, recipe, extras),
            **_details(trained, split, confusion),
        },
    )
    heads = tuple(split_heads(trained.heads, split.classes, train))
    curves = _curves(trained, recipe.lr, _seeds(recipe, extras))
    return AttentiveResult(
        scores=scores,
        confusion=confusion,
        heads=heads,
        trained=trained,
        surface=surface,
        recipe=recipe,
        split=split,
        result=result,
        files=_write(work, result, heads, curves),
    )


def _planned(
    train: Store,
    split: Split,
    recipe: AttentiveRecipe,
    extras: AttentiveOptions,
    validation: ValidationSplit | None,
) -> Result:
    """The result as far as it is known before the work."""
    chosen = {
        "seeds": extras.seeds,
        "lr_choices": list(extras.lr) if validation else None,
        "choosing": validation.to_json() if validation else None,
    }
    return Result(
        task=TASK,
        protocol={**recipe.to_json(), **chosen},
        stores={"train": describe_store(train), "test": describe_store(split.test.store)},
        representation=REPRESENTATION,
        selection=split.to_json(),
        counts=split.counts(),
        scores={},
        seconds={},
    )


@dataclass(frozen=True, eq=False)
class _Work:
    results: Path
    planned: Result
    extras: AttentiveOptions
    device: torch.device
    progress: Progress

    def checkpoint(self, stage: str) -> Checkpoint:
        """The state of one stage of this run on this kind of device, by this version of torch."""
        path = self.planned.path(self.results).with_suffix(f".{stage}.state")
        features = [store["checksum"] for store in self.planned.stores.values()]
        key = digest([self.planned.digest, features, stage, self.device.type, versions()["torch"]])
        return Checkpoint(path, key)

    def begin(self, stage: str) -> Checkpoint:
        """The state of a stage; without what was there where the run shall not be resumed."""
        state = self.checkpoint(stage)
        if not self.extras.resume:
            state.remove()
        return state


def _choose(
    work: _Work, validation: ValidationSplit, n_classes: int, recipe: AttentiveRecipe
) -> pl.DataFrame:
    extras = work.extras
    return choose_rate(
        validation,
        n_classes,
        [Candidate(seed, lr) for lr in extras.lr for seed in _seeds(recipe, extras)],
        recipe,
        device=work.device,
        memory=extras.memory,
        checkpoint=work.begin(CHOOSING),
        progress=work.progress,
    )


def _train(work: _Work, split: Split, recipe: AttentiveRecipe) -> Trained:
    watched = recipe.reported == BEST_ON_TEST
    seeds = _seeds(recipe, work.extras)
    train = Tokens(split.train, work.device, memory=work.extras.memory)
    # Test rows that are read after every epoch get what the training rows leave.
    left = work.extras.memory - train.patches.row_bytes * len(train)
    test = Tokens(split.test, work.device, memory=max(left, 0) if watched else 0)
    return train_heads(
        train,
        test,
        len(split.classes),
        [Candidate(seed, recipe.lr) for seed in seeds],
        recipe,
        device=work.device,
        best_on_test=watched,
        checkpoint=work.begin(TRAINING),
        progress=work.progress,
        title="training an attentive head" + (f" for {len(seeds)} seeds" if seeds[1:] else ""),
    )


def _write(
    work: _Work, result: Result, heads: Sequence[AttentiveHead], curves: pl.DataFrame
) -> Files:
    """The result comes last: where it is, what it speaks of is too."""
    stem = result.path(work.results)
    files = Files(stem, stem.with_suffix(".safetensors"), stem.with_suffix(".curves.parquet"))
    save_attentive_heads(files.heads, heads)
    write_table(files.curves, curves)
    write_result(work.results, result)
    for stage in (CHOOSING, TRAINING):
        work.checkpoint(stage).remove()
    return files


def _seeds(recipe: AttentiveRecipe, extras: AttentiveOptions) -> range:
    return range(recipe.seed, recipe.seed + extras.seeds)


def _curves(trained: Trained, lr: float, seeds: Sequence[int]) -> pl.DataFrame:
    """One row for each head and epoch: seed, lr, epoch (from 1), train_loss and train_accuracy
    (means over the epoch's rows), test_accuracy (after it, NaN where it is not watched)."""
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


def _memory(split: Split, recipe: AttentiveRecipe, extras: AttentiveOptions) -> dict[str, Any]:
    """Whether the training rows' patch tokens were kept, and bytes of them held at a time."""
    train = Stream(split.train.store, PATCH, split.train.rows, memory=extras.memory)
    rows = min(
        -(-recipe.order.buffer_rows // recipe.order.block_rows) * recipe.order.block_rows,
        len(train),
    )
    return {"kept": train.is_kept, "bytes": train.held_bytes(rows)}


def _details(trained: Trained, split: Split, confusion: npt.NDArray[np.int64]) -> dict[str, Any]:
    sizes = confusion.sum(axis=1)
    by_class = zip(split.classes, sizes, per_class_accuracy(confusion), strict=True)
    per_seed = len(trained.epoch)
    return {
        "epochs": trained.epoch.tolist(),
        "train_accuracy": [round(float(share), 6) for share in trained.accuracy[-1]],
        "train_loss": [round(float(loss), 6) for loss in trained.loss[-1]],
        "resumed_after_epoch": trained.resumed or None,
        "confusion": confusion.tolist(),
        "per_class": [
            # JSON has no NaN: a class without test rows has no accuracy.
            {"class": name, "n": int(n) // per_seed, "accuracy": float(share) if n else None}
            for name, n, share in by_class
        ],
    }
