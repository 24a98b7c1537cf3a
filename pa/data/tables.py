"""Tables as atomic Parquet files."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from pa.data.files import replacing


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table. Raise `StorageError` without space or permission."""
    data = parquet_bytes(table)  # in memory first: the errors of polars on a full disk differ
    with replacing(path) as partial:
        partial.write_bytes(data)


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    return data.getvalue()
