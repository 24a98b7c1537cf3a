"""Recipes: how a linear head is trained, as named protocols whose every difference is one field.

paper          part classification as the paper says (4.2, A.4)
released       part classification as the authors' code does it (`patch_lincls.py`)
imagenet       Table 1 read with the numbers of A.4
imagenet-cae   Table 1 as "the protocol in CAE" (`tools/run_linear.py` of CAE, after MAE's)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from pa.errors import UnknownNameError, UsageError
from pa.probe.linear.sgd import Schedule
from pa.probe.recipes import BEST_ON_TEST, LAST, MAX_SEED
from pa.registry import Registry

CHOICES: dict[str, tuple[str, ...]] = {
    "optimizer": ("sgd", "lars"),
    "cosine": ("epoch", "iteration"),
    "bn_eval": ("running", "batch"),
    "reported": (LAST, BEST_ON_TEST),
}


@dataclass(frozen=True)
class LinearRecipe:
    """How a linear head is trained. The defaults are the protocol `paper`.

    protocol: the named recipe that this one is, or was changed from.
    optimizer: "sgd" as torch.optim.SGD, or "lars" as MAE and CAE define it: trust coefficient
        0.001 on the weight; neither trust ratio nor weight decay on the bias.
    lr: the rate; with `lr_per` = R it is the rate for R rows, multiplied by batch / R. The released
        command's 0.1 for 256 rows is the paper's 0.4 for 1024.
    batch: rows of a step. Rows fewer than that make one batch; the rate is not scaled.
    drop_last: leave out the last, smaller batch of an epoch.
    cosine: the rate changes every "epoch" or every "iteration", from lr to 0.
    warmup: epochs in which the rate rises linearly from 0.
    init_std: the first weights are normal with this spread, biases 0. The truncated normal of CAE
        is timm's, cut at ±2 in absolute value: with 0.01 that is no cut.
    batch_norm, bn_eps: a BatchNorm without affine before the head; momentum 0.1.
    bn_eval: at test the BatchNorm uses the "running" statistics, or those of each "batch" of 256
        unshuffled rows, as the authors' attentive head does.
    reported: the last epoch; or the best on the test split, which is optimistic.
    seed: of the first weights and of the order of rows.
    """

    protocol: str = "paper"
    optimizer: str = "sgd"
    lr: float = 0.4
    lr_per: int | None = None
    epochs: int = 90
    batch: int = 1024
    drop_last: bool = False
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: str = "epoch"
    warmup: int = 0
    init_std: float = 0.01
    batch_norm: bool = False
    bn_eps: float = 1e-6
    bn_eval: str = "running"
    reported: str = LAST
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UnknownNameError(f"{name} of a recipe", str(getattr(self, name)), choices)
        if self.epochs < 1 or self.batch < 1:
            raise UsageError(
                f"epochs and batch must be 1 or more, not {self.epochs} and {self.batch}."
            )
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise UsageError(
                f"the learning rate must be positive and the momentum at least 0 and below 1, not "
                f"{self.lr} and {self.momentum}."
            )
        if self.seed > MAX_SEED:
            raise UsageError(f"the seed must be {MAX_SEED} or less, not {self.seed}.")
        if not min(self.weight_decay, self.init_std, self.seed) >= 0:
            raise UsageError(
                f"weight decay, the spread of the first weights and the seed must not be negative: "
                f"{self.weight_decay}, {self.init_std}, {self.seed}."
            )
        if not 0 <= self.warmup < self.epochs:
            raise UsageError(
                f"the warm-up must be shorter than the training: {self.warmup} of {self.epochs} "
                f"epochs."
            )

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            epochs=self.epochs,
            batch=self.batch,
            momentum=self.momentum,
            seed=self.seed,
            warmup=self.warmup,
            per_iteration=self.cosine == "iteration",
            drop_last=self.drop_last,
            lars=self.optimizer == "lars",
            bn_eps=self.bn_eps if self.batch_norm else None,
        )

    def rate(self, lr: float) -> float:
        """The rate of a step for a value of the field `lr`."""
        return lr if self.lr_per is None else lr * self.batch / self.lr_per

    def lr_at(self, epoch: float) -> float:
        """The rate at a point of the training, in epochs from 0: lr · ½ (1 + cos(π · epoch /
        epochs)) without warm-up."""
        return self.rate(self.lr) * self.schedule.factor(epoch)

    def to_json(self) -> dict[str, Any]:
        """Every choice, with those that no recipe varies, and what left its protocol."""
        named = LINEAR_PROTOCOLS[self.protocol]
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "seed" and getattr(self, field.name) != getattr(named, field.name)
        }
        return {**asdict(self), **_FIXED, "changed": changed}


_FIXED = {"loss": "cross-entropy", "precision": "fp32"}

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
