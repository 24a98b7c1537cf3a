"""The scores of a part retrieval's queries, beside its result: there, gone, or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pa.data.store.checksums import file_difference

State = Literal["there", "gone", "damaged", "none kept"]
KEYS = ["row", "image", "label"]
SCORE, INFLUENCE = "ap", "influence"


def table_of(path: Path) -> Path:
    """Where the queries of the result at `path` lie."""
    return path.with_suffix(".parquet")


def read_queries(table: Path) -> pl.DataFrame:
    """Columns `row`, `image`, `label`, `ap`, a fraction (NaN without a score), and `influence`.

    Raises `OSError` or polars' errors for what is no such table.
    """
    found = pl.read_parquet(table, columns=[*KEYS, SCORE, INFLUENCE], glob=False)
    return found.with_columns(pl.col(SCORE).fill_null(float("nan")))


def damage(table: Path, fields: Mapping[str, Any]) -> str | None:
    """What is wrong with the table of a result with these fields, or None."""
    try:
        return file_difference(table, fields["files"], full=True)
    except OSError as error:
        return f"it cannot be read ({error})"
