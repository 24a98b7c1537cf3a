"""Tables as Parquet files, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl

from pa.data.files import replacing


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table. Raises `StorageError` where there is no space or no permission."""
    # Through memory: polars tells of a full disk in words of its own.
    data = io.BytesIO()
    table.write_parquet(data, compression="zstd")
    with replacing(path) as partial:
        partial.write_bytes(data.getbuffer())
