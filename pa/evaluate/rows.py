"""What the tables of retrieval and of neighbours share: rows, stores, vectors and their results.

Shapes: N scored rows, n chosen rows, D width, K stored blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.files import write_parquet
from pa.data.store.reader import Store
from pa.data.store.source import FeatureSource
from pa.errors import MismatchError, UnknownNameError, UsageError
from pa.evaluate.bootstrap import Mean
from pa.evaluate.result_files import write_result
from pa.evaluate.result_parts import RetrievalCounts, RowCounts, TargetSelection
from pa.evaluate.results import RowResult

Ints = npt.NDArray[np.int64]

ENCODED = ("cls", "pooled")  # without a projection; the paper reports the better one
BLOCK_VECTORS = ("layers_cls", "layers_pooled")  # of single blocks, (K, D) per row, before norm


@dataclass(frozen=True, eq=False)
class Rows:
    """The scored rows: those of readable images with a label.

    `ids` and `images` (N,) are row and image numbers, `targets` (N,) indices into `names`.
    """

    ids: Ints
    images: Ints
    targets: Ints
    names: tuple[str, ...]
    target: str
    n_bad: int
    n_unlabelled: int

    @property
    def labels(self) -> npt.NDArray[np.str_]:
        return np.array(self.names)[self.targets]

    def recorded(self, queries: int | None = None) -> dict[str, Any]:
        """Return the selection and the counts of a result; `queries` if some rows have no score."""
        counts = {
            "rows": len(self.ids),
            "images": len(np.unique(self.images)),
            "classes": len(self.names),
            "left_out_bad": self.n_bad,
            "left_out_unlabelled": self.n_unlabelled,
        }
        selection = TargetSelection(self.target)
        if queries is None:
            return {"selection": selection, "counts": RowCounts(**counts)}
        without = len(self.ids) - queries
        counted = RetrievalCounts(**counts, queries=queries, left_out_without_relevant=without)
        return {"selection": selection, "counts": counted}


def nothing_to_score(store: FeatureSource, rows: pl.DataFrame, target: str) -> UsageError:
    """Return the error for rows of a store none of which can be scored."""
    columns = f"Choose another column with --target: {', '.join(store.rows.columns)}."
    none_of = f"none of the {len(rows)} chosen rows of {store.title}"
    if rows[target].is_not_null().any():
        return UsageError(f"{none_of} has both a readable image and a {target!r}. {columns}")
    cause = ""
    if target == "label":
        cause = (
            " The labels of a folder of images are the names of its sub-folders; images outside "
            "sub-folders have none."
        )
    return UsageError(f"{none_of} has a {target!r}.{cause} {columns}")


def rows_to_score(store: FeatureSource, target: str = "label") -> Rows:
    """Return the rows of a store that are of readable images and have a `target`.

    Raises `UnknownNameError` for an unknown column, `UsageError` if no row has a value.
    """
    table = store.rows
    if target not in table.columns:
        raise UnknownNameError("target column", target, table.columns)
    labelled = table[target].is_not_null().to_numpy()  # (all rows,)
    kept = np.flatnonzero(store.valid & labelled)  # (N,)
    if not len(kept):
        raise nothing_to_score(store, table, target)
    # The order of the dataset's labels, not of the alphabet: results list classes in this order.
    values = table[target].cast(pl.String)
    order = ["label_id", "label"] if target == "label" else [target]
    ordered = table[kept].select(order).unique().sort(order)[target].cast(pl.String)
    names = tuple(ordered.unique(maintain_order=True).to_list())
    numbers = values.replace_strict(names, range(len(names)), default=-1, return_dtype=pl.Int64)
    return Rows(
        ids=kept,
        images=table["image"].to_numpy()[kept],
        targets=numbers.to_numpy()[kept],
        names=names,
        target=target,
        n_bad=int((~store.valid).sum()),
        n_unlabelled=int((store.valid & ~labelled).sum()),
    )


def check_same_rows(stores: Sequence[FeatureSource]) -> None:
    """Raise `MismatchError` unless all stores hold the same rows, cut by the same rules."""
    first = stores[0]
    for other in stores[1:]:
        if other.spec.rows["sha256"] != first.spec.rows["sha256"]:
            reason = "do not hold the same regions"
        elif other.spec.view != first.spec.view:
            differing = sorted(
                name
                for name in {*first.spec.view, *other.spec.view}
                if first.spec.view.get(name) != other.spec.view.get(name)
            )
            reason = f"cut their regions by different rules ({', '.join(differing)})"
        elif (other.valid != first.valid).any():
            reason = "could not read the same images"
        else:
            continue
        raise MismatchError(
            f"{first.title} and {other.title} {reason}: their scores do not belong in one table. "
            f"Extract both from the same split with the same --protocol, --view-option and --limit."
        )


def default_representations(store: FeatureSource) -> list[str]:
    """Return the stored representations of part retrieval: encoded and projected ones."""
    return [name for name in (*ENCODED, "projected") if name in store.spec.representations]


def stores_and_vectors(
    stores: Sequence[Store], representations: Sequence[str]
) -> list[tuple[Store, str]]:
    """Return every store with every representation, all checked; empty selects the default."""
    pairs = [
        (store, name)
        for store in stores
        for name in representations or default_representations(store)
    ]
    for store, name in pairs:
        require_vector(store, name)
    return pairs


def keeps_blocks(store: FeatureSource) -> bool:
    """Return whether a store keeps vectors of single blocks."""
    return any(name in store.spec.representations for name in BLOCK_VECTORS)


def block_representations(store: FeatureSource, blocks: Sequence[int] | None) -> list[str]:
    """Return the representations of some blocks, by default of all stored ones.

    `layers_pooled:5` is the mean patch token of block 5. Raises `UsageError` for a block that is
    not stored.
    """
    kinds = [name for name in BLOCK_VECTORS if name in store.spec.representations]
    stored = _blocks(store)
    if not kinds or not stored:
        raise UsageError(
            f"{store.title} keeps no vectors of single blocks. Extract them with --layers "
            f"2,5,8,11 --features cls,pooled,{','.join(BLOCK_VECTORS)} --alongside."
        )
    for block in blocks or ():
        _require_block(store, block)
    chosen = stored if blocks is None else sorted(set(blocks))
    return [f"{kind}:{block}" for kind in kinds for block in chosen]


def require_vector(store: FeatureSource, representation: str) -> None:
    """Raise `UsageError` unless a representation is one vector per row."""
    name, colon, block = representation.partition(":")
    shape = store.shape(name)
    if colon and name not in BLOCK_VECTORS:
        raise UnknownNameError("representation", representation, store.spec.representations)
    if colon:
        _require_block(store, int(block) if block.isdigit() else block)
        return
    if len(shape) != 1:
        vectors = [n for n, s in store.spec.representations.items() if len(s) == 1]
        vectors += [f"{n}:BLOCK" for n in BLOCK_VECTORS if n in store.spec.representations]
        raise UsageError(
            f"retrieval compares one vector per row; {representation!r} of {store.title} is "
            f"{'×'.join(map(str, shape))}. One vector: {', '.join(vectors) or 'none stored'}."
        )


def read_vectors(store: Store, representation: str, rows: Ints) -> npt.NDArray[Any]:
    """Read one vector per row, (n, D); see `require_vector`."""
    name, _, block = representation.partition(":")
    values = store.read(name, rows)  # (n, D), or (n, K, D) for single blocks
    return values[:, _blocks(store).index(int(block))] if block else values


def _require_block(store: FeatureSource, block: int | str) -> None:
    stored = _blocks(store)
    if block not in stored:
        raise UsageError(
            f"{store.title} keeps no block {block}; it keeps {', '.join(map(str, stored))}. Blocks "
            f"are counted from 0; extract others with --layers."
        )


def _blocks(store: FeatureSource) -> list[int]:
    """Return the 0-based numbers of the blocks whose outputs a store keeps."""
    return [int(block) for block in store.spec.encoder.get("options", {}).get("layers", [])]


# -- scores of a table -------------------------------------------------------------------------


R = TypeVar("R", bound=RowResult)


@dataclass(frozen=True, eq=False)
class StoreScores(Generic[R]):
    """The scores of one store and representation, and their files."""

    store: Store
    representation: str
    result: R
    path: Path

    @property
    def encoder(self) -> str:
        return self.store.encoder

    @property
    def scores(self) -> dict[str, Mean]:
        return self.result.scores

    def to_json(self) -> dict[str, Any]:
        return {**self.result.to_json(), "file": str(self.path)}


S = TypeVar("S", bound=StoreScores[Any])


@dataclass(frozen=True, eq=False)
class Paired(Generic[S]):
    """The difference of two scores of the same queries, first minus second."""

    first: S
    second: S
    result: RowResult
    path: Path

    @property
    def scores(self) -> dict[str, Mean]:
        return self.result.scores

    @property
    def name(self) -> str:
        """What both share, then the difference: `dino: projected − cls`, `cls: dino − mocov3`."""
        first, second = self.first, self.second
        if first.encoder == second.encoder:
            return f"{first.encoder}: {first.representation} − {second.representation}"
        return f"{first.representation}: {first.encoder} − {second.encoder}"


def write_queries(results: Path, result: RowResult, rows: Rows, columns: Mapping[str, Any]) -> Path:
    """Write a result and, before it, a table with `columns` (N,) of its queries."""
    path = result.path(results)
    of_rows = {"row": rows.ids, "image": rows.images, "label": rows.labels}
    write_parquet(path.with_suffix(".parquet"), pl.DataFrame({**of_rows, **columns}))
    return write_result(results, result)
