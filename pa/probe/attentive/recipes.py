"""Recipes of the attentive probe: named protocols whose every difference is one field.

paper          part classification as described in the paper (4.2, A.4)
released       part classification as in the released code (`patch_lincls.py`)
imagenet       Table 1 with the hyper-parameters of A.4
imagenet-cae   Table 1 with "the protocol in CAE" (`tools/run_attentive.py` of CAE), whose own
               evaluation uses batch statistics: set `bn_eval` for that
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from pa.data.store.stream import BlockShuffle
from pa.errors import UsageError
from pa.probe.recipes import BEST_ON_TEST, LAST, SgdRecipe
from pa.registry import Registry

CHOICES: dict[str, tuple[str, ...]] = {
    "cosine": ("epoch", "iteration"),
    "query_init": ("normal", "zeros"),
    "bn_eval": ("running", "batch"),
    "reported": (LAST, BEST_ON_TEST),
    "precision": ("fp32", "bf16"),
}

HEAD_WIDTH = 64  # per attention head, as in the encoders


@dataclass(frozen=True)
class AttentiveRecipe(SgdRecipe):
    """Hyper-parameters of an attentive head. The defaults are the protocol `paper`.

    With `lr_per` = R, `lr` is the rate for R rows and is multiplied by batch / R: the released
    command's 0.01 for 256 rows equals the paper's 0.04 for 1024. SGD is that of torch.optim.
    """

    protocol: str = "paper"  # the named recipe that this one is, or was changed from
    lr: float = 0.04
    lr_per: int | None = None
    epochs: int = 90
    batch: int = 1024  # the last batch of an epoch may be smaller
    momentum: float = 0.9
    weight_decay: float = 0.0
    cosine: str = "epoch"  # the rate changes every "epoch" or every "iteration", to `last_lr`
    warmup: int = 0  # epochs in which the rate rises linearly from `first_lr`, every iteration
    first_lr: float = 0.0
    last_lr: float = 0.0
    attention_heads: int | None = None  # None: width / 64
    init_std: float = 0.02  # of query and attention matrices, which are normal
    init_cut: float = 1.0  # cut at ± this many std; the released trunc_normal_ cuts at one
    query_init: str = "normal"  # or "zeros", as in CAE
    classifier_std: float = 0.01  # of the classifier's normal weights, not cut; its bias is 0
    norm_eps: float = 1e-6  # of the LayerNorms of query, key and value
    bn_eps: float = 1e-5  # of the BatchNorm without affine before the classifier
    bn_momentum: float = 0.1
    bn_eval: str = "running"  # or statistics of each "batch" of test rows, as in the released code
    eval_batch: int = 256  # unshuffled test rows
    reported: str = LAST  # or the best epoch on the test split, which is optimistic
    precision: str = "fp32"  # of products with tokens; weights, norms and softmax are fp32
    order: BlockShuffle = field(default_factory=BlockShuffle)  # of the rows, for all heads
    seed: int = 0  # of the first head's initial weights; further heads have the following seeds

    def __post_init__(self) -> None:
        self.check(CHOICES)
        if self.eval_batch < 1:
            raise UsageError(f"the evaluation batch must be 1 or more, not {self.eval_batch}.")
        spreads = self.init_std, self.init_cut, self.classifier_std
        if not min(spreads) > 0:
            raise UsageError(
                f"the spreads of the first weights must be positive: "
                f"{', '.join(map(str, spreads))}."
            )
        if self.attention_heads is not None and self.attention_heads < 1:
            raise UsageError(f"attention heads must be 1 or more, not {self.attention_heads}.")

    def heads_of(self, width: int) -> int:
        """Return the attention heads for tokens of a width. Raise `UsageError` unless they fit."""
        heads = self.attention_heads or width // HEAD_WIDTH
        if heads and width % heads == 0 and (self.attention_heads or width % HEAD_WIDTH == 0):
            return heads
        rule = f"{heads} attention heads do" if self.attention_heads else "heads of width 64 do"
        fitting = [n for n in range(1, width + 1) if width % n == 0 and width // n >= 8][-6:]
        raise UsageError(
            f"{rule} not divide the tokens' width {width}. Give --attention-heads a number that "
            f"does: {', '.join(map(str, fitting)) or 1}."
        )

    def rate(self, lr: float, epoch: int, step: int, steps: int) -> float:
        """Return the rate of a step, counted from 0, of `steps` in each epoch, for a value of `lr`.

        By epoch it is that of the epoch's beginning. By iteration it follows CAE's
        `cosine_scheduler`: a linear rise from `first_lr` to the peak, both included, then a cosine
        to `last_lr`.
        """
        peak = self.peak(lr)
        done, n = epoch * steps + step, self.epochs * steps
        rising = self.warmup * steps
        # CAE uses np.linspace, whose last value is the peak: hence one step less.
        if done < rising:
            return self.first_lr + (peak - self.first_lr) * done / max(rising - 1, 1)
        if self.cosine == "epoch":
            share = (epoch - self.warmup) / (self.epochs - self.warmup)
        else:
            share = (done - rising) / (n - rising)
        return self.last_lr + 0.5 * (peak - self.last_lr) * (1 + math.cos(math.pi * share))

    def to_json(self) -> dict[str, Any]:
        """Return every choice of the recipe, and the fields changed from its protocol."""
        return self.as_json(ATTENTIVE_PROTOCOLS[self.protocol], FIXED)


# Choices that no recipe varies.
FIXED = {"optimizer": "sgd", "loss": "cross-entropy", "tokens": "class token and patch tokens"}

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
