"""Write what a probe produced: heads, tables, and last the result that lists them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.files import replacing
from pa.evaluate.classification import Scores
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import (
    RecordedProtocol,
    SplitCounts,
    SplitSelection,
    StoreReference,
    TrainTest,
)
from pa.evaluate.results import ProbeResult
from pa.probe.selection import Split


@dataclass(frozen=True)
class ProbeFiles:
    """Files of a run that trained heads."""

    result: Path
    heads: Path  # of all seeds
    curves: Path  # learning curves
    sweep: Path | None = None  # sweep results


@dataclass(frozen=True, eq=False)
class TrainedProbe:
    """A scored run that trained heads."""

    confusion: npt.NDArray[np.int64]  # (C, C), true by predicted class, summed over the seeds
    split: Split
    result: ProbeResult
    files: ProbeFiles

    @property
    def scores(self) -> Scores:
        """Scores of all seeds on the test rows."""
        return self.result.scores["accuracy"]

    @property
    def last_epoch(self) -> Scores | None:
        """Scores of the last epoch, if another one is reported."""
        return self.result.scores.get("accuracy_last_epoch")

    @property
    def result_path(self) -> Path:
        return self.files.result

    @property
    def head_path(self) -> Path:
        return self.files.heads


P = TypeVar("P", bound=ProbeResult)


def probe_result(
    kind: type[P],
    split: Split,
    representation: str,
    protocol: dict[str, Any],
    scores: dict[str, Scores],
    seconds: dict[str, float],
    details: dict[str, Any],
) -> P:
    """Return the result of a probe on the rows of a split."""
    return kind(
        protocol=RecordedProtocol(protocol),
        stores=TrainTest(StoreReference.of(split.train.store), StoreReference.of(split.test.store)),
        representation=representation,
        selection=SplitSelection(**split.to_json()),
        counts=SplitCounts(**split.counts()),
        scores=scores,
        seconds=seconds,
        details=details,
    )


def write_probe(
    results: Path,
    result: ProbeResult,
    save_heads: Callable[[Path], None],
    curves: pl.DataFrame,
    sweep: pl.DataFrame | None = None,
) -> ProbeFiles:
    """Write heads and tables, then the result, so that it never lists missing files.

    Raise `StorageError`.
    """
    path = result.path(results)
    heads, curves_path = path.with_suffix(".safetensors"), path.with_suffix(".curves.parquet")
    sweep_path = path.with_suffix(".sweep.parquet") if sweep is not None else None
    save_heads(heads)
    _write_table(curves_path, curves)
    if sweep is not None and sweep_path is not None:
        _write_table(sweep_path, sweep)
    write_result(results, result)
    return ProbeFiles(path, heads, curves_path, sweep_path)


def _write_table(path: Path, table: pl.DataFrame) -> None:
    # Through memory: polars hides the error of a full disk.
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    with replacing(path) as partial:
        partial.write_bytes(data.getbuffer())
