"""The documentation matches the program: help texts, commands, links and paths of files."""

from __future__ import annotations

import ast
import importlib
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
# Paths of the repository in backticks, with * for any name.
FILE = re.compile(r"`(?:python )?((?:pa|tests|benchmarks|tools|docs)/[\w./*-]+)`")
EXAMPLE_FILES = {"pa/commands/X/Y.py"}
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


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    missing = [
        path
        for path in FILE.findall(page.read_text())
        if not any(ROOT.glob(path)) and path not in EXAMPLE_FILES
    ]
    assert not missing


PYTHON = [block for page in pages() for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_imports_of_examples_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pa":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block}: {node.module}.{alias.name}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {words.strip().replace(" ", "-") for words in plain}
