"""Relations of one query to its neighbours: the shares that `pa evaluate neighbours` averages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.evaluate.neighbours import MEASURES, RELATIONS, NeighbourRelation
from pa.evaluate.rows import rows_to_score

Ints = npt.NDArray[np.int64]

# For regions other than parts of known objects. Exactly one holds.
SAME_IMAGE, SAME_LABEL, OTHER_LABEL, NO_LABEL = (
    "same image",
    "same label, another image",
    "another label",
    "no label known",
)
CHANCE_ROWS = 200_000  # computing chance takes well under a second up to here


@dataclass(frozen=True)
class Share:
    """The fraction of neighbours in a relation; `chance` is its expectation for random rows."""

    name: str
    value: float
    chance: float | None = None


class NeighbourShares:
    """Count relations: part and object where parts are known, otherwise image and label."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._knows_parts = {"part", "object"} <= set(store.rows.columns)

    def of(self, row: int | None, neighbours: list[int], *, all_others: bool) -> list[Share]:
        """Return the shares of a query's neighbours, which sum to one.

        An uploaded image (`row` None) has none. With `all_others`, every other row could have been
        a neighbour, and chance is known. Relations that do not occur and cannot occur are omitted.
        """
        if row is None or not neighbours:
            return []
        rows = np.array(neighbours, dtype=np.int64)  # (k,)
        if self._knows_parts:
            return self._of_parts(row, rows, all_others)
        return self._of_labels(row, rows)

    def _of_labels(self, row: int, neighbours: Ints) -> list[Share]:
        image, label = self._store.rows["image"], self._store.rows["label"]
        same_image = (image[neighbours] == image[row]).to_numpy()  # (k,)
        names = label[neighbours].to_list()
        if label[row] is None:
            others = [(NO_LABEL, ~same_image)]
        else:
            same = np.array([name == label[row] for name in names])
            unknown = np.array([name is None for name in names])
            others = [
                (SAME_LABEL, same & ~same_image),
                (OTHER_LABEL, ~same & ~unknown & ~same_image),
                (NO_LABEL, unknown & ~same_image),
            ]
        masks = [(SAME_IMAGE, same_image), *others]
        return [Share(name, float(mask.mean())) for name, mask in masks if mask.any()]

    def _of_parts(self, row: int, neighbours: Ints, all_others: bool) -> list[Share]:
        ids, relation = self._relation
        positions = np.searchsorted(ids, [row, *neighbours])  # (1 + k,)
        known = ids[np.minimum(positions, len(ids) - 1)] == [row, *neighbours]
        if not known[0] or not known[1:].any():
            return []
        query, others = positions[:1], positions[1:][known[1:]]
        values = relation.shares(others[None], queries=query)[0]  # one per measure
        chances = self._expected[query[0]] if all_others and self._expected is not None else None
        shares = []
        for name in RELATIONS:
            column = MEASURES.index(name)
            chance = None if chances is None else float(chances[column])
            if values[column] or chance:
                shares.append(Share(name, float(values[column]), chance))
        return shares

    @cached_property
    def _relation(self) -> tuple[Ints, NeighbourRelation]:
        from pa.evaluate.neighbours import neighbour_relation  # imports scipy

        rows = rows_to_score(self._store)
        return rows.ids, neighbour_relation(self._store, rows)

    @cached_property
    def _expected(self) -> npt.NDArray[np.float64] | None:
        ids, relation = self._relation
        return relation.expected() if len(ids) <= CHANCE_ROWS else None  # (n, measures)
