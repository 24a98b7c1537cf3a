"""How a segmentation head is trained: the two protocols, and what a run changed of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pa.errors import UsageError
from pa.registry import Registry

FULL_ITERATIONS = 160_000
FULL_WARMUP = 1_500

# The released configs of these encoders use mmcv's layer-decay constructor, which takes weight
# decay away from biases (layer_decay_optimizer_constructor.py); its rate for heads is 1.
NO_BIAS_DECAY = ("mae", "cae", "beit")

LOSS_OVER = ("valid", "all")


MOST_BATCH = 16_384


@dataclass(frozen=True)
class SegmentationRecipe:
    """Every choice of one head's training. The defaults are the protocol `paper`.

    `representation` is what the head reads: `patch`, the last layer (L, D); or `layers`, K raw
    block outputs laid side by side, (L, K·D). `upsample_first` is the factor by which the paper
    enlarges the features before its 1×1 convolution (1: not at all); the logits go from there to
    the size of the labels. `loss_over` divides the summed loss by the labelled pixels (`valid`) or
    by all pixels of the batch, ignored and padded ones too (`all`), as the released code does.
    `seed` orders the windows, `init_seed` draws the first weights. Sources: the paper's text
    (learning rate, iterations, batch, 4× upsampling); SEG/run.sh, schedule_160k.py,
    decode_head.py of the released code (all else).
    """

    protocol: str = "paper"
    representation: str = "patch"
    upsample_first: int = 4
    loss_over: str = "valid"
    lr: float = 4e-4
    iterations: int = FULL_ITERATIONS
    batch: int = 16
    warmup: int = FULL_WARMUP
    warmup_ratio: float = 1e-6
    power: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.05
    decay_bias: bool = True
    init_std: float = 0.01
    seed: int = 0
    init_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.batch, self.upsample_first) < 1:
            raise UsageError(
                f"iterations, batch and upsample_first must be 1 or more, not {self.iterations}, "
                f"{self.batch} and {self.upsample_first}."
            )
        if self.batch > MOST_BATCH:
            raise UsageError(f"the batch must be {MOST_BATCH:,} windows or less, not {self.batch}.")
        if not (0 < self.lr < math.inf and 0 < self.eps < math.inf and 0 < self.warmup_ratio <= 1):
            raise UsageError(
                f"the learning rate and eps must be positive and finite and the warm-up's ratio in "
                f"(0, 1], not {self.lr}, {self.eps} and {self.warmup_ratio}."
            )
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise UsageError(
                f"beta1 and beta2 must be at least 0 and below 1, not {self.beta1} and "
                f"{self.beta2}."
            )
        least = min(self.warmup, self.power, self.weight_decay, self.init_std)
        largest = max(self.power, self.weight_decay, self.init_std)
        if not (min(least, self.seed, self.init_seed) >= 0 and largest < math.inf):
            raise UsageError(
                f"warm-up, power, weight decay, spread of the first weights and seeds must be "
                f"finite and not negative: {self.warmup}, {self.power}, {self.weight_decay}, "
                f"{self.init_std}, {self.seed}, {self.init_seed}."
            )
        if self.loss_over not in LOSS_OVER:
            raise UsageError(f"loss_over is {' or '.join(LOSS_OVER)}, not {self.loss_over!r}.")

    def factor(self, iteration: int) -> float:
        """What the learning rate is multiplied by in an iteration, counted from 0.

        (1 - t / iterations)^power, and below `warmup` also 1 - (1 - t / warmup)(1 - ratio): mmcv's
        poly policy with a linear warm-up and no smallest rate.
        """
        poly: float = (1 - iteration / self.iterations) ** self.power
        if iteration >= self.warmup:
            return poly
        return poly * (1 - (1 - iteration / self.warmup) * (1 - self.warmup_ratio))

    def shortened(self, iterations: int) -> SegmentationRecipe:
        """The same with other iterations, and a warm-up of the same share of them."""
        warmup = round(self.warmup * iterations / self.iterations)
        return replace(self, iterations=iterations, warmup=warmup)

    def to_json(self, named: SegmentationRecipe | None = None) -> dict[str, Any]:
        """Every choice, and under `changed` those that left the named protocol."""
        named = named or SEGMENTATION_PROTOCOLS[self.protocol]
        seeds = ("seed", "init_seed")
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in seeds and getattr(self, field.name) != getattr(named, field.name)
        }
        return {**asdict(self), **_FIXED, "changed": changed}


_FIXED = {
    "head": "1x1 convolution",
    "optimizer": "adamw",
    "schedule": "poly by iteration, linear warm-up",
    "loss": "cross-entropy at label resolution",
    "normalisation": "none",
    "precision": "fp32",
    "reported": "last iteration",
}

PAPER = SegmentationRecipe()
RELEASED = SegmentationRecipe(
    protocol="released", representation="layers", upsample_first=1, loss_over="all"
)
RELEASED_LAYERS = (3, 5, 7, 11)  # blocks counted from 0

SEGMENTATION_PROTOCOLS: Registry[SegmentationRecipe] = Registry(
    "protocol of segmentation", {"paper": PAPER, "released": RELEASED}
)


def named_recipe(protocol: str, encoder: str) -> SegmentationRecipe:
    """The recipe of a protocol for an encoder: `released` decays no bias of MAE, CAE and BEiT."""
    recipe = SEGMENTATION_PROTOCOLS[protocol]
    no_decay = protocol == "released" and encoder in NO_BIAS_DECAY
    return replace(recipe, decay_bias=False) if no_decay else recipe
