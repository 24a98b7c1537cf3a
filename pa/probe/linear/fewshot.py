"""`pa probe linear --shots`: how much a linear head learns from a few regions of each class.

Shapes: N training rows, n test rows, C classes.
"""

from __future__ import annotations

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
from pa.probe.holdout import some_names
from pa.probe.linear.recipes import PAPER, LinearRecipe
from pa.probe.linear.sweep import Candidate, TrainedHead, fixed, surviving, train_stack
from pa.probe.scoring import ClassificationScorer
from pa.probe.selection import LabelledRows, Split, SplitOptions, split_rows
from pa.progress import Progress, Silent, Stopwatch

TASK = "probe-fewshot"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FewShotResult:
    """Scores over the draws for each number of shots, the recipe, and the file written."""

    scores: dict[int, Scores]
    recipe: LinearRecipe
    split: Split
    result: Result
    result_path: Path


def run_fewshot(
    train: Store,
    test: Store | None = None,
    *,
    shots: Sequence[int],
    draws: int,
    results: Path,
    representation: str = "cls",
    options: SplitOptions | None = None,
    recipe: LinearRecipe = PAPER,
    permitted: Sequence[Difference] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> FewShotResult:
    """Train on `shots` regions of each class, `draws` times each, and score all test rows.

    Draw i has the recipe's seed + i, which fixes the regions, the first weights and the order; the
    regions of fewer shots are among those of more. Raises `UsageError` for a class with too few
    regions and for a head that diverges, what `split_rows` and `train_stack` raise, and
    `StorageError`.
    """
    protocol, progress = recipe.to_json(), progress or Silent()
    clock = Stopwatch()
    split = split_rows(train, test, options or SplitOptions(), permitted)
    _check(split, shots, draws)
    rows, held = split.train.read(representation), split.test.read(representation)
    scorer = ClassificationScorer(split)
    clock.lap("read")
    scores = {}
    for n in shots:
        heads: list[TrainedHead] = []
        for seed in range(recipe.seed, recipe.seed + draws):
            few = take(rows, draw_shots(rows.targets, rows.images, n, seed))
            heads += surviving(
                train_stack(
                    fixed({representation: (few, held)}),
                    [Candidate(representation, recipe.lr, recipe.weight_decay, seed)],
                    replace(recipe, seed=seed),
                    watch=recipe.reported != PAPER.reported,
                    device=device,
                    progress=progress,
                    title=f"{n} shots, draw {seed - recipe.seed + 1} of {draws}",
                ),
                recipe,
            )
        scores[n] = scorer.score([head.predicted for head in heads], of_draws=True)
    clock.lap("train")
    result = Result(
        task=TASK,
        protocol={**protocol, "shots": list(shots), "draws": draws},
        stores={"train": describe_store(train), "test": describe_store(split.test.store)},
        representation=representation,
        selection=split.to_json(),
        counts=split.counts(),
        scores={f"shots={n}": one.to_json() for n, one in scores.items()},
        seconds=clock.laps,
        details={"device": device},
    )
    return FewShotResult(scores, recipe, split, result, write_result(results, result))


def draw_shots(targets: Ints, images: Ints, shots: int, seed: int) -> Ints:
    """Draw `shots` places of each class, sorted, from rows with these class indices and images.

    A class's rows come from as many images as there are; an image gives a second row of it only
    when every image has given one. Equal seeds give nested draws. Raises nothing: the caller has
    counted.
    """
    chosen = []
    for index in range(int(targets.max()) + 1):
        places = np.flatnonzero(targets == index)
        places = np.random.default_rng([seed, index]).permutation(places)
        chosen.append(places[np.argsort(_turn(images[places]), kind="stable")][:shots])
    return np.sort(np.concatenate(chosen))


def _turn(images: Ints) -> Ints:
    """How many earlier rows have the same image, (n,)."""
    order = np.argsort(images, kind="stable")
    ordered = images[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[first, len(images)])
    turn = np.empty(len(images), dtype=np.int64)
    turn[order] = np.arange(len(images)) - np.repeat(first, lengths)
    return turn


def take(rows: LabelledRows, places: Ints) -> LabelledRows:
    """The rows at these places."""
    return LabelledRows(
        rows.features[places], rows.targets[places], rows.images[places], rows.rows[places]
    )


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
            f"{some_names(short)} (the least {counts.min()}). Give fewer --shots."
        )
