"""The official releases that datasets with label maps are built from."""

from __future__ import annotations

from pathlib import Path

from pa.data.datasets.segmentation import ade20k, labels, lip, pascal
from pa.data.datasets.segmentation.build import BuildPlan
from pa.errors import MissingError, UnknownNameError

# Rules of a builder; the first is the default.
RULES = {"ade20k-object": ("challenge", "seg"), "pascal-part": ("file", "area")}

# Layouts of releases that differ from the built tree.
LAYOUTS = {
    **dict.fromkeys(("ade20k-object", "ade20k-part"), ade20k.RELEASE),
    **dict.fromkeys(("pascal-object", "pascal-part"), pascal.RELEASE),
}


def plan_build(
    kind: str, root: Path, *, images: Path | None = None, rule: str | None = None
) -> BuildPlan:
    """Plan the build of a dataset from its official release in `root`, by one of `RULES`.

    `images` is the folder of VOC2010 if it is not below `root`. Raise `UnknownNameError` for a
    dataset without label maps or an unknown rule, `MissingError` with the expected layout.
    """
    if kind not in labels.LABEL_SETS:
        raise UnknownNameError("dataset with label maps", kind, labels.LABEL_SETS)
    if not root.is_dir():
        raise MissingError(f"--root {root} is not a folder.")
    rules = RULES.get(kind, ())
    if rule is not None and rule not in rules:
        raise UnknownNameError(f"rule of {kind}", rule, rules)
    if kind in ("pascal-part", "pascal-object"):
        return pascal.plan(kind, root, images, rule)
    if kind == "lip":
        return lip.plan(root)
    if kind == "ade20k-object":
        return ade20k.plan_objects(root, rule)
    return ade20k.plan_parts(root) if kind == "ade20k-part" else ade20k.plan_scenes(root)
