"""Choose the learning rate of an attentive head on validation rows."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import torch

from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.attentive.tokens import Tokens
from pa.probe.attentive.train import Candidate, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.validation import ValidationSplit, mark_best
from pa.progress import Progress


def choose_rate(
    validation: ValidationSplit,
    n_classes: int,
    candidates: Sequence[Candidate],
    recipe: AttentiveRecipe,
    *,
    device: torch.device,
    memory: float,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> pl.DataFrame:
    """Train all candidates together and return the sweep results, the chosen rate marked.

    A row for each candidate: lr, seed, accuracy and loss on the validation rows, diverged (epoch or
    null), chosen. Raise `UsageError` where every rate diverged for a seed.
    """
    n_rates = len({candidate.lr for candidate in candidates})
    trained = train_heads(
        Tokens(validation.fit, device, memory=memory),
        Tokens(validation.score, device),
        n_classes,
        candidates,
        recipe,
        device=device,
        tolerant=True,
        checkpoint=checkpoint,
        progress=progress,
        title=f"choosing between {n_rates} learning rates, {len(candidates)} heads",
    )
    epochs, losses = trained.diverged.tolist(), trained.test_loss.tolist()
    correct = trained.predicted.numpy() == validation.score.targets  # (H, n)
    accuracies = correct.mean(1).tolist()
    sweep = pl.DataFrame(
        {
            "lr": [candidate.lr for candidate in candidates],
            "seed": [candidate.seed for candidate in candidates],
            "accuracy": [None if e else v for e, v in zip(epochs, accuracies, strict=True)],
            "loss": [None if e else v for e, v in zip(epochs, losses, strict=True)],
            "diverged": [epoch or None for epoch in epochs],
        },
        schema_overrides={"accuracy": pl.Float64, "loss": pl.Float64, "diverged": pl.Int64},
    )
    return mark_best(sweep, ["lr"])
