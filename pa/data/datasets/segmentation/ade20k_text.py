"""The text beside ADE20K's masks: `.json` (2021_17_01) or `_atr.txt` (2016/17).

Masks need neither. They name every object and part with its level, and so tell whether a release
counts its classes as the label lists do, and whether its masks are whole.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pa.data.datasets.segmentation import labels
from pa.data.datasets.text import parse_json as load_json
from pa.data.datasets.text import read_text as load_text
from pa.errors import AnnotationError, MismatchError

ENCODING = "latin-1"  # names are ASCII; free text beside them is not always valid UTF-8
ATR_FIELDS = 6  # instance # part level # occluded # class name # raw name # attributes


@dataclass(frozen=True)
class Named:
    """One object or part: its level (0 = object), class name, and class number if it is given."""

    level: int
    name: str
    number: int | None = None


@dataclass(frozen=True)
class AdeText:
    """What the text beside an image names."""

    path: Path
    entries: tuple[Named, ...]

    @property
    def levels(self) -> int:
        """How many levels there are, that of the objects counted."""
        return max((entry.level for entry in self.entries), default=0) + 1

    def differences(self, level: int, shown: Counter[int]) -> str:
        """Compare the instances of a level; empty where the text names as many as the mask shows.

        `shown` counts the instances of each class number in the mask. Classes of the label lists
        are compared, by their names: no label depends on others, and a text has no other numbers.
        """
        known = known_names()
        in_masks: Counter[str] = Counter()
        for number, n in shown.items():
            if number in known:
                in_masks[known[number]] += n
        names = set(known.values())
        in_text = Counter(e.name for e in self.entries if e.level == level and e.name in names)
        told = [
            f"{name} {in_masks[name]} against {in_text[name]}"
            for name in sorted(in_masks | in_text)
            if in_masks[name] != in_text[name]
        ]
        if not told:
            return ""
        return f"level {level}, instances in the mask against {self.path.name}: {', '.join(told)}"


@lru_cache(maxsize=1)
def known_names() -> dict[int, str]:
    """Class number → full class name, for every class of the lists of objects and parts."""
    sets = [labels.load("ade20k-object")]
    sets += [labels.load("ade20k-part", name) for name in labels.LISTS["ade20k-part"]]
    return {
        number: name
        for label_set in sets
        for entry in label_set.classes
        for number, name in zip(entry.keys["ade20k_index"], entry.keys["ade20k_names"], strict=True)
    }


def read_text(image: Path) -> AdeText | None:
    """Read the text beside an image; None where there is none. Raises `AnnotationError`."""
    for path, parse in (
        (image.with_suffix(".json"), parse_json),
        (image.with_name(f"{image.stem}_atr.txt"), parse_atr),
    ):
        if path.is_file():
            return AdeText(path, tuple(parse(load_text(path, ENCODING), path)))
    return None


def parse_json(text: str, path: Path) -> list[Named]:
    """The objects of a `.json` of 2021_17_01."""
    content: Any = load_json(text, path)
    try:
        return [
            Named(int(one["parts"]["part_level"]), str(one["name"]), int(one["name_ndx"]))
            for one in content["annotation"]["object"]
        ]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        found = (
            ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        )
        raise AnnotationError(
            f"{path}: not an annotation of ADE20K 2021_17_01: expected annotation.object[] with "
            f"name, name_ndx and parts.part_level; found {found[:80]}."
        ) from None


def parse_atr(text: str, path: Path) -> list[Named]:
    """The lines of an `_atr.txt` of 2016/17: six fields between `#`."""
    entries = []
    # Not splitlines: in latin-1 it also breaks at the second byte of an Å in UTF-8.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        fields = [part.strip() for part in line.split("#", ATR_FIELDS - 1)]
        if len(fields) != ATR_FIELDS or not re.fullmatch("[0-9]{1,4}", fields[1]):
            raise AnnotationError(
                f"{path}, line {number}: expected `instance # part level # occluded # class name # "
                f"raw name # attributes`; found {line[:60]!r}."
            )
        entries.append(Named(int(fields[1]), fields[3]))
    return entries


def check_numbers(text: AdeText) -> None:
    """Raise `MismatchError` where a class of the lists has another number or name in the text."""
    known = known_names()
    numbers = defaultdict(set)
    for number, name in known.items():
        numbers[name].add(number)
    for entry in text.entries:
        if entry.number is None:
            continue
        listed = known.get(entry.number)
        if listed not in (None, entry.name) or (
            entry.name in numbers and entry.number not in numbers[entry.name]
        ):
            raise MismatchError(
                f"{text.path}: {entry.name!r} has the number {entry.number}. In the index of "
                f"2016_07_26, on which the label lists are based, {_listed(entry, listed)}. This "
                "release numbers its classes differently: masks of it would be wrong."
            )


def _listed(entry: Named, listed: str | None) -> str:
    if listed is not None:
        return f"{entry.number} is {listed!r}"
    return f"{entry.name!r} has another"
