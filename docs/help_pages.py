"""Update the help texts in docs/commands/*.md; run by `make docs`.

Every fenced block that begins with `$ pa … --help` is replaced by the current output of that
command, 100 columns wide. The text between the blocks is written by hand. A test compares them.
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


def commands(group: click.Group = cli, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, in the order of `pa --help`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*parents, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*parents, name))


def help_text(words: tuple[str, ...]) -> str:
    """Return the output of `pa <words> --help`."""
    context = click.Context(cli, info_name="pa", **_settings(cli))
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        subcommand = command.get_command(context, word)
        if subcommand is None:
            raise SystemExit(f"unknown command `pa {' '.join(words)}`")
        command = subcommand
        context = click.Context(command, parent=context, info_name=word, **_settings(command))
    return command.get_help(context)


def _settings(command: click.Command) -> dict[str, int | list[str]]:
    # Subcommands inherit the settings of their group; only the width is fixed here.
    return {**command.context_settings, "terminal_width": WIDTH}


def refreshed(text: str) -> str:
    """Return a page with current help texts."""

    def block(match: re.Match[str]) -> str:
        words = match["words"]
        return f"```text\n$ pa{words} --help\n{help_text(tuple(words.split()))}\n```"

    return BLOCK.sub(block, text)


def main() -> None:
    for page in sorted(COMMANDS.glob("*.md")):
        before = page.read_text()
        if (after := refreshed(before)) != before:
            page.write_text(after)
            print(f"{page.name}: help texts updated")


if __name__ == "__main__":
    main()
