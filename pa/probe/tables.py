"""What a probe keeps beside its result, as Parquet: learning curves and the surface of a sweep."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from pa.data.files import replacing
from pa.probe.linear.sweep import TrainedHead


def learning_curves(heads: Sequence[TrainedHead]) -> pl.DataFrame:
    """One row for each head and epoch: seed, lr, weight_decay, representation, epoch (from 1),
    train_loss and train_accuracy (means over the epoch's steps), test_accuracy (after it)."""
    frames = []
    for head in heads:
        epochs, candidate = len(head.train_loss), head.candidate
        test = head.test_accuracy
        frames.append(
            pl.DataFrame(
                {
                    "representation": [candidate.representation] * epochs,
                    "lr": np.full(epochs, candidate.lr),
                    "weight_decay": np.full(epochs, candidate.weight_decay),
                    "seed": np.full(epochs, candidate.seed),
                    "epoch": np.arange(1, epochs + 1),
                    "train_loss": head.train_loss,
                    "train_accuracy": head.train_accuracy,
                    "test_accuracy": np.full(epochs, np.nan) if test is None else test,
                }
            )
        )
    return pl.concat(frames, how="vertical_relaxed")


def write_table(path: Path, table: pl.DataFrame) -> Path:
    """Write a table whole or not at all. Raises `StorageError`."""
    # Through memory: polars tells of a full disk in words of its own.
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    with replacing(path) as partial:
        partial.write_bytes(data.getbuffer())
    return path
