"""What probes, scores, indexes and figures need of features, stored or encoded on the fly.

Shapes: N rows of the source, n requested rows.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.store import extract_command
from pa.data.store.shards import BadImage
from pa.data.store.spec import OF_PROJECTORS, PROJECTORS, REPRESENTATIONS, Spec, reason_absent
from pa.data.views.base import View
from pa.errors import OutOfRangeError, UnknownNameError, UsageError

Ints = npt.NDArray[np.int64]


class FeatureSource(Protocol):
    """Features of the regions of a dataset, by row id.

    `pa.Store` reads them from disk, `pa.extract.live.LiveStore` encodes them when they are read.
    `source` holds the paths of the images and of the checkpoint.
    """

    spec: Spec
    source: dict[str, Any]

    @property
    @abstractmethod
    def rows(self) -> pl.DataFrame:
        """The table of rows in the columns of `pa.data.schema.ROW_SCHEMA`, and further ones."""

    @property
    @abstractmethod
    def bad(self) -> list[BadImage]:
        """The images that could not be decoded."""

    @property
    @abstractmethod
    def is_complete(self) -> bool:
        """Whether every row can be read."""

    @property
    @abstractmethod
    def checksum(self) -> str | None:
        """Checksum of the features and rows; None for features that are not stored."""

    @abstractmethod
    def read(self, representation: str, rows: Sequence[int] | Ints | None = None) -> Any:
        """Return the features of rows in the requested order, by default of all rows.

        Returns
        -------
        Array (n, *shape) of float16 or float32; bf16 and int8 are widened to float32. Rows of bad
        images are zero; see `valid`.

        Raises
        ------
        OutOfRangeError
            For a row id that the source does not have.
        UnknownNameError, UsageError
            For a representation that does not exist, or is not stored; see `shape`.
        """

    @abstractmethod
    def blocks(
        self, representation: str, block_rows: int = 8192
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield all rows in order: (id of the first row, array (n, *shape)), n ≤ `block_rows`."""

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint

    @property
    def encoder(self) -> str:
        return str(self.spec.encoder["name"])

    @property
    def view(self) -> str:
        return str(self.spec.view["name"])

    @property
    def title(self) -> str:
        return f"{self.spec.dataset}/{self.spec.split}/{self.view}/{self.encoder}/{self.spec.short}"

    @property
    def label(self) -> str:
        """Dataset, split, view and encoder, as progress bars name the source."""
        return f"{self.spec.dataset}/{self.spec.split}/{self.view} · {self.encoder}"

    @property
    def n_rows(self) -> int:
        return int(self.spec.rows["n"])

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: False for rows of images that could not be decoded."""
        valid = np.ones(self.n_rows, dtype=np.bool_)  # (N,)
        for bad in self.bad:
            valid[bad.first_row : bad.last_row + 1] = False  # the last row is included
        return valid

    @property
    def command(self) -> str:
        """The command that creates or completes the store of these features."""
        return extract_command.command(self.spec, self.source)

    def command_for(self, view: View | None = None, features: Sequence[str] = ()) -> str:
        """Return the command that extracts the same images with another view or other features."""
        spec = self.spec if view is None else replace(self.spec, view=view.to_json())
        kept = self.spec.representations if view is None else {}
        return extract_command.command(
            replace(spec, representations={name: [] for name in features} or kept),
            self.source,
            with_features=bool(features),
        )

    def shape(self, representation: str) -> tuple[int, ...]:
        """Return the shape per row of a representation.

        Raises `UnknownNameError` if it does not exist, `UsageError` if it is not stored.
        """
        stored = self.spec.representations
        if representation in stored:
            return tuple(stored[representation])
        if representation in REPRESENTATIONS:
            advice = reason_absent(self.encoder, representation)
            if advice is None and (
                representation not in OF_PROJECTORS or self.encoder in PROJECTORS
            ):
                command = self.command_for(features=(*stored, representation)) + " --replace"
                advice = f"If encoder {self.encoder} gives it, extract again with:\n  {command}"
            raise UsageError(
                f"{self.title} holds no {representation}; it holds {', '.join(stored)}. "
                f"{advice or ''}".rstrip()
            )
        near = difflib.get_close_matches(representation, REPRESENTATIONS, n=1)
        hint = f"Did you mean {near[0]}? It is not stored." if {*near} - stored.keys() else ""
        raise UnknownNameError("representation", representation, stored, hint)

    def check_rows(self, rows: Ints) -> None:
        """Raise `OutOfRangeError` for a row id that the source does not have."""
        outside = rows[(rows < 0) | (rows >= self.n_rows)]  # numpy would count −1 from the end
        if len(outside):
            raise OutOfRangeError(
                f"row id {outside[0]} is outside this store: it has rows 0 to {self.n_rows - 1} "
                f"({self.title})."
            )
