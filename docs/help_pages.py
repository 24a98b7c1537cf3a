"""Bring the help texts in docs/commands/*.md up to date: `make docs`.

Every fenced block of these pages that begins with `$ pa … --help` is replaced by what that command
prints now, 100 columns wide. The words around the blocks are written by hand. A test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pa.cli import cli

COMMANDS = Path(__file__).parent / "commands"
BLOCK = re.compile(r"^```text\n\$ pa(?P<words>[^\n]*) --help\n.*?^```$", re.MULTILINE | re.DOTALL)
WIDTH = 100


def commands(group: click.Group = cli, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command and sub-command, in the order of `pa --help`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))


def help_text(words: tuple[str, ...]) -> str:
    """What `pa <words> --help` prints."""
    context = click.Context(cli, info_name="pa", **_settings(cli))
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        if found is None:
            raise SystemExit(f"there is no command `pa {' '.join(words)}`")
        command = found
        context = click.Context(command, parent=context, info_name=word, **_settings(command))
    return command.get_help(context)


def _settings(command: click.Command) -> dict[str, int | list[str]]:
    # The group's own settings hold for its sub-commands by inheritance; width is pinned here.
    return {**command.context_settings, "terminal_width": WIDTH}


def refreshed(text: str) -> str:
    """The text of a page with the help texts of now."""

    def block(match: re.Match[str]) -> str:
        words = match["words"]
        return f"```text\n$ pa{words} --help\n{help_text(tuple(words.split()))}\n```"

    return BLOCK.sub(block, text)


def main() -> None:
    for page in sorted(COMMANDS.glob("*.md")):
        before = page.read_text()
        if (after := refreshed(before)) != before:
            page.write_text(after)
            print(f"{page.name}: help texts brought up to date")


if __name__ == "__main__":
    main()
