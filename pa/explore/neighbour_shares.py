"""What the neighbours of one query are to it: the shares that `pa evaluate neighbours` averages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.evaluate.neighbours import MEASURES, RELATIONS

if TYPE_CHECKING:
    from pa.evaluate.neighbours import NeighbourRelation

Ints = npt.NDArray[np.int64]

# For regions that are no parts of known objects. Exactly one holds.
SAME_IMAGE, SAME_LABEL, OTHER_LABEL, NO_LABEL = (
    "same image",
    "same label, another image",
    "another label",
    "no label known",
)
CHANCE_ROWS = 200_000  # up to here the shares at random are counted, in well under a second


@dataclass(frozen=True)
class Share:
    """How many of the neighbours are this to the query, as a fraction; `chance` for random ones."""

    name: str
    value: float
    chance: float | None = None


class NeighbourShares:
    """Says what neighbours are: part or whole where parts are known, else image and label."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._knows_parts = {"part", "object"} <= set(store.rows.columns)

    def of(self, row: int | None, neighbours: list[int], *, all_others: bool) -> list[Share]:
        """The shares of a query's neighbours; they sum to one.

        None can be told for a query of one's own (`row` None). With `all_others`, every other row
        could have been a neighbour, and chance is known. What no neighbour is, and none can be, is
        left out.
        """
        if row is None or not neighbours:
            return []
        found = np.array(neighbours, dtype=np.int64)
        return (
            self._of_parts(row, found, all_others) if self._knows_parts else self._plain(row, found)
        )

    def _plain(self, row: int, neighbours: Ints) -> list[Share]:
        image, label = self._store.rows["image"], self._store.rows["label"]
        same_image = (image[neighbours] == image[row]).to_numpy()
        names = label[neighbours].to_list()
        if label[row] is None:
            rest = [(NO_LABEL, ~same_image)]
        else:
            same = np.array([name == label[row] for name in names])
            unknown = np.array([name is None for name in names])
            rest = [
                (SAME_LABEL, same & ~same_image),
                (OTHER_LABEL, ~same & ~unknown & ~same_image),
                (NO_LABEL, unknown & ~same_image),
            ]
        shares = [(SAME_IMAGE, same_image), *rest]
        return [Share(name, float(held.mean())) for name, held in shares if held.any()]

    def _of_parts(self, row: int, neighbours: Ints, all_others: bool) -> list[Share]:
        ids, relation = self._relation
        places = np.searchsorted(ids, [row, *neighbours])
        known = ids[np.minimum(places, len(ids) - 1)] == [row, *neighbours]
        if not known[0] or not known[1:].any():
            return []
        query, others = places[:1], places[1:][known[1:]]
        values = relation.shares(others[None], queries=query)[0]
        chances = self._expected[query[0]] if all_others and self._expected is not None else None
        shares = []
        for name in RELATIONS:
            at = MEASURES.index(name)
            chance = None if chances is None else float(chances[at])
            if values[at] or chance:
                shares.append(Share(name, float(values[at]), chance))
        return shares

    @cached_property
    def _relation(self) -> tuple[Ints, NeighbourRelation]:
        from pa.evaluate.neighbours_table import neighbour_relation
        from pa.evaluate.rows import rows_to_score

        rows = rows_to_score(self._store)
        return rows.ids, neighbour_relation(self._store, rows)

    @cached_property
    def _expected(self) -> npt.NDArray[np.float64] | None:
        ids, relation = self._relation
        return relation.expected() if len(ids) <= CHANCE_ROWS else None
