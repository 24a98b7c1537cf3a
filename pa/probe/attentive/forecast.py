"""What an attentive probe will take, reckoned from a few steps of the same code on this machine.

Shapes: N training rows, n test rows, m rows of the sample, L tokens, D width, C classes, H heads.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from pa.data.store.stream import Stream
from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.attentive.run import AttentiveOptions
from pa.probe.attentive.tokens import PATCH, Tokens, check_tokens
from pa.probe.attentive.train import Candidate, predict, train_heads
from pa.probe.forecast import (
    CELL_BYTES,
    CLASS_BYTES,
    EPOCH_BYTES,
    RESULT_BYTES,
    TABLE_BYTES,
    ProbeForecast,
    spread,
)
from pa.probe.linear.sweep import find_device
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.selection import Side, Split

SAMPLE_ROWS, SAMPLE_EPOCHS = 256, 2
MATRICES = 4  # (D, D): query, key, value, out
# Maps (B, L, D) in float32 of a step that are there at once: the tokens and their gradient, and of
# every head keys and values.
MAPS, HEAD_MAPS = 2, 2


def forecast_attentive(
    split: Split, recipe: AttentiveRecipe, extras: AttentiveOptions, device: str
) -> ProbeForecast:
    """Reckon one run: the choice of a learning rate, and the heads.

    Timed are two epochs on at most 256 training rows, after one that is not counted, and the
    predictions of as many test rows; reading the rows is in both. Steps on a sample that fits into
    the caches are a little faster than those of whole batches.
    """
    place = find_device(device)
    C, n, n_test = len(split.classes), len(split.train.rows), len(split.test.rows)
    width = check_tokens(split.train.store)
    few = split.train.part(spread(n, SAMPLE_ROWS)), split.test.part(spread(n_test, SAMPLE_ROWS))
    step, look = _rates(few, C, recipe, extras.seeds, place)
    watched = recipe.epochs if recipe.reported == BEST_ON_TEST else 1
    seconds = recipe.epochs * n * step + watched * n_test * look
    if len(extras.lr) > 1:
        seconds += len(extras.lr) * (recipe.epochs * n * step)
    patches = Stream(split.train.store, PATCH, split.train.rows, memory=extras.memory)
    heads = extras.seeds * max(1, len(extras.lr))
    batch = min(recipe.batch, n)
    tokens, _ = split.train.store.shape(PATCH)
    memory = patches.held_bytes(recipe.order.buffer_rows)
    memory += 2 * width * (n + n_test) + 4 * batch * tokens * width * (MAPS + HEAD_MAPS * heads)
    numbers = extras.seeds * (MATRICES * width * width + (C + 12) * width + C)
    n_bytes = RESULT_BYTES + CLASS_BYTES * C + CELL_BYTES * C * C + 4 * numbers
    n_bytes += TABLE_BYTES + EPOCH_BYTES * extras.seeds * recipe.epochs
    return ProbeForecast(3, n_bytes, memory, seconds)


def _rates(
    few: tuple[Side, Side],
    n_classes: int,
    recipe: AttentiveRecipe,
    seeds: int,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds for a training row of an epoch, and for a row that is predicted, of all seeds."""
    train, test = (Tokens(side, device, memory=0) for side in few)
    short = replace(recipe, warmup=0, batch=min(recipe.batch, len(train)))
    candidates = [Candidate(recipe.seed + i, recipe.lr) for i in range(seeds)]
    seconds = []
    for epochs in (1, SAMPLE_EPOCHS):
        once = replace(short, epochs=epochs)
        began = time.perf_counter()
        made = train_heads(train, test, n_classes, candidates, once, device=device)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    predict(made.heads, test, recipe, made.diverged)
    look = time.perf_counter() - began
    return max(seconds[1] - look, 0.0) / (SAMPLE_EPOCHS * len(train)), look / len(test)
