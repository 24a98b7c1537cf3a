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

from pa.data.store.source import FeatureSource
from pa.data.store.stream import Stream, in_order
from pa.errors import UnknownNameError, UsageError
from pa.probe.selection import Side, non_finite

Ints = npt.NDArray[np.int64]

CLS, PATCH = "cls", "patch"
REPRESENTATION = f"{CLS}+{PATCH}"
READ = 256  # rows of a batch when only checking


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokens of some rows of a side, as stored; valid until the next batch."""

    positions: Ints  # (B,) in the side
    cls: Tensor  # (B, D)
    patch: Tensor  # (B, L, D)


def check_tokens(store: FeatureSource) -> int:
    """Return the width D of a store's tokens.

    Raise `UsageError` unless class and patch tokens are stored with equal width.
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
            f"the attentive probe needs (D,) and (L, D) of equal width."
        )
    return int(cls[0])


class Tokens:
    """The tokens of one side's rows.

    Class tokens are in memory as stored: a million rows of width 768 take 1.5 GB in fp16. Patch
    tokens are in memory if they take at most `memory` bytes, and streamed otherwise.
    """

    def __init__(self, side: Side, device: torch.device, *, memory: float = 0) -> None:
        self.side = side
        self.targets = torch.tensor(side.targets, device=device)  # (n,)
        self.patches = Stream(side.store, PATCH, side.rows, memory=memory)
        # Class tokens are small: they are always in memory.
        self._cls = side.store.read(CLS, side.rows)  # (n, D)
        self._device = device

    def __len__(self) -> int:
        return len(self.side.rows)

    @property
    def width(self) -> int:
        """D of the tokens."""
        return int(self._cls.shape[1])

    def targets_of(self, batch: Batch) -> Tensor:
        """Return the class indices (B,) of a batch."""
        return self.targets[torch.from_numpy(batch.positions).to(self._device)]

    def batches(self, batch: int, buffers: Sequence[Ints] | None = None) -> Iterator[Batch]:
        """Yield batches of the rows in the order of `buffers`, by default in their own order."""
        order = in_order(len(self)) if buffers is None else buffers
        for positions, patch in self.patches.batches(order, batch):
            yield Batch(positions, self._tensor(self._cls[positions]), self._tensor(patch))

    def check_finite(self) -> None:
        """Read all tokens again. Raise `VerificationError` with the rows that are not finite."""
        wrong = np.concatenate([bad_rows(batch, self.side) for batch in self.batches(READ)])
        if len(wrong):
            raise non_finite(self.side.store.title, wrong)

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def bad_rows(batch: Batch, side: Side) -> Ints:
    """Return the row ids of a batch whose tokens are not finite."""
    finite: Tensor = batch.cls.isfinite().all(1) & batch.patch.isfinite().flatten(1).all(1)  # (B,)
    bad: Ints = side.rows[batch.positions[~finite.cpu().numpy()]]
    return bad
