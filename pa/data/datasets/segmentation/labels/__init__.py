"""Label sets of the segmentation datasets: frozen lists, shipped as JSON with their provenance.

A list states the classes and how each is found in the official annotation. Files on disk never
change it.
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
# The label sets are the JSON files next to this module.
LABEL_SETS = tuple(
    sorted(
        file.name.removesuffix(".json")
        for file in resources.files(__name__).iterdir()
        if file.name.endswith(".json")
    )
)


@dataclass(frozen=True)
class LabelClass:
    """One class; its pixels have the value `id + 1` in an index PNG.

    `keys` identifies the class in the annotation and documents it: `ade20k_index` (1-based class
    numbers of the full ADE20K), `ade150`, `voc_class`, counts, evidence.
    """

    id: int  # from 0
    name: str
    object: str | None = None  # of Pascal: the object of a part
    part: str | None = None
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> int:
        """Pixel value in an index PNG: 1 … n; 0 is ignored."""
        return self.id + 1


@dataclass(frozen=True)
class LabelSet:
    """A frozen list of classes, and the rule that turns annotations into masks."""

    dataset: str
    list_name: str
    title: str
    paper_classes: int  # number stated by the paper
    certainty: str
    source: str
    rule: str
    classes: tuple[LabelClass, ...]
    sha256: str  # of the file of the list

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    def provenance(self) -> dict[str, Any]:
        """Return what reports and results record about the list."""
        origin = {"dataset": self.dataset, "list": self.list_name, "title": self.title}
        return {**origin, "classes": len(self), "certainty": self.certainty, "sha256": self.sha256}


@lru_cache(maxsize=16)
def load(dataset: str) -> LabelSet:
    """Load the label set of a dataset. Raise `UnknownNameError` for a dataset without one."""
    if dataset not in LABEL_SETS:
        raise UnknownNameError("label set", dataset, LABEL_SETS)
    text = (resources.files(__name__) / f"{dataset}.json").read_text(encoding="utf-8")
    fields = json.loads(text)
    classes = []
    for entry in fields["classes"]:
        names = {name: entry.pop(name, None) for name in ("id", "name", "object", "part")}
        classes.append(LabelClass(**names, keys=entry))
    return LabelSet(
        dataset=dataset,
        list_name=fields["list"],
        **{key: fields[key] for key in ("title", "paper_classes", "certainty", "source", "rule")},
        classes=tuple(classes),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
