"""The official releases that datasets with label maps are built from, by name."""

from __future__ import annotations

from pathlib import Path

from pa.data.datasets.segmentation import ade20k, lip, pascal
from pa.data.datasets.segmentation.build import BuildPlan, Release
from pa.errors import MissingError, UnknownNameError

RELEASES: dict[str, Release] = {**ade20k.RELEASES, **pascal.RELEASES, **lip.RELEASES}


def plan_build(
    kind: str, root: Path, *, images: Path | None = None, rule: str | None = None
) -> BuildPlan:
    """Plan the build of a dataset from its official release in `root`, by one of its rules.

    `images` is the folder of VOC2010 if it is not below `root`. Raise `UnknownNameError` for a
    dataset without label maps or an unknown rule, `MissingError` with the expected layout.
    """
    if kind not in RELEASES:
        raise UnknownNameError("dataset with label maps", kind, RELEASES)
    if not root.is_dir():
        raise MissingError(f"--root {root} is not a folder.")
    if rule is not None and rule not in RELEASES[kind].rules:
        raise UnknownNameError(f"rule of {kind}", rule, RELEASES[kind].rules)
    return RELEASES[kind].plan(kind, root, images, rule)
