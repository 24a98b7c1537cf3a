"""Fields, checks and records that the recipes of all probes share, and the stores they pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from pa.data.store.spec import Difference
from pa.data.views.parts import PROTOCOLS
from pa.errors import UnknownNameError, UsageError

LAST, BEST_ON_TEST = "last epoch", "best epoch on the test split"
MAX_SEED = 2**62  # further seeds are counted up from a recipe's seed, within 64 bits


class SgdRecipe:
    """Fields, checks and JSON of a recipe that trains with SGD; its subclasses are dataclasses."""

    protocol: str
    lr: float
    lr_per: int | None
    epochs: int
    batch: int
    momentum: float
    weight_decay: float
    warmup: int
    seed: int

    def check(self, choices: Mapping[str, tuple[str, ...]]) -> None:
        """Raise `UnknownNameError` for a field outside `choices`, `UsageError` for a number."""
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise UnknownNameError(f"{name} of a recipe", str(getattr(self, name)), known)
        if self.epochs < 1 or self.batch < 1:
            raise UsageError(
                f"epochs and batch must be 1 or more, not {self.epochs} and {self.batch}."
            )
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise UsageError(
                f"the learning rate must be positive and the momentum at least 0 and below 1, not "
                f"{self.lr} and {self.momentum}."
            )
        if not self.weight_decay >= 0:  # refuses NaN, too
            raise UsageError(f"weight decay must not be negative: {self.weight_decay}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"the seed must be between 0 and {MAX_SEED}, not {self.seed}.")
        if not 0 <= self.warmup < self.epochs:
            raise UsageError(
                f"the warm-up must be shorter than the training: {self.warmup} of {self.epochs} "
                f"epochs."
            )

    def peak(self, lr: float) -> float:
        """Return the largest rate of a step for a value of the field `lr`."""
        return lr if self.lr_per is None else lr * self.batch / self.lr_per

    def as_json(self, named: SgdRecipe, fixed: Mapping[str, str]) -> dict[str, Any]:
        """Return all fields, the `fixed` choices, and the fields changed from recipe `named`."""
        values = asdict(self)  # type: ignore[call-overload]
        changed = {
            name: value
            for name, value in values.items()
            if name != "seed" and getattr(self, name) != getattr(named, name)
        }
        return {**values, **fixed, "changed": changed}


class PartStores(NamedTuple):
    """The protocols of view `parts` whose stores a recipe trains on and tests on."""

    train: str
    test: str


# Stores of view `parts` that belong to a recipe, linear or attentive, of this name. A recipe that
# is not listed leaves the choice to the settings.
PART_STORES: Mapping[str, PartStores] = {
    "paper": PartStores("paper", "paper"),
    "released": PartStores("released-train", "released"),
}


def permitted_differences(protocol: str) -> tuple[Difference, ...]:
    """Return the only differences allowed between training and test store of a protocol.

    They are the fields of the view in which the protocols of the two stores differ.
    """
    if protocol not in PART_STORES:
        return ()
    train, test = (PROTOCOLS[name].to_json() for name in PART_STORES[protocol])
    return tuple(
        (f"view.{name}", value, test[name]) for name, value in train.items() if value != test[name]
    )
