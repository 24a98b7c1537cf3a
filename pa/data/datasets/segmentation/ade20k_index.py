"""The class counts that ADE20K's own index gives, beside the ones that are expected.

`index_ade20k.mat` (release 2016_07_26) holds for every name and image the number of instances and
how many of them are parts. It has no parent links: which object a part belongs to, and so the lists
of 59 and 209, cannot be computed from it. What can be is recomputed here, and printed.

Shapes: C names (3,148), I images (22,210).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.datasets.segmentation import labels
from pa.data.datasets.segmentation.labels import LabelSet
from pa.errors import AnnotationError

INDEX_NAME = "index_ade20k.mat"
FIELDS = ("filename", "objectnames", "objectPresence", "objectIsPart")
SHARES = {0.1: 221, 0.25: 215, 0.45: 209, 0.5: 206, 0.75: 197, 0.9: 182}
MIN_IMAGES = {2: 190, 3: 168, 5: 137, 10: 113, 20: 82}
MIN_INSTANCES = {2: 203, 3: 184, 5: 165, 10: 137, 20: 104}
MIN_TRAIN_IMAGES = {2: 221, 3: 216, 5: 207, 10: 188}


@dataclass(frozen=True)
class Count:
    """One count: what was counted, what was found, what is expected (a number or a range)."""

    what: str
    found: int
    expected: str

    @property
    def agrees(self) -> bool:
        low, _, high = self.expected.partition("..")
        return int(low) <= self.found <= int(high or low)

    @property
    def exceeds(self) -> bool:
        return self.found > int(self.expected.rpartition("..")[2])

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "agrees": self.agrees}


@dataclass(frozen=True)
class AdeIndex:
    """Names (C,), instances and instances that are parts (C, I), and which images train (I,)."""

    names: list[str]
    instances: npt.NDArray[np.float32]
    parts: npt.NDArray[np.float32]
    is_train: npt.NDArray[np.bool_]

    def images(self, split: str) -> npt.NDArray[np.int64]:
        """Images of a split in which a name is a part, (C,)."""
        images: npt.NDArray[np.int64] = np.count_nonzero(self._of(split) > 0, axis=1)
        return images

    def part_instances(self, split: str) -> npt.NDArray[np.float64]:
        """Instances of a name in a split that are parts, (C,)."""
        instances: npt.NDArray[np.float64] = self._of(split).sum(axis=1, dtype=np.float64)
        return instances

    def _of(self, split: str) -> npt.NDArray[np.float32]:
        return self.parts[:, self.is_train if split == "train" else ~self.is_train]


def find_index(root: Path) -> Path | None:
    """The index file in a folder or right below it."""
    return next(iter([*root.glob(INDEX_NAME), *sorted(root.glob(f"*/{INDEX_NAME}"))]), None)


def read_index(path: Path) -> AdeIndex:
    """Read `index_ade20k.mat`. Raises `AnnotationError` for a file of another kind."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True)
        index = content["index"]
        names, files, instances, parts = (
            index[name].item() for name in ("objectnames", "filename", *FIELDS[2:])
        )
        shape = (len(names), len(files))
        if instances.shape != shape or parts.shape != shape:
            raise ValueError(f"counts of shape {instances.shape} for {shape} names and images")
    except Exception as error:  # noqa: BLE001 - scipy and numpy raise many types on other files
        raise AnnotationError(
            f"{path}: not the index of ADE20K: expected the variable `index` with "
            f"{', '.join(FIELDS)}; {type(error).__name__}: {error}."
        ) from None
    is_train = np.array([str(name).startswith("ADE_train_") for name in files])
    return AdeIndex([str(name) for name in names], instances, parts, is_train)


def count_index(index: AdeIndex) -> list[Count]:
    """Every count of the index that bears on the 209 parts."""
    train, val = index.images("train"), index.images("val")
    both = (train > 0) & (val > 0)
    counts = [
        Count("names that are a part anywhere", _n((train > 0) | (val > 0)), "476"),
        Count("names that are a part in a training image", _n(train > 0), "464"),
        Count("names that are a part in a validation image", _n(val > 0), "243"),
        Count("names that are a part in both splits", _n(both), "231"),
    ]
    counts += [
        Count(f"… in at least {n} images of each", _n((train >= n) & (val >= n)), str(expected))
        for n, expected in MIN_IMAGES.items()
    ]
    in_train, in_val = index.part_instances("train"), index.part_instances("val")
    counts += [
        Count(f"… {n} instances in each", _n((in_train >= n) & (in_val >= n)), str(expected))
        for n, expected in MIN_INSTANCES.items()
    ]
    counts += [
        Count(f"… {n} training images and one validation image", _n((train >= n) & both), str(e))
        for n, e in MIN_TRAIN_IMAGES.items()
    ]
    share = (in_train + in_val) / np.maximum(index.instances.sum(axis=1, dtype=np.float64), 1)
    counts += [
        Count(
            f"… a part in more than {level:.0%} of its occurrences",
            _n(both & (share > level)),
            str(expected),
        )
        for level, expected in SHARES.items()
    ]
    return counts + list(_lists(index, both))


def _n(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _lists(index: AdeIndex, both: npt.NDArray[np.bool_]) -> Iterator[Count]:
    """The frozen lists against the index: what each leaves of the names, and whether they agree."""
    numbers = {name: number for number, name in enumerate(index.names)}
    for name in ("default", "level1"):
        label_set = labels.load("ade20k-part", name)
        dropped = {
            entry["part"] if isinstance(entry, dict) else entry for entry in label_set.dropped
        }
        left = both.copy()
        left[[numbers[part] for part in dropped if part in numbers]] = False
        yield Count(f"names in both splits without those the list {name} drops", _n(left), "209")
    default = labels.load("ade20k-part")
    supported = [c for c in default.classes if c.keys["evidence"] != "undecided"]
    yield Count(
        "classes of the list default with a known owner among the 59", len(supported), "201..217"
    )
    for name in labels.LISTS["ade20k-part"]:
        label_set = labels.load("ade20k-part", name)
        yield Count(
            f"classes of the list {name} whose number, name and image counts the index has",
            _agreeing(index, label_set),
            str(len(label_set)),
        )


def _agreeing(index: AdeIndex, label_set: LabelSet) -> int:
    train, val = index.images("train"), index.images("val")
    agreeing = 0
    for entry in label_set.classes:
        place = entry.keys["ade20k_index"][0] - 1
        there = (
            (index.names[place], int(train[place]), int(val[place]))
            if place < len(index.names)
            else None
        )
        keys = entry.keys
        agreeing += there == (keys["ade20k_names"][0], keys["train_images"], keys["val_images"])
    return agreeing
