"""What is there of a dataset, beside what its official release holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pa.data.annotations import Boxes
from pa.data.datasets import Expected, Images, Kind
from pa.data.headers import read_headers
from pa.data.part_rows import PartCounts
from pa.data.parts import PROTOCOLS
from pa.errors import MissingError
from pa.progress import Progress


@dataclass(frozen=True)
class SplitCheck:
    """What was found in one split.

    `missing` are files that the annotations list; `unreadable` files whose header Pillow cannot
    read, with the reason; `turned` counts images that EXIF rotates (None: headers were not read).
    `parts` holds the counts of view `parts` by protocol.
    """

    split: str
    images: int
    classes: int
    expected: Expected | None
    missing: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    turned: int | None = None
    remarks: list[str] = field(default_factory=list)
    parts: Mapping[str, PartCounts] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every file that is listed can be read."""
        return not self.missing and not self.unreadable

    def to_json(self) -> dict[str, Any]:
        fields = {name: value for name, value in vars(self).items() if name != "parts"}
        return {
            **fields,
            "expected": asdict(self.expected) if self.expected else None,
            "parts": {name: counts.to_json() for name, counts in self.parts.items()},
        }


def check_split(images: Images, kind: Kind, headers: bool, progress: Progress) -> SplitCheck:
    """Count one split, and read the header of each of its images where `headers` asks for it."""
    table = images.table
    here = table["file_bytes"] >= 0
    paths = table["path"].filter(here).to_list()
    unreadable, turned = _headers(images, paths, progress) if headers else ([], None)
    return SplitCheck(
        split=images.split,
        images=len(table),
        classes=table["label"].drop_nulls().n_unique(),
        expected=kind.expected.get(images.split),
        missing=table["path"].filter(~here).to_list(),
        unreadable=unreadable,
        turned=turned,
        remarks=kind.remarks(table) if kind.remarks else [],
        parts=_parts(images),
    )


def _headers(
    images: Images, paths: list[str], progress: Progress
) -> tuple[list[tuple[str, str]], int]:
    progress.start(f"{images.dataset}/{images.split}: headers", len(paths), "images")
    unreadable, turned = [], 0
    try:
        for path, header in zip(paths, read_headers(images.root, paths), strict=True):
            if header.fault is not None:
                unreadable.append((path, header.fault))
            turned += header.turned
            progress.advance(1)
    finally:
        progress.stop()
    return unreadable, turned


def _parts(images: Images) -> dict[str, PartCounts]:
    """The counts of view `parts` under every protocol that fits the annotations."""
    if images.read_annotations is None:
        return {}
    names = ("boxes",) if isinstance(images.annotations(), Boxes) else ("paper", "released")
    counts = {}
    for name in names:
        try:
            counts[name] = PROTOCOLS[name].select(images).counts
        except MissingError:  # no row under this protocol: a sample may be that small
            continue
    return counts
