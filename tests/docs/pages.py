"""Read the documentation: its pages, their fenced blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?P<kind>[\w -]+?)(?:: (?P<name>\S+))? -->\n$")


@dataclass(frozen=True)
class Block:
    """A fenced block with its language, text, first line in the page, and the comment before it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        mark = MARK.search(before)
        yield Block(
            page,
            before.count("\n") + 1,
            match[1],
            match[2],
            mark["kind"] if mark else "",
            (mark["name"] or "") if mark else "",
        )


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the `pa` commands of a shell block as words, with continued lines joined."""
    joined = block.text.replace("\\\n", " ")
    for line in joined.splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and "=" in words[0] and not words[0].startswith("-"):
                words = words[1:]  # VARIABLE=value before the command
            if words and words[0] == "pa":
                yield words[1:]
