"""Recipes of segmentation heads: the two protocols, and changes of their fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pa.errors import UnknownNameError, UsageError
from pa.registry import Registry

# The released configs of these encoders use mmcv's layer-decay constructor, which exempts biases
# from weight decay (layer_decay_optimizer_constructor.py); its rate for heads is 1.
NO_BIAS_DECAY = ("mae", "cae", "beit")
RELEASED_LAYERS = (3, 5, 7, 11)  # blocks counted from 0
LOSS_OVER = ("valid", "all")
MAX_BATCH = 16_384  # a larger one is a mistyped number

_FIXED = {
    "head": "1x1 convolution",
    "optimizer": "adamw",
    "schedule": "poly by iteration, linear warm-up",
    "loss": "cross-entropy at label resolution",
    "normalisation": "none",
    "precision": "fp32",
    "reported": "last iteration",
}


@dataclass(frozen=True)
class SegmentationRecipe:
    """Every choice of the training of one head. The defaults are the protocol `paper`.

    Sources: the paper's text for learning rate, iterations, batch and 4× upsampling; SEG/run.sh,
    schedule_160k.py and decode_head.py of the released code for all others.

    Attributes
    ----------
    representation : str
        Features the head reads: `patch`, the last layer (L, D); or `layers`, K raw block outputs
        concatenated, (L, K·D).
    upsample_first : int
        Factor by which the paper upsamples the features before its 1×1 convolution (1: none).
        Logits are then upsampled to the size of the labels.
    loss_over : str
        Divisor of the summed loss: labelled pixels (`valid`), or all pixels of the batch including
        ignored and padded ones (`all`), as in the released code.
    seed, init_seed : int
        `seed` orders the windows, `init_seed` draws the initial weights.
    """

    protocol: str = "paper"
    representation: str = "patch"
    upsample_first: int = 4
    loss_over: str = "valid"
    lr: float = 4e-4  # the paper's text, as the next two
    iterations: int = 160_000
    batch: int = 16  # windows
    warmup: int = 1_500  # iterations; schedule_160k.py
    warmup_ratio: float = 1e-6  # first factor of the warm-up; schedule_160k.py
    power: float = 1.0  # of the poly schedule
    beta1: float = 0.9  # AdamW, as the next two: run.sh
    beta2: float = 0.999
    eps: float = 1e-8  # torch's default
    weight_decay: float = 0.05  # run.sh
    decay_bias: bool = True
    init_std: float = 0.01  # of the initial weights; decode_head.py
    seed: int = 0
    init_seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.batch, self.upsample_first) < 1:
            raise UsageError(
                f"iterations, batch and upsample_first must be 1 or more, not {self.iterations}, "
                f"{self.batch} and {self.upsample_first}."
            )
        if self.batch > MAX_BATCH:
            raise UsageError(f"the batch must be {MAX_BATCH:,} windows or less, not {self.batch}.")
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
        smallest = min(self.warmup, self.power, self.weight_decay, self.init_std)
        largest = max(self.power, self.weight_decay, self.init_std)
        if not (min(smallest, self.seed, self.init_seed) >= 0 and largest < math.inf):
            raise UsageError(
                f"warm-up, power, weight decay, spread of the initial weights and seeds must be "
                f"finite and not negative: {self.warmup}, {self.power}, {self.weight_decay}, "
                f"{self.init_std}, {self.seed}, {self.init_seed}."
            )
        if self.loss_over not in LOSS_OVER:
            raise UsageError(f"loss_over is {' or '.join(LOSS_OVER)}, not {self.loss_over!r}.")

    def factor(self, iteration: int) -> float:
        """Return the factor of the learning rate in an iteration, counted from 0.

        (1 - t / iterations)^power, and below `warmup` also 1 - (1 - t / warmup)(1 - ratio): mmcv's
        poly policy with a linear warm-up and a minimum rate of 0.
        """
        poly: float = (1 - iteration / self.iterations) ** self.power
        if iteration >= self.warmup:
            return poly
        return poly * (1 - (1 - iteration / self.warmup) * (1 - self.warmup_ratio))

    def shortened(self, iterations: int) -> SegmentationRecipe:
        """Return the recipe with other iterations and a warm-up of the same share of them."""
        warmup = round(self.warmup * iterations / self.iterations)
        return replace(self, iterations=iterations, warmup=warmup)

    def to_json(self, named: SegmentationRecipe | None = None) -> dict[str, Any]:
        """Return every choice, and under `changed` those that differ from the named protocol."""
        named = named or SEGMENTATION_PROTOCOLS[self.protocol]
        seeds = ("seed", "init_seed")
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in seeds and getattr(self, field.name) != getattr(named, field.name)
        }
        return {**asdict(self), **_FIXED, "changed": changed}


PAPER = SegmentationRecipe()
RELEASED = SegmentationRecipe(
    protocol="released", representation="layers", upsample_first=1, loss_over="all"
)
SEGMENTATION_PROTOCOLS: Registry[SegmentationRecipe] = Registry(
    "protocol of segmentation", {"paper": PAPER, "released": RELEASED}
)


def named_recipe(protocol: str, encoder: str) -> SegmentationRecipe:
    """Return the recipe of a protocol for an encoder."""
    recipe = SEGMENTATION_PROTOCOLS[protocol]
    no_decay = protocol == "released" and encoder in NO_BIAS_DECAY
    return replace(recipe, decay_bias=False) if no_decay else recipe


@dataclass(frozen=True)
class RecipeOptions:
    """A protocol and what to change of it, as given on the command line.

    Every learning rate of `lrs` is trained with every seed of `init_seeds` (empty: those of the
    recipe). `changes` are further fields of the recipe, (name, value).
    """

    protocol: str = "paper"
    iterations: int | None = None
    lrs: tuple[float, ...] = ()
    init_seeds: tuple[int, ...] = ()
    batch: int | None = None
    seed: int | None = None
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def heads_per_set(self) -> int:
        """Number of heads for each label set."""
        return max(1, len(self.lrs)) * max(1, len(self.init_seeds))

    def recipe(self, encoder: str) -> SegmentationRecipe:
        """Return the recipe for an encoder, of which `lrs` and `init_seeds` make variants.

        Fewer iterations shorten the warm-up in proportion, unless it is given too. Raise
        `UnknownNameError` for an unknown field, `UsageError` for a field that is given twice, has
        another type, or has no effect with the others.
        """
        recipe = named_recipe(self.protocol, encoder)
        named = (("batch", self.batch), ("seed", self.seed))
        changes = [*((name, value) for name, value in named if value is not None), *self.changes]
        _check_fields(recipe, changes)
        by_name = dict(changes)
        for name, option, is_given in (
            ("iterations", "--iterations", self.iterations is not None),
            ("lr", "--lr", bool(self.lrs)),
            ("init_seed", "--init-seeds", bool(self.init_seeds)),
        ):
            if is_given and name in by_name:
                raise UsageError(f"{option} and --recipe {name}=… set the same field: give one.")
        iterations = by_name.pop("iterations", self.iterations)
        if iterations is not None:
            if iterations < 1:
                raise UsageError(f"--iterations {iterations}: expected 1 or more.")
            recipe = recipe.shortened(iterations)  # before `changes`, which may set the warm-up
        recipe = replace(recipe, **by_name)
        for name, reason, is_idle in (
            ("decay_bias", "weight_decay is 0", recipe.weight_decay == 0),
            ("warmup_ratio", "warmup is 0", recipe.warmup == 0),
            ("init_seed", "init_std is 0", recipe.init_std == 0),
        ):
            if is_idle and name in by_name:
                raise UsageError(f"--recipe {name}=… has no effect: {reason}.")
        if recipe.init_std == 0 and self.init_seeds:
            raise UsageError(
                "--init-seeds has no effect: init_std is 0, all initial weights are equal."
            )
        self.variants(recipe)  # raises for wrong rates and seeds before anything is read
        return recipe

    def variants(self, recipe: SegmentationRecipe) -> list[SegmentationRecipe]:
        """Return the recipe of every head of a label set."""
        return [
            replace(recipe, lr=lr, init_seed=seed)
            for lr in self.lrs or (recipe.lr,)
            for seed in self.init_seeds or (recipe.init_seed,)
        ]


def _check_fields(recipe: SegmentationRecipe, changes: Sequence[tuple[str, Any]]) -> None:
    """Raise for a field that is unknown, given twice, or of another type."""
    known = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    known.pop("protocol")
    names = [name for name, _ in changes]
    for name, value in changes:
        if names.count(name) > 1:
            raise UsageError(f"the recipe's {name} is given twice: give it once.")
        if name not in known:
            raise UnknownNameError("field of the recipe", name, known)
        kind = type(known[name])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UsageError(f"recipe {name}={value!r}: expected a {kind.__name__}.")
