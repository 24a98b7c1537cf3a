"""Average precision of all pairs on a torch device, by sorting the same integer keys.

Shapes: N vectors, B queries of a block, P relevant items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.evaluate.average_precision import LAST
from pa.evaluate.cosines import Ints, UnitVectors
from pa.evaluate.devices import full_precision
from pa.progress import Progress

BLOCK_BYTES = 256 << 20  # of cosines in memory; sorting them takes about eight times as much


def all_pairs(
    gallery: UnitVectors, bounds: Ints, include_self: bool, device: str, progress: Progress
) -> npt.NDArray[np.float64]:
    """Return the AP (N,) of vectors sorted by class: class c has rows bounds[c] to bounds[c+1].

    Cosines are float32 with TF32 off, AP is float64. NaN for queries without a relevant item.
    """
    with full_precision():
        units = torch.from_numpy(gallery.units).to(device)  # (N, D)
        copies, originals = (
            torch.from_numpy(rows).to(device) for rows in (gallery.copies, gallery.originals)
        )
        n = len(units)
        out = torch.full((n,), torch.nan, dtype=torch.float64, device=device)
        step = max(1, BLOCK_BYTES // (4 * n))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            alone = high - low == 1 and not include_self
            for start in range(low, high, step):
                stop = min(start + step, high)
                if not alone:
                    negated = -units[start:stop] @ units.T  # (B, N)
                    negated[:, copies] = negated[:, originals]
                    # As `average_precision.keys_in_place`, in the memory of the cosines.
                    keys = negated.view(torch.int32)  # (B, N)
                    sign = keys >> 31  # 0, or -1 = all bits set
                    keys <<= 1  # shifts out the sign bit
                    keys ^= sign
                    keys -= sign
                    keys[:, low:high] += 1  # odd: relevant
                    if not include_self:
                        queries = torch.arange(start, stop, device=device)
                        keys[queries - start, queries] = int(LAST)
                    out[start:stop] = _ap_of_keys(keys)
                progress.advance(stop - start)
        values: npt.NDArray[np.float64] = out.cpu().numpy()
        return values


def _ap_of_keys(keys: Tensor) -> Tensor:
    """Like `pa.evaluate.average_precision.ap_of_keys`: (B, N) → (B,) float64."""
    keys = keys.sort(dim=1).values
    rank = (keys & 1).nonzero()[:, 1].view(len(keys), -1)  # (B, P), from 0
    relevant = keys.gather(1, rank)  # (B, P)
    last = torch.searchsorted(relevant, relevant, right=True) - 1  # (B, P): last of equal scores
    return ((last + 1).double() / (rank.gather(1, last) + 1)).mean(1)
