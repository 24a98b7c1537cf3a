"""Batches of stored tokens: class tokens in memory, patch tokens kept or streamed.

Shapes: n rows of one side, B rows of a batch, L patch tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.data.store.reader import Store
from pa.data.store.stream import Stream, in_order
from pa.errors import UnknownNameError, UsageError, VerificationError
from pa.probe.selection import Side

Ints = npt.NDArray[np.int64]

CLS, PATCH = "cls", "patch"
REPRESENTATION = f"{CLS}+{PATCH}"
ROWS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Batch:
    """`places` (B,) of its rows in their side, int64; `cls` (B, D) and `patch` (B, L, D) as stored,
    valid until the next batch."""

    places: Ints
    cls: Tensor
    patch: Tensor


def check_tokens(store: Store) -> int:
    """The width D of a store's tokens.

    Raises `UsageError` where class or patch tokens are not stored, or are not of one width.
    """
    known = store.spec.representations
    for name in (CLS, PATCH):
        if name not in known:
            command = store.command_for(features=tuple(dict.fromkeys([*known, CLS, PATCH])))
            raise UnknownNameError(
                "representation",
                name,
                known,
                f"The attentive probe reads class and patch tokens of {store.title}. Extract them "
                f"with:\n  {command} --replace",
            )
    cls, patch = store.shape(CLS), store.shape(PATCH)
    if len(cls) != 1 or len(patch) != 2 or cls[0] != patch[1]:
        raise UsageError(
            f"{store.title}: class tokens have the shape {cls} and patch tokens {patch} per row; "
            f"the attentive probe needs (D,) and (L, D) of one width."
        )
    return int(cls[0])


class Tokens:
    """The tokens of one side's rows.

    Class tokens are in memory as stored: those of a million rows of width 768 are 1.5 GB in fp16.
    Patch tokens are kept there too where they take no more than `memory` bytes, else streamed.
    """

    def __init__(self, side: Side, device: torch.device, *, memory: float = 0) -> None:
        self.side = side
        self.targets = torch.tensor(side.targets, device=device)
        self.patches = Stream(side.store, PATCH, side.rows, memory=memory)
        self._cls = side.store.read(CLS, side.rows)
        self._device = device

    def __len__(self) -> int:
        return len(self.side.rows)

    def batches(self, batch: int, buffers: Sequence[Ints] | None = None) -> Iterator[Batch]:
        """Batches of the rows in the order of `buffers`; by default as they come."""
        order = in_order(len(self)) if buffers is None else buffers
        for places, patch in self.patches.batches(order, batch):
            yield Batch(places, self._tensor(self._cls[places]), self._tensor(patch))

    def check_finite(self) -> None:
        """Read all tokens once more. Raises `VerificationError` that names rows which are not
        finite."""
        wrong = np.concatenate([bad_rows(batch, self.side) for batch in self.batches(READ)])
        if len(wrong):
            raise not_finite(self.side.store, wrong)

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


READ = 256


def bad_rows(batch: Batch, side: Side) -> Ints:
    """Row ids of the rows of a batch whose tokens are not finite."""
    finite: Tensor = batch.cls.isfinite().all(1) & batch.patch.isfinite().flatten(1).all(1)
    bad: Ints = side.rows[batch.places[~finite.cpu().numpy()]]
    return bad


def not_finite(store: Store, rows: Ints) -> VerificationError:
    """The error for stored tokens that are not finite, naming the first few rows."""
    shown = ", ".join(map(str, np.sort(rows)[:ROWS_SHOWN].tolist()))
    more = ", …" if len(rows) > ROWS_SHOWN else ""
    return VerificationError(
        f"{store.title}: {len(rows)} rows hold NaN or infinity: rows {shown}{more}. A store never "
        f"keeps such values, so its bytes were damaged: check it with `pa verify`."
    )
