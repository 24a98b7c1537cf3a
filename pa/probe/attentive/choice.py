"""Choose a learning rate, and never by the rows that are reported; see `pa.probe.linear.choice`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import torch

from pa.data.store.reader import Store
from pa.data.store.spec import Difference
from pa.errors import UsageError
from pa.probe.attentive.recipes import AttentiveRecipe
from pa.probe.attentive.tokens import Tokens, check_tokens
from pa.probe.attentive.train import Candidate, Trained, train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.selection import Split
from pa.probe.validation import ValidationSplit, hold_out_validation, validation_from_store
from pa.progress import Progress


def choosing_rows(
    split: Split,
    store: Store | None,
    fraction: float,
    seed: int,
    permitted: Sequence[Difference],
) -> ValidationSplit:
    """The rows that choose: those of `store`, or a part of the training images held out.

    Raises what `pa.probe.linear.choice.validation_from_store` and `hold_out_validation` raise.
    """
    if store is None:
        return hold_out_validation(split, fraction, seed)
    check_tokens(store)
    return validation_from_store(split, store, permitted)


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
    """Train all candidates together; a row for each, those of the chosen rate marked.

    The best mean accuracy over the seeds wins, the lower mean loss deciding between equals; a rate
    that diverged for a seed is not chosen. Raises `UsageError` where every rate diverged.
    """
    rates = list(dict.fromkeys(one.lr for one in candidates))
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
        title=f"choosing between {len(rates)} learning rates, {len(candidates)} heads",
    )
    surface = _surface(trained, candidates, validation)
    best = (
        surface.group_by("lr", maintain_order=True)
        .agg(pl.col("accuracy").mean(), pl.col("loss").mean(), pl.col("diverged").count())
        .filter(pl.col("diverged") == 0)
        .sort("accuracy", "loss", descending=[True, False], maintain_order=True)
    )
    if best.is_empty():
        raise UsageError(
            f"every learning rate of {', '.join(f'{lr:g}' for lr in rates)} diverged for one seed "
            f"or more. Lower them with --lr."
        )
    return surface.with_columns(chosen=pl.col("lr") == best["lr"][0])


def _surface(
    trained: Trained, candidates: Sequence[Candidate], validation: ValidationSplit
) -> pl.DataFrame:
    right = (trained.predicted.numpy() == validation.score.targets).mean(1).tolist()
    epochs, losses = trained.diverged.tolist(), trained.test_loss.tolist()
    return pl.DataFrame(
        {
            "lr": [one.lr for one in candidates],
            "seed": [one.seed for one in candidates],
            "accuracy": [None if e else v for e, v in zip(epochs, right, strict=True)],
            "loss": [None if e else v for e, v in zip(epochs, losses, strict=True)],
            "diverged": [e or None for e in epochs],
        },
        schema_overrides={"accuracy": pl.Float64, "loss": pl.Float64, "diverged": pl.Int64},
    )


def choice_json(
    validation: ValidationSplit | None, surface: pl.DataFrame | None
) -> dict[str, Any] | None:
    """What a result says of a choice; None where nothing was chosen."""
    if validation is None or surface is None:
        return None
    return {**validation.to_json(), "candidates": surface.to_dicts()}
