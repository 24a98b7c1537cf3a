"""Recipes: how an attentive head is trained; named protocols whose every difference is one field.

paper          part classification as the paper says (4.2, A.4)
released       part classification as the authors' code does it (`patch_lincls.py`)
imagenet       Table 1 read with the numbers of A.4
imagenet-cae   Table 1 as "the protocol in CAE" (`tools/run_attentive.py` of CAE), whose own
               evaluation uses batch statistics: change `bn_eval` for that
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pa.data.store.stream import BlockShuffle
from pa.errors import UnknownNameError, UsageError
from pa.probe.recipes import BEST_ON_TEST, LAST, MAX_SEED
from pa.registry import Registry

CHOICES: dict[str, tuple[str, ...]] = {
    "cosine": ("epoch", "iteration"),
    "query_init": ("normal", "zeros"),
    "bn_eval": ("running", "batch"),
    "reported": (LAST, BEST_ON_TEST),
    "precision": ("fp32", "bf16"),
}

HEAD_WIDTH = 64


@dataclass(frozen=True)
class AttentiveRecipe:
    """How an attentive head is trained. The defaults are the protocol `paper`.

    protocol: the named recipe that this one is, or was changed from.
    lr: the rate; with `lr_per` = R it is the rate for R rows, multiplied by batch / R. The released
        command's 0.01 for 256 rows is the paper's 0.04 for 1024.
    epochs, batch, momentum, weight_decay: of torch.optim.SGD. The last batch may be smaller.
    cosine: the rate changes every "epoch" or every "iteration", from `lr` to `last_lr`.
    warmup, first_lr: epochs in which the rate rises linearly from `first_lr`, by iterations.
    attention_heads: of the cross-attention; None = width / 64.
    init_std, init_cut: query and attention matrices are normal with this spread, cut at ±
        `init_cut` spreads; the released wrapper of trunc_normal_ cuts at one.
    query_init: the query starts "normal", or at "zeros" as in CAE.
    classifier_std: spread of the classifier's first weights, not cut; its bias starts at 0.
    norm_eps: of the LayerNorms of query, key and value.
    bn_eps, bn_momentum: of the BatchNorm without affine before the classifier.
    bn_eval: at test the BatchNorm uses the "running" statistics, or those of each "batch" of
        `eval_batch` unshuffled rows, as the released code does.
    reported: the last epoch; or the best on the test split, which is optimistic.
    precision: of the products with tokens; weights, normalisation and softmax are always fp32.
    order: the block-shuffled order in which rows are visited, one for all heads of a run.
    seed: of the first weights of the first head; further heads have the seeds that follow.
    """

    protocol: str = "paper"
    lr: float = 0.04
    lr_per: int | None = None
    epochs: int = 90
    batch: int = 1024
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: str = "epoch"
    warmup: int = 0
    first_lr: float = 0.0
    last_lr: float = 0.0
    attention_heads: int | None = None
    init_std: float = 0.02
    init_cut: float = 1.0
    query_init: str = "normal"
    classifier_std: float = 0.01
    norm_eps: float = 1e-6
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    bn_eval: str = "running"
    eval_batch: int = 256
    reported: str = LAST
    precision: str = "fp32"
    order: BlockShuffle = field(default_factory=BlockShuffle)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UnknownNameError(f"{name} of a recipe", str(getattr(self, name)), choices)
        if min(self.epochs, self.batch, self.eval_batch) < 1:
            raise UsageError(
                f"epochs, batch and evaluation batch must be 1 or more, not {self.epochs}, "
                f"{self.batch} and {self.eval_batch}."
            )
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise UsageError(
                f"the learning rate must be positive and the momentum at least 0 and below 1, not "
                f"{self.lr} and {self.momentum}."
            )
        spreads = self.init_std, self.init_cut, self.classifier_std
        if not (self.weight_decay >= 0 and min(spreads) > 0):
            raise UsageError(
                f"weight decay must not be negative and the spreads of the first weights must be "
                f"positive: {self.weight_decay}, {', '.join(map(str, spreads))}."
            )
        if not 0 <= self.warmup < self.epochs:
            raise UsageError(
                f"the warm-up must be shorter than the training: {self.warmup} of {self.epochs} "
                f"epochs."
            )
        if self.seed < 0:
            raise UsageError(f"the seed must not be negative, not {self.seed}.")
        if self.seed > MAX_SEED:
            raise UsageError(f"the seed must be {MAX_SEED} or less, not {self.seed}.")
        if self.attention_heads is not None and self.attention_heads < 1:
            raise UsageError(f"attention heads must be 1 or more, not {self.attention_heads}.")

    def heads_of(self, width: int) -> int:
        """Attention heads for tokens of this width. `UsageError` where they do not divide it."""
        heads = self.attention_heads or width // HEAD_WIDTH
        if heads and width % heads == 0 and (self.attention_heads or width % HEAD_WIDTH == 0):
            return heads
        rule = f"{heads} attention heads do" if self.attention_heads else "heads of width 64 do"
        fitting = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8][-6:]
        raise UsageError(
            f"{rule} not divide the tokens' width {width}. Give --attention-heads a number that "
            f"does: {', '.join(map(str, fitting)) or 1}."
        )

    def peak(self, lr: float) -> float:
        """The largest rate of a step, for a value of the field `lr`."""
        return lr if self.lr_per is None else lr * self.batch / self.lr_per

    def rate(self, lr: float, epoch: int, step: int, steps: int) -> float:
        """The rate of a step, counted from 0, of `steps` in each epoch, for a value of `lr`.

        By epochs: that of the epoch's beginning. By iterations: as CAE's `cosine_scheduler`, W
        steps from `first_lr` to the peak, both included, then a cosine towards `last_lr`.
        """
        peak = self.peak(lr)
        done, n = epoch * steps + step, self.epochs * steps
        rising = self.warmup * steps
        if done < rising:
            return self.first_lr + (peak - self.first_lr) * done / max(rising - 1, 1)
        if self.cosine == "epoch":
            share = (epoch - self.warmup) / (self.epochs - self.warmup)
        else:
            share = (done - rising) / (n - rising)
        return self.last_lr + 0.5 * (peak - self.last_lr) * (1 + math.cos(math.pi * share))

    def to_json(self) -> dict[str, Any]:
        """Every choice, with those that no recipe varies, and what left its protocol."""
        named = ATTENTIVE_PROTOCOLS[self.protocol]
        changed = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name != "seed" and getattr(self, one.name) != getattr(named, one.name)
        }
        if "order" in changed:
            changed["order"] = self.order.to_json()
        return {**asdict(self), **_FIXED, "changed": changed}


_FIXED = {"optimizer": "sgd", "loss": "cross-entropy", "tokens": "class token and patch tokens"}

PAPER = AttentiveRecipe()

ATTENTIVE_PROTOCOLS: Registry[AttentiveRecipe] = Registry(
    "protocol",
    {
        "paper": PAPER,
        "released": AttentiveRecipe(
            protocol="released", lr=0.01, lr_per=256, bn_eval="batch", reported=BEST_ON_TEST
        ),
        "imagenet": AttentiveRecipe(protocol="imagenet"),
        "imagenet-cae": AttentiveRecipe(
            protocol="imagenet-cae",
            lr=0.4,
            batch=8192,
            cosine="iteration",
            warmup=10,
            first_lr=1e-6,
            last_lr=1e-6,
            query_init="zeros",
        ),
    },
)
