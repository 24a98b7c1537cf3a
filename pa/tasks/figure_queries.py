"""The queries of `pa figure neighbours` and `projected`: named ones, or the released code's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from pa.config import Config
from pa.data.store.reader import Store
from pa.errors import AmbiguousError, MissingError, OutOfRangeError, UsageError
from pa.progress import Progress
from pa.tasks.choose import dataset_kind
from pa.tasks.figure_stores import PatchesRequest

# The queries that the released code draws (pr_patch_retrieval_imagenet_vis.py): image of the
# ImageNet validation set, and window, row by row from 0.
RELEASED_QUERIES = ("val_00013660:19", "val_00018569:39", "val_00001412:16")


def completed(
    config: Config,
    request: PatchesRequest,
    store: Store,
    representations: Sequence[str],
    progress: Progress,
) -> PatchesRequest:
    """With queries: the default ones where none is named."""
    queries = request.queries
    if queries and request.examples:
        raise UsageError("--example chooses among the default queries: not beside --query.")
    if not queries:
        if not has_default_queries(config, store):
            raise UsageError(
                "which query? Give --query ID, a row id, or --query NAME:REGION, a region of the "
                "image whose path contains NAME; several with commas."
            )
        queries = _default_queries(store, request.examples, progress)
    return replace(request, queries=queries, representations=tuple(representations))


def has_default_queries(config: Config, store: Store) -> bool:
    return (dataset_kind(config, store.spec.dataset), store.view) == ("imagenet", "grid")


def _default_queries(store: Store, examples: Sequence[int], progress: Progress) -> tuple[str, ...]:
    """The queries of the released code; where an image is not in the store, the middle window of
    another one stands in, and a line says so.

    Those images are spread evenly over the store: the 1st, 2nd and 3rd of 3 at 1/6, 3/6 and 5/6.
    """
    if beyond := [number for number in examples if not 1 <= number <= len(RELEASED_QUERIES)]:
        raise OutOfRangeError(
            f"--example {beyond[0]}: there are {len(RELEASED_QUERIES)} default queries, from 1."
        )
    queries = []
    for number in examples or range(1, len(RELEASED_QUERIES) + 1):
        released = RELEASED_QUERIES[number - 1]
        if released_row(store, released) is not None:
            queries.append(released)
            continue
        images = store.rows["path"].unique(maintain_order=True)
        path = images[int(len(images) * (2 * number - 1) / (2 * len(RELEASED_QUERIES)))]
        rows = store.rows.filter(pl.col("path") == path)["row"]
        queries.append(str(rows[len(rows) // 2]))
        progress.note(
            f"the image of {released}, a query of the released code, is not in {store.title}: the "
            f"middle of {path}, row {queries[-1]}, stands in. Choose another with --query."
        )
    return tuple(queries)


def released_row(store: Store, query: str) -> int | None:
    """The row of a query of the released code; None where its image is not in the store."""
    try:
        return query_row(store, query)
    except MissingError:
        return None


def query_row(store: Store, query: str) -> int:
    """The row of a query: a row id, or NAME:REGION with a unique part of an image's path.

    Raises `MissingError` where no image has such a path, `AmbiguousError` where several do,
    `OutOfRangeError` for a region that the image does not have.
    """
    if re.fullmatch(r"\d+", query):
        return int(query)
    name, colon, number = query.rpartition(":")
    if not colon or not number.isdigit() or not name:
        raise UsageError(
            f"--query {query!r}: expected a row id, or NAME:REGION with the number of a region "
            f"from 0, such as val_00013660:19."
        )
    rows = store.rows.filter(pl.col("path").str.contains(name, literal=True))
    paths = rows["path"].unique(maintain_order=True).to_list()
    if not paths:
        raise MissingError(
            f"--query {query}: no image of {store.title} has {name!r} in its path; they are such "
            f"as {store.rows['path'][0]}. Choose another with --query."
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
    return int(rows["row"][int(number)])
