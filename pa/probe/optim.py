"""Optimisation shared by the probes: seeded draws, optimiser steps, the error of divergence.

Every step takes a rate that is broadcast over the parameter, so that one call serves many heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pa.errors import UsageError

TRUST = 0.001  # trust coefficient of LARS in MoCo v3, MAE and CAE


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


def trust_ratios(weight: Tensor, update: Tensor) -> Tensor:
    """Return the factor (H,) by which LARS multiplies the update of weights (C, H, D)."""
    norms = weight.norm(dim=(0, 2)), update.norm(dim=(0, 2))  # (H,), (H,)
    # Weights or updates of zero have no direction: they keep the rate, as in MAE.
    positive = (norms[0] > 0) & (norms[1] > 0)  # (H,)
    return torch.where(positive, TRUST * norms[0] / norms[1], 1.0)


@dataclass(frozen=True)
class AdamW:
    """Constants of AdamW (Loshchilov & Hutter 2019); a step is that of torch.optim.AdamW."""

    beta1: float
    beta2: float
    eps: float
    weight_decay: float

    def step(
        self,
        parameter: Tensor,
        gradient: Tensor,
        moments: tuple[Tensor, Tensor],
        lr: Tensor,
        iteration: int,
        *,
        decay: bool = True,
    ) -> None:
        """Update parameter and moments in place; `iteration` counts from 0."""
        first, second = moments
        if decay:
            parameter *= 1 - lr * self.weight_decay  # decoupled from the gradient
        first.lerp_(gradient, 1 - self.beta1)
        second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        # The moments start at zero; these factors correct the bias of the first iterations.
        unbias1, unbias2 = (1 - beta ** (iteration + 1) for beta in (self.beta1, self.beta2))
        scale = second.sqrt().div_(unbias2**0.5).add_(self.eps)
        parameter -= lr / unbias1 * first / scale


def divergence(rates: Iterable[float], moment: str) -> UsageError:
    """Return the error for a loss that is not finite at a moment, such as "epoch 3 of 90"."""
    shown = ", ".join(f"{rate:g}" for rate in sorted(set(rates)))
    return UsageError(
        f"training diverged: with learning rate {shown} the loss is not finite in {moment}. Lower "
        f"the learning rate with --lr."
    )
