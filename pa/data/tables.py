"""Tables as Parquet files, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from pa.data.files import replacing


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table. Raises `StorageError` where there is no space or no permission."""
    # Through memory: polars tells of a full disk in words of its own.
    data = parquet_bytes(table)
    with replacing(path) as partial:
        partial.write_bytes(data)


def parquet_bytes(table: pl.DataFrame) -> bytes:
    """A table as the bytes of a Parquet file."""
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    return data.getvalue()
