"""The queries of a figure of neighbours: rows, regions of named images, or the released code's."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from pa.data.store.reader import Store
from pa.errors import AmbiguousError, MissingError, OutOfRangeError, UsageError

# Queries drawn by the released code (pr_patch_retrieval_imagenet_vis.py): an image of the ImageNet
# validation set and a window, row by row from 0.
RELEASED_QUERIES = ("val_00013660:19", "val_00018569:39", "val_00001412:16")


def query_row(store: Store, query: str) -> int:
    """Return the row of a query: a row id, or NAME:REGION with a unique part of an image's path.

    Raise `MissingError` if no image has such a path, `AmbiguousError` if several do, and
    `OutOfRangeError` for a region that the image does not have.
    """
    if re.fullmatch(r"\d+", query):
        return int(query)
    # From the right: a path may contain a colon.
    name, _, number = query.rpartition(":")
    if not name or not number.isdigit():
        raise UsageError(
            f"--query {query!r}: expected a row id, or NAME:REGION with the number of a region "
            f"from 0, such as val_00013660:19."
        )
    rows = store.rows.filter(pl.col("path").str.contains(name, literal=True))
    paths = rows["path"].unique(maintain_order=True).to_list()
    if not paths:
        raise MissingError(
            f"--query {query}: no image of {store.title} has {name!r} in its path; a path looks "
            f"like {store.rows['path'][0]}. Choose another with --query."
        )
    if len(paths) > 1:
        raise AmbiguousError(
            f"--query {query}: {len(paths)} images have {name!r} in their path, such as "
            f"{paths[0]} and {paths[1]}. Give a longer part of one."
        )
    if int(number) >= len(rows):
        raise OutOfRangeError(
            f"--query {query}: {paths[0]} has {len(rows)} regions, 0 to {len(rows) - 1}."
        )
    # Rows of an image are in the order of its regions.
    return int(rows["row"][int(number)])


def default_queries(store: Store, examples: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the queries of the released code, or those numbered from 1 in `examples`, and notes.

    If an image is not in the store, the middle window of another image replaces it, with a note.
    These images are spread evenly over the store: at 1/6, 3/6 and 5/6.
    """
    n = len(RELEASED_QUERIES)
    if unknown := [number for number in examples if not 1 <= number <= n]:
        raise OutOfRangeError(f"--example {unknown[0]}: the default queries are 1 to {n}.")
    queries, notes = [], []
    for number in examples or range(1, n + 1):
        released = RELEASED_QUERIES[number - 1]
        if _released_row(store, released) is not None:
            queries.append(released)
            continue
        images = store.rows["path"].unique(maintain_order=True)
        path = images[int(len(images) * (2 * number - 1) / (2 * n))]
        rows = store.rows.filter(pl.col("path") == path)["row"]
        # The middle window of a grid: objects of ImageNet are mostly in the centre.
        queries.append(str(rows[len(rows) // 2]))
        notes.append(
            f"the image of {released}, a query of the released code, is not in {store.title}: "
            f"using the middle of {path}, row {queries[-1]}. Choose another with --query."
        )
    return queries, notes


def note(store: Store, rows: Sequence[int]) -> str:
    """Return a sentence if some of the queries are not of the released code."""
    released = {_released_row(store, query) for query in RELEASED_QUERIES}
    if not (others := sum(row not in released for row in rows)):
        return ""
    subject = "The query is" if len(rows) == 1 else f"{others} of these queries are"
    return f"{subject} not of the released code."


def _released_row(store: Store, query: str) -> int | None:
    try:
        return query_row(store, query)
    except MissingError:  # the store holds other images
        return None
