"""The label sets of the segmentation datasets: frozen lists, shipped as JSON with their provenance.

A list says which classes there are and how they are found in the official annotation. It is never
changed by what lies on disk: `pa datasets check` prints the difference instead.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from pa.errors import UnknownNameError

IGNORED = 255  # class id of a pixel that is neither trained nor scored
DEFAULT = "default"

# Dataset → its lists. The first is the default; `ade20k-part` has two named alternatives.
LISTS: dict[str, tuple[str, ...]] = {
    "ade20k": (DEFAULT,),
    "ade20k-object": (DEFAULT,),
    "ade20k-part": (DEFAULT, "level1", "pairs50"),
    "pascal-object": (DEFAULT,),
    "pascal-part": (DEFAULT,),
    "lip": (DEFAULT,),
}


@dataclass(frozen=True)
class LabelClass:
    """One class. Its pixels have the value `id + 1` in an index PNG.

    `keys` says how the class is found in the annotation and what is known of it: `ade20k_index`
    (1-based class numbers of the full ADE20K), `ade150`, `voc_class`, counts, evidence.
    """

    id: int
    name: str
    object: str | None = None
    part: str | None = None
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> int:
        """Pixel value in an index PNG: 1 … n; 0 is ignored."""
        return self.id + 1


@dataclass(frozen=True)
class LabelSet:
    """A frozen list of classes and the rule that makes masks of it."""

    dataset: str
    list_name: str
    title: str
    paper_classes: int
    certainty: str
    source: str
    rule: str
    classes: tuple[LabelClass, ...]
    dropped: tuple[Any, ...] = ()
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    @property
    def label(self) -> str:
        """The dataset, with the list where it is not the default: `ade20k-part (pairs50)`."""
        return self.dataset if self.list_name == DEFAULT else f"{self.dataset} ({self.list_name})"

    def provenance(self) -> dict[str, Any]:
        """What a report or a result says of the list."""
        return {
            "dataset": self.dataset,
            "list": self.list_name,
            "title": self.title,
            "classes": len(self),
            "certainty": self.certainty,
            "sha256": self.sha256,
        }


@lru_cache(maxsize=16)
def load(dataset: str, list_name: str = DEFAULT) -> LabelSet:
    """Load a label set. Raises `UnknownNameError` for a dataset or a list that there is not."""
    if dataset not in LISTS:
        raise UnknownNameError("label set", dataset, LISTS)
    if list_name not in LISTS[dataset]:
        raise UnknownNameError(f"list of {dataset}", list_name, LISTS[dataset])
    name = dataset if list_name == DEFAULT else f"{dataset}.{list_name}"
    text = (resources.files(__name__) / f"{name}.json").read_text(encoding="utf-8")
    fields = json.loads(text)
    classes = tuple(_class(entry) for entry in fields["classes"])
    return LabelSet(
        dataset=dataset,
        list_name=list_name,
        **{key: fields[key] for key in ("title", "paper_classes", "certainty", "source", "rule")},
        classes=classes,
        dropped=tuple(fields.get("dropped", ())),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def _class(fields: dict[str, Any]) -> LabelClass:
    own = ("id", "name", "object", "part")
    keys = {name: value for name, value in fields.items() if name not in own}
    return LabelClass(fields["id"], fields["name"], fields.get("object"), fields.get("part"), keys)
