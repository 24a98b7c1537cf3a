"""Recipes of the linear probe: named protocols whose every difference is one field.

paper          part classification as described in the paper (4.2, A.4)
released       part classification as in the released code (`patch_lincls.py`)
imagenet       Table 1 with the hyper-parameters of A.4
imagenet-cae   Table 1 with "the protocol in CAE" (`tools/run_linear.py` of CAE, after MAE's)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pa.errors import UsageError
from pa.probe.recipes import BEST_ON_TEST, LAST, SgdRecipe
from pa.registry import Registry

CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "lars"),
    "cosine": ("epoch", "iteration"),
    "bn_eval": ("running", "batch"),
    "reported": (LAST, BEST_ON_TEST),
}


@dataclass(frozen=True)
class LinearRecipe(SgdRecipe):
    """Hyper-parameters of a linear head. The defaults are the protocol `paper`.

    With `lr_per` = R, `lr` is the rate for R rows and is multiplied by batch / R: the released
    command's 0.1 for 256 rows equals the paper's 0.4 for 1024. LARS is that of MAE and CAE: trust
    coefficient 0.001 on the weight; neither trust ratio nor weight decay on the bias.
    """

    protocol: str = "paper"  # the named recipe that this one is, or was changed from
    optimizer: str = "sgd"  # as torch.optim.SGD, or "lars"
    lr: float = 0.4
    lr_per: int | None = None
    epochs: int = 90
    batch: int = 1024  # rows of a step; fewer training rows make one batch at the same rate
    drop_last: bool = False  # skip the last, smaller batch of an epoch
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: str = "epoch"  # the rate changes every "epoch" or every "iteration", from lr to 0
    warmup: int = 0  # epochs in which the rate rises linearly from 0
    init_std: float = 0.01  # of the normal initial weights; CAE's cut at ±2 cuts nothing at 0.01
    batch_norm: bool = False  # without affine, before the head, momentum 0.1
    bn_eps: float = 1e-6
    bn_eval: str = "running"  # or statistics of each "batch" of 256 unshuffled test rows
    reported: str = LAST  # or the best epoch on the test split, which is optimistic
    seed: int = 0  # of the initial weights and of the order of rows

    def __post_init__(self) -> None:
        self.check(CHOICES)
        if not self.init_std >= 0:
            raise UsageError(f"the spread of the first weights is negative: {self.init_std}.")

    def factor(self, epoch: float) -> float:
        """Return the factor of the learning rate at a point in epochs, counted from 0.

        It rises linearly from 0 over the warm-up, then falls to 0 as a cosine. With `cosine` =
        "epoch" it stays that of the epoch's beginning.
        """
        # MAE follows the fraction of an epoch (lr_sched.py), the released code its beginning.
        at = epoch if self.cosine == "iteration" else math.floor(epoch)
        if at < self.warmup:
            return at / self.warmup
        done = (at - self.warmup) / (self.epochs - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def to_json(self) -> dict[str, Any]:
        """Return every choice of the recipe, and the fields changed from its protocol."""
        return self.as_json(LINEAR_PROTOCOLS[self.protocol], FIXED)


FIXED = {"loss": "cross-entropy", "precision": "fp32"}  # choices that no recipe varies

PAPER = LinearRecipe()

LINEAR_PROTOCOLS: Registry[LinearRecipe] = Registry(
    "protocol",
    {
        "paper": PAPER,
        "released": LinearRecipe(protocol="released", lr=0.1, lr_per=256, reported=BEST_ON_TEST),
        "imagenet": LinearRecipe(protocol="imagenet"),
        "imagenet-cae": LinearRecipe(
            protocol="imagenet-cae",
            optimizer="lars",
            lr=0.1,
            lr_per=256,
            batch=16384,
            drop_last=True,
            cosine="iteration",
            warmup=10,
            batch_norm=True,
        ),
    },
)
