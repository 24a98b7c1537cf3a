"""`pa probe linear --shots`: linear heads trained on a few regions of each class.

Shapes: N training rows, n test rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.errors import UsageError
from pa.evaluate.result_files import write_result
from pa.evaluate.results import FewShotProbeResult
from pa.probe.holdout import some_names
from pa.probe.linear.run import LinearOptions
from pa.probe.linear.train import finite_heads, train_stack
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.recording import ClassificationScorer, ScoredProbe, probe_result
from pa.probe.selection import ProbeStores, Split
from pa.probe.training import Candidate, TrainedHead
from pa.progress import Progress, Silent, Stopwatch

Ints = npt.NDArray[np.int64]


def run_fewshot(
    stores: ProbeStores,
    options: LinearOptions | None = None,
    *,
    shots: Sequence[int],
    draws: int,
    results: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ScoredProbe:
    """Train on `shots` regions of each class, `draws` times each, and score all test rows.

    Draw i uses the recipe's seed + i for the regions, the initial weights and the order of rows.
    The regions of fewer shots are a subset of those of more. Of the options, recipe and
    representation count. Raise `UsageError` for a class with too few regions and for a head that
    diverges, and what `run_linear` raises.
    """
    options, progress = options or LinearOptions(), progress or Silent()
    recipe, representation = options.recipe, options.representation
    protocol = recipe.to_json()
    clock = Stopwatch()
    split = stores.split(recipe.protocol)
    _check(split, shots, draws)
    rows, test_rows = split.train.read(representation), split.test.read(representation)
    scorer = ClassificationScorer(split)
    clock.lap("read")
    scores = {}
    for n in shots:
        heads: list[TrainedHead] = []
        for seed in range(recipe.seed, recipe.seed + draws):
            few = rows.part(draw_shots(rows.targets, rows.images, n, seed))
            trained = train_stack(
                {representation: (few, test_rows)}.__getitem__,
                [Candidate(representation, recipe.lr, recipe.weight_decay, seed)],
                recipe,
                monitored=recipe.reported == BEST_ON_TEST,
                device=device,
                progress=progress,
                title=f"{n} shots, draw {seed - recipe.seed + 1} of {draws}",
            )
            heads += finite_heads(trained, recipe)
        scores[n] = scorer.score([head.predicted for head in heads], of_draws=True)
    clock.lap("train")
    result = probe_result(
        FewShotProbeResult,
        split,
        representation,
        {**protocol, "shots": list(shots), "draws": draws},
        {f"shots={n}": of_shots for n, of_shots in scores.items()},
        clock.laps,
        {"device": device},
    )
    return ScoredProbe(scores, split, result, write_result(results, result))


def draw_shots(targets: Ints, images: Ints, shots: int, seed: int) -> Ints:
    """Draw `shots` positions of each class, sorted, from rows with these classes and images (N,).

    A class's rows come from as many images as possible; an image gives a second row only when every
    image has given one. Equal seeds give nested draws.
    """
    drawn = []
    for index in range(int(targets.max()) + 1):
        positions = np.flatnonzero(targets == index)  # of the rows of one class
        positions = np.random.default_rng([seed, index]).permutation(positions)
        # Rows are ranked by how many earlier rows have the same image: 0 for the first of each.
        table = pl.DataFrame({"image": images[positions]})
        earlier = table.select(pl.int_range(pl.len()).over("image")).to_series().to_numpy()
        order = np.argsort(earlier, kind="stable")
        drawn.append(positions[order][:shots])
    return np.sort(np.concatenate(drawn))


def _check(split: Split, shots: Sequence[int], draws: int) -> None:
    if not shots or min(shots) < 1 or draws < 1:
        raise UsageError(
            f"shots and draws must be 1 or more, not {', '.join(map(str, shots)) or 'none'} and "
            f"{draws}."
        )
    counts = np.bincount(split.train.targets, minlength=len(split.classes))
    short = [name for name, n in zip(split.classes, counts, strict=True) if n < max(shots)]
    if short:
        raise UsageError(
            f"{max(shots)} shots need as many training rows of each class; fewer have: "
            f"{some_names(short)} (the fewest {counts.min()}). Give fewer --shots."
        )
