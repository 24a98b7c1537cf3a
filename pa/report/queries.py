"""The scores of a part retrieval's queries, beside its result: there, gone, or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl

from pa.data.seals import Seal
from pa.evaluate.sealing import torn_table

State = Literal["there", "gone", "damaged", "none kept"]
KEYS = ["row", "image", "label"]
SCORE = "ap"


def table_of(path: Path) -> Path:
    """Where the queries of the result at `path` lie."""
    return path.with_suffix(".parquet")


def read_queries(table: Path) -> pl.DataFrame:
    """Columns `row`, `image`, `label` and `ap`, a fraction; a query without a score is NaN.

    Raises `OSError` or polars' errors for what is no such table.
    """
    found = pl.read_parquet(table, columns=[*KEYS, SCORE], glob=False)
    return found.with_columns(pl.col(SCORE).fill_null(float("nan")))


def damage(table: Path, fields: Mapping[str, Any]) -> str | None:
    """What is wrong with the table of a result with these fields, or None.

    A sealed one must have the bytes that were written; one of an earlier version must be read, and
    hold as many scores as the result says.
    """
    try:
        return _damage(table, fields)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return f"it cannot be read as a table of scores ({str(error).partition(chr(10))[0]})"


def _damage(table: Path, fields: Mapping[str, Any]) -> str | None:
    entry = (fields.get("files") or {}).get(table.name)
    if entry is not None:
        return Seal(**entry).difference(table, full=True)
    if (torn := torn_table(table)) is not None:
        return torn
    scores, expected = read_queries(table)[SCORE], fields["scores"].get(SCORE, {}).get("n")
    n = len(scores) - int(scores.is_nan().sum())
    if expected is not None and n != expected:
        return f"it holds the scores of {n:,} queries, the result is of {expected:,}"
    return None
