"""Choose representation, learning rate and weight decay of a linear head on validation rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.train import Grid, finite_heads, train_stack
from pa.probe.validation import ValidationSplit, mark_best, rank_settings
from pa.progress import Progress

SETTING = ("representation", "lr", "weight_decay")
SCHEMA: dict[str, Any] = {
    "representation": pl.String,
    "lr": pl.Float64,
    "weight_decay": pl.Float64,
    "seed": pl.Int64,
    "rate": pl.Float64,  # of a step
    "accuracy": pl.Float64,  # on the validation rows
    "loss": pl.Float64,
    "train_loss": pl.Float64,  # of the last epoch
    "diverged": pl.Int64,  # epoch, from 1
}


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen setting, and the results of all candidates."""

    representation: str
    lr: float
    weight_decay: float
    grid: Grid
    validation: ValidationSplit
    sweep: pl.DataFrame  # `SCHEMA` and the column chosen, a row for each candidate

    def settings(self) -> pl.DataFrame:
        """Summarise the candidates of each setting over their seeds, the best setting first."""
        return rank_settings(self.sweep, SETTING)

    def protocol(self) -> dict[str, Any]:
        """Return the values chosen from and the rows that chose, for the protocol of the result."""
        return {
            "by": self.validation.rule,
            "store": self.validation.score.store.fingerprint,
            "fraction": self.validation.fraction,
            "representation": self.grid.representation,
            "lr": self.grid.lr,
            "weight_decay": self.grid.weight_decay,
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "representation": self.representation,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "by": self.validation.to_json(),
            "candidates": self.settings().to_dicts(),
        }


def choose(
    validation: ValidationSplit,
    grid: Grid,
    recipe: LinearRecipe,
    *,
    device: str,
    progress: Progress,
) -> Choice:
    """Train every candidate and choose a setting of which no seed diverged.

    Raise `UsageError` where every setting diverges.
    """
    heads = train_stack(
        validation.read,
        grid.candidates(),
        recipe,
        monitored=False,
        device=device,
        progress=progress,
        title=f"sweeping {grid.n_settings * len(grid.seeds)} linear heads",
    )
    finite_heads(heads, recipe)
    rows = []
    for head in heads:
        lost = head.diverged is not None
        accuracy = float((head.predicted == validation.score.targets).mean())
        rows.append(
            {
                **asdict(head.candidate),
                "rate": recipe.peak(head.candidate.lr),
                "accuracy": None if lost else accuracy,
                "loss": None if lost else head.test_loss,
                "train_loss": None if lost else float(head.train_loss[-1]),
                "diverged": head.diverged,
            }
        )
    sweep = mark_best(pl.DataFrame(rows, SCHEMA), SETTING)
    best = sweep.filter("chosen").row(0, named=True)
    chosen = {name: best[name] for name in SETTING}
    return Choice(**chosen, grid=grid, validation=validation, sweep=sweep)
