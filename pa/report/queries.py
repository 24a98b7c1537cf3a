"""The table with the scores of a retrieval's queries, stored with the result."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from pa.evaluate.results import ResultFile

State = Literal["intact", "missing", "damaged", "not stored"]  # of a result's table
KEYS = ["row", "image", "label"]  # equal keys: the same queries, which can be paired
SCORE, INFLUENCE = "ap", "influence"


def table_of(path: Path) -> Path:
    """Return the path of the table of the result at `path`."""
    return path.with_suffix(".parquet")


def read_queries(table: Path) -> pl.DataFrame:
    """Return columns `row`, `image`, `label`, `ap` (a fraction, NaN without a score), `influence`.

    Raise `OSError` or an error of polars for a file that is not such a table.
    """
    scores = pl.read_parquet(table, columns=[*KEYS, SCORE, INFLUENCE], glob=False)
    return scores.with_columns(pl.col(SCORE).fill_null(float("nan")))


def check(file: ResultFile) -> tuple[State, str | None]:
    """Return the state of the table of a retrieval result and what is wrong with it, or None."""
    table = table_of(file.path)
    if not table.exists():
        return "missing", None
    try:
        reason = file.companion_difference(table)
    except OSError as error:
        reason = f"it cannot be read ({error})"
    if reason is None:
        return "intact", None
    return "damaged", (
        f"{reason}. The result itself is intact, and claims use an unpaired interval. Score again "
        f"with `pa evaluate retrieval`, or remove all damaged files with `pa verify --repair`."
    )
