"""The documentation matches the program: help texts, commands, links and paths of files."""

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
def test_help_texts_are_current(page: Path) -> None:
    text = page.read_text()
    assert HELP["refreshed"](text) == text, "run `make docs`"


def test_help_of_every_command_is_documented() -> None:
    documented = {
        tuple(match["words"].split())
        for page in COMMAND_PAGES
        for match in HELP["BLOCK"].finditer(page.read_text())
    }
    assert set(HELP["commands"]()) == documented


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_have_valid_options(block: Block) -> None:
    """Every `pa` command of a shell block exists and accepts its options and values."""
    for words in commands(block):
        context = cli.make_context("pa", list(words))
        command: click.Command = cli
        try:
            while isinstance(command, click.Group):
                name, subcommand, rest = command.resolve_command(
                    context, [*context._protected_args, *context.args]
                )
                assert subcommand is not None
                command = subcommand
                context = command.make_context(name, rest, parent=context)
        except click.exceptions.Exit:
            continue
        except click.UsageError as error:
            pytest.fail(f"{block}: pa {' '.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    for match in LINK.finditer(page.read_text()):
        target = (page.parent / match[1]).resolve() if match[1] else page
        assert target.exists(), f"{page.name}: {match[0]}"
        if match[2] and target.suffix == ".md":
            assert match[2].removeprefix("#") in anchors(target), f"{page.name}: {match[0]}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {words.strip().replace(" ", "-") for words in plain}
