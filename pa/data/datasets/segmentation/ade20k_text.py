"""The text files of ADE20K's images: `.json` (2021_17_01) or `_atr.txt` (2016/17).

Masks need neither. They name every object and part with its level, and thereby show whether a
release numbers its classes as the label lists do, and whether its masks are complete.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pa.data.datasets.annotations import parse_json as load_json
from pa.data.datasets.annotations import read_text as load_text
from pa.data.datasets.segmentation import labels
from pa.errors import AnnotationError, MismatchError

ENCODING = "latin-1"  # names are ASCII; free text in the same file is not always valid UTF-8
ATR_FIELDS = 6  # instance # part level # occluded # class name # raw name # attributes


@dataclass(frozen=True)
class TextEntry:
    """One object or part: level (0 = object), class name, and class number if the file has it."""

    level: int
    name: str
    number: int | None = None


@dataclass(frozen=True)
class AdeText:
    """The entries of the text file of one image."""

    path: Path
    entries: tuple[TextEntry, ...]

    @property
    def levels(self) -> int:
        """Number of levels, including that of the objects."""
        return max((entry.level for entry in self.entries), default=0) + 1

    def differences(self, level: int, in_mask: Counter[int]) -> str:
        """Compare the instances of a level with `in_mask`, instances of each class number.

        Return "" if they agree. Only classes of the label lists are compared: no label depends on
        others. They are compared by name, since `_atr.txt` has no numbers.
        """
        known = known_names()
        masked: Counter[str] = Counter()
        for number, n in in_mask.items():
            if number in known:
                masked[known[number]] += n
        names = set(known.values())
        named = Counter(e.name for e in self.entries if e.level == level and e.name in names)
        differing = [
            f"{name} {masked[name]} against {named[name]}"
            for name in sorted(masked | named)
            if masked[name] != named[name]
        ]
        if not differing:
            return ""
        title = f"level {level}, instances in the mask against {self.path.name}"
        return f"{title}: {', '.join(differing)}"


@lru_cache(maxsize=1)
def known_names() -> dict[int, str]:
    """Return class number → full class name for every class of the object and part lists."""
    return {
        number: name
        for dataset in ("ade20k-object", "ade20k-part")
        for entry in labels.load(dataset).classes
        for number, name in zip(entry.keys["ade20k_index"], entry.keys["ade20k_names"], strict=True)
    }


def read_text(image: Path) -> AdeText | None:
    """Read the text file of an image; None if it has none. Raise `AnnotationError`."""
    for path, parse in (
        (image.with_suffix(".json"), parse_json),
        (image.with_name(f"{image.stem}_atr.txt"), parse_atr),
    ):
        if path.is_file():
            return AdeText(path, tuple(parse(load_text(path, ENCODING), path)))
    return None


def parse_json(text: str, path: Path) -> list[TextEntry]:
    """Read the objects of a `.json` of 2021_17_01."""
    content: Any = load_json(text, path)
    try:
        return [
            TextEntry(int(entry["parts"]["part_level"]), str(entry["name"]), int(entry["name_ndx"]))
            for entry in content["annotation"]["object"]
        ]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        actual = (
            ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        )
        raise AnnotationError(
            f"{path}: not an annotation of ADE20K 2021_17_01: expected annotation.object[] with "
            f"name, name_ndx and parts.part_level; found {actual[:80]}."
        ) from None


def parse_atr(text: str, path: Path) -> list[TextEntry]:
    """Read the lines of an `_atr.txt` of 2016/17: six fields between `#`."""
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
        entries.append(TextEntry(int(fields[1]), fields[3]))
    return entries


def check_numbers(text: AdeText) -> None:
    """Raise `MismatchError` if the text numbers or names a listed class differently."""
    known = known_names()
    listed_names = set(known.values())
    for entry in text.entries:
        if entry.number is None:
            continue
        listed = known.get(entry.number)
        if listed == entry.name or (listed is None and entry.name not in listed_names):
            continue
        expected = (
            f"{entry.name!r} has another" if listed is None else f"{entry.number} is {listed!r}"
        )
        raise MismatchError(
            f"{text.path}: {entry.name!r} has the number {entry.number}. In the index of "
            f"2016_07_26, on which the label lists are based, {expected}. This release numbers its "
            "classes differently: masks made from it would be wrong."
        )
