"""Optimisation shared by the probes: seeded draws, the step of SGD, the error of divergence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from pa.errors import UsageError


def seeded_generator(seed: int, *purpose: int) -> torch.Generator:
    """Return a CPU generator; draws of one purpose are independent of those of another."""
    state = np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))  # torch takes 63 bits


def sgd_step(
    parameter: Tensor, gradient: Tensor, momentum_buffer: Tensor, momentum: float, lr: Tensor
) -> None:
    """Update a parameter in place as torch.optim.SGD does; `lr` is broadcast over it."""
    momentum_buffer.mul_(momentum).add_(gradient)
    parameter.addcmul_(momentum_buffer, lr, value=-1)


def divergence(rates: Iterable[float], moment: str) -> UsageError:
    """Return the error for a loss that is not finite at a moment, such as "epoch 3 of 90"."""
    shown = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
    return UsageError(
        f"training diverged: with learning rate {shown} the loss is not finite in {moment}. Lower "
        f"the learning rate with --lr."
    )
