"""A store that stays open in a server beside others of the same rows."""

from __future__ import annotations

from functools import cached_property

import polars as pl

from pa.data.store.store import Store


class ServedStore(Store):
    """A store whose table of rows may be that of another.

    A `twin` is a store of the same rows (their digests are equal): its table in memory serves both.
    """

    twin: Store | None = None

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The table of rows; see `Store.rows`."""
        return super().rows if self.twin is None else self.twin.rows
