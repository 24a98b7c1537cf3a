"""The documentation says what the program does: its help texts, its commands, its links."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import pytest

from pa.cli import cli
from tests.docs.pages import ROOT, Block, blocks, commands, pages

HELP = runpy.run_path(str(ROOT / "docs" / "help_pages.py"))
COMMAND_PAGES = sorted((ROOT / "docs" / "commands").glob("*.md"))
SHELL = [block for page in pages() for block in blocks(page) if block.language == "sh"]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize("page", COMMAND_PAGES, ids=lambda page: page.stem)
def test_help_texts_are_those_of_now(page: Path) -> None:
    text = page.read_text()
    assert HELP["refreshed"](text) == text, "run `make docs`"


def test_every_command_has_its_help_on_a_page() -> None:
    shown = {
        tuple(match["words"].split())
        for page in COMMAND_PAGES
        for match in HELP["BLOCK"].finditer(page.read_text())
    }
    assert set(HELP["commands"]()) == shown


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_parse(block: Block) -> None:
    """Every `pa` command of a shell block has the options, and the kinds of values, it shows."""
    for words in commands(block):
        context = cli.make_context("pa", list(words))
        command: click.Command = cli
        try:
            while isinstance(command, click.Group):
                name, found, rest = command.resolve_command(
                    context, [*context._protected_args, *context.args]
                )
                assert found is not None
                command = found
                context = command.make_context(name, rest, parent=context)
        except click.exceptions.Exit:
            continue
        except click.UsageError as error:
            pytest.fail(f"{block}: pa {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        target = (page.parent / match[1]).resolve() if match[1] else page
        assert target.exists(), f"{page.name}: {match[0]}"
        if match[2] and target.suffix == ".md":
            assert match[2].removeprefix("#") in anchors(target), f"{page.name}: {match[0]}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(words.strip().replace(" ", "-"))
    return found
