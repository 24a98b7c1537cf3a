"""What the recipes of all probes share: reported epoch, seeds, and the stores that go together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pa.data.store.spec import Difference
from pa.data.views.parts import PROTOCOLS

LAST, BEST_ON_TEST = "last epoch", "best epoch on the test split"
MAX_SEED = 2**62  # further seeds are counted up from a recipe's seed, within 64 bits


@dataclass(frozen=True)
class PartStores:
    """The protocols of view `parts` whose stores a recipe trains on and tests on."""

    train: str
    test: str

    def differences(self) -> tuple[Difference, ...]:
        """The fields of the view, and their two values, in which the two protocols differ."""
        train, test = PROTOCOLS[self.train].to_json(), PROTOCOLS[self.test].to_json()
        return tuple(
            (f"view.{name}", value, test[name])
            for name, value in train.items()
            if value != test[name]
        )


# Which stores of view `parts` go with a recipe, linear or attentive, of this name. A recipe that
# is not listed leaves the choice to the settings.
PART_STORES: Mapping[str, PartStores] = {
    "paper": PartStores("paper", "paper"),
    "released": PartStores("released-train", "released"),
}


def permitted_differences(protocol: str) -> tuple[Difference, ...]:
    """In what the training and the test stores of a protocol may differ, exactly."""
    pair = PART_STORES.get(protocol)
    return pair.differences() if pair else ()
