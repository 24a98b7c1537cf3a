"""What a linear probe will take, reckoned from a few epochs of the same code on this machine.

Shapes: N training rows, n test rows, m rows of the sample, D width, C classes, S seeds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.references import fit_reference
from pa.probe.linear.run import LinearOptions, wants_references
from pa.probe.linear.sweep import Candidate, fixed, train_stack
from pa.probe.selection import LabelledRows, Side, Split

SAMPLE_ROWS, SAMPLE_EPOCHS = 8192, 3
# Measured: a result with its versions and counts, of every class and of every cell of the
# confusion, and a table with the line of an epoch.
RESULT_BYTES, CLASS_BYTES, CELL_BYTES, TABLE_BYTES, EPOCH_BYTES = 3_500, 180, 7, 3_500, 30


@dataclass(frozen=True)
class ProbeForecast:
    """`files` and `bytes` of result, heads and tables, arrays in memory (`memory`), `seconds`."""

    files: int
    bytes: int
    memory: int
    seconds: float


def forecast_linear(
    split: Split, representation: str, recipe: LinearRecipe, extras: LinearOptions, device: str
) -> ProbeForecast:
    """Reckon one run: its sweep, its heads, and the references where they are fitted.

    Timed are reading the sample and three epochs on it, at most 8,192 rows of each side, for all
    heads that train together, and the references on the sample. A sweep chooses on rows held out of
    the training rows, and trains on the rest; it counts as if it trained on all.
    """
    C = len(split.classes)
    began = time.perf_counter()
    sample = _sample(split.train, representation), _sample(split.test, representation)
    rows = len(sample[0].rows) + len(sample[1].rows)
    read = (time.perf_counter() - began) / rows
    n, width = len(split.train.rows), sample[0].features.shape[1]
    n_all = n + len(split.test.rows)
    one = [Candidate(representation, recipe.lr, recipe.weight_decay, recipe.seed)]
    epoch = _epoch(sample, one, recipe, device) * n / len(sample[0].rows)
    seconds = n_all * read + extras.seeds * recipe.epochs * epoch
    if extras.grid is not None:
        grid = extras.grid
        stack = [
            Candidate(representation, lr, decay, recipe.seed)
            for lr in grid.lr
            for decay in grid.weight_decay
        ]
        each = _epoch(sample, stack, recipe, device) * n / len(sample[0].rows)
        groups = len(grid.representation) * len(grid.seeds)
        seconds += len(grid.representation) * n_all * read + groups * recipe.epochs * each
    memory = n_all * width * sample[0].features.itemsize
    if wants_references(extras, (n, width), split):
        began = time.perf_counter()
        train, test = sample
        pair = train.features, train.targets
        for name in ("ridge", "logistic"):
            fit_reference(name, pair, test.features, (pair, pair), C)
        seconds += (time.perf_counter() - began) * n / len(train.rows)
        memory += 8 * n_all * width  # in float64
    heads = extras.seeds * 4 * (C * width + C)
    lines = extras.seeds * recipe.epochs
    n_bytes = RESULT_BYTES + CLASS_BYTES * C + CELL_BYTES * C * C
    n_bytes += heads + TABLE_BYTES + EPOCH_BYTES * lines
    surface = extras.grid is not None
    if surface:
        n_bytes += TABLE_BYTES
    return ProbeForecast(3 + surface, n_bytes, memory, seconds)


def spread(n: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) bool: at most `most` places, evenly spread."""
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[np.linspace(0, n - 1, min(n, most)).astype(np.int64)] = True
    return chosen


def _sample(side: Side, representation: str) -> LabelledRows:
    return side.part(spread(len(side.rows), SAMPLE_ROWS)).read(representation)


def _epoch(
    sample: tuple[LabelledRows, LabelledRows],
    candidates: list[Candidate],
    recipe: LinearRecipe,
    device: str,
) -> float:
    """Seconds of an epoch on the sample: the mean of three, after one that is not counted."""
    train, test = sample
    # The classes are counted by the training targets: every test target must be among them.
    known = test.targets <= train.targets.max()
    test = LabelledRows(
        test.features[known], test.targets[known], test.images[known], test.rows[known]
    )
    representation = candidates[0].representation
    seconds = []
    for epochs in (1, SAMPLE_EPOCHS):
        few = replace(recipe, epochs=epochs, warmup=0)
        began = time.perf_counter()
        train_stack(fixed({representation: (train, test)}), candidates, few, device=device)
        seconds.append(time.perf_counter() - began)
    return seconds[1] / SAMPLE_EPOCHS
