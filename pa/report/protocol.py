"""The protocol of a number. Numbers of different protocols never share a column."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from pa.data.views import view_from_json
from pa.data.views.parts import PartsView, protocol_of
from pa.errors import PaError
from pa.evaluate.result_parts import Pair, TrainTest
from pa.evaluate.results import Result
from pa.probe.recipes import PART_STORES, PartStores

# Tables are shown in this order; protocols of other names follow.
ORDER = ("paper", "released", "imagenet", "imagenet-cae")  # of tables
NOT_KNOWN = "not known"  # a view of another version, or a task without protocols


@dataclass(frozen=True)
class Protocol:
    """The rules that produced a number.

    `recipe` names how it was trained or scored; `patches` the rules that cut the part patches, None
    if they belong to the recipe or no patches are used.
    """

    recipe: str
    patches: str | None = None

    @property
    def key(self) -> str:
        """Name for files: "paper", "paper-on-released"."""
        return self.recipe if self.patches is None else f"{self.recipe}-on-{self.patches}"

    @property
    def title(self) -> str:
        """Title: "paper", "paper, on patches cut by released"."""
        if self.patches is None:
            return self.recipe
        return f"{self.recipe}, on patches cut by {self.patches}".replace(
            f"by {NOT_KNOWN}", "by rules that are not known"
        )

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: the protocols of the paper first."""
        known = self.patches is None and self.recipe in ORDER
        return (ORDER.index(self.recipe) if known else len(ORDER), self.key)


def protocol_of_result(result: Result) -> tuple[Protocol, dict[str, Any]]:
    """Return the protocol of a result, and the rules of its patches that differ from the named."""
    recipe = result.protocol.name or NOT_KNOWN
    # Both stores of a difference are cut by one protocol, which its recipe names.
    stores = [] if isinstance(result.stores, Pair) else list(result.stores_by_role.values())
    if not any(store.view == "parts" for store in stores):
        return Protocol(recipe), {}
    names: list[str] = []
    changed: dict[str, Any] = {}
    for store in stores:
        name, rules = NOT_KNOWN, dict[str, Any]()
        with contextlib.suppress(PaError, TypeError, KeyError):  # a view of another version of pa
            view = view_from_json(store.spec["view"])
            if isinstance(view, PartsView):
                name, rules = protocol_of(view)
        names.append(name)
        changed |= rules
    # A recipe of a probe names the patches of both of its stores; others use their own.
    usual = PART_STORES.get(recipe, PartStores(recipe, recipe))
    expected = [usual.train, usual.test] if isinstance(result.stores, TrainTest) else [usual.test]
    # Usual patches belong to the recipe; only others are part of the name.
    if names == expected:
        return Protocol(recipe), changed
    return Protocol(recipe, " and ".join(dict.fromkeys(names))), changed
