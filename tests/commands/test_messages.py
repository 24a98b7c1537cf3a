"""Commands that messages recommend: each exists, with its options and values."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from pa.cli import cli

PACKAGE = Path(__file__).parents[2] / "pa"
INSERTED = "\0"  # stands for a value of an f-string
START = re.compile(r"(?:^|(?<=[\s`('\"]))pa (?=[a-z])")
# Sentences about pa itself, not commands.
PROSE = {"wrote", "loads", "itself"}


FOREIGN = {"--array"}  # options of other programs


@dataclass(frozen=True)
class Command:
    """A command in a message: where it is, and its words after `pa`."""

    source: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source}: pa {' '.join(self.words)}".replace(INSERTED, "{}")


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string; values of f-strings and sums of strings are filled in."""
    parts: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in parts:
            continue
        if (text := rendered(node)) is not None:
            parts.update(id(inner) for inner in ast.walk(node))
            yield getattr(node, "lineno", 0), text


def rendered(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(rendered(value) or INSERTED for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = rendered(node.left), rendered(node.right)
        if sides != (None, None):
            return "".join(INSERTED if side is None else side for side in sides)
    return None


def commands() -> Iterator[Command]:
    for file in sorted(PACKAGE.rglob("*.py")):
        for line, text in texts(ast.parse(file.read_text(encoding="utf-8"))):
            for match in START.finditer(text):
                words = words_of(text[match.end() :], quoted=text[: match.start()].endswith("`"))
                if words[0].rstrip(".,:") not in PROSE and "…" not in words[0]:
                    yield Command(f"{file.relative_to(PACKAGE.parent)}:{line}", tuple(words))


def words_of(rest: str, *, quoted: bool) -> list[str]:
    """Return the words of the command at the start of a text, to the closing quote or line end."""
    rest = rest.split("`")[0] if quoted else rest.split("\n")[0].split("   ")[0]
    try:
        words = shlex.split(" ".join(rest.split()), comments=True)
    except ValueError:  # an apostrophe of the sentence around it
        words = rest.split()
    return words or [""]


def check(words: Sequence[str]) -> None:
    """Raise `click.UsageError` unless the words name a command, its options and their values.

    Words behind them that are not options belong to the sentence.
    """
    command, rest = resolve([word.rstrip(".,;:)") for word in words])
    options = options_of(command)
    if command.name == "submit":  # its arguments are another command
        options |= options_of(resolve(rest)[0]) if rest else {}
    context = click.Context(command, **cli.context_settings)
    while rest:
        flag, _, value = rest.pop(0).partition("=")
        if not flag.startswith("--") or flag == "--" or INSERTED in flag:
            continue
        if flag not in options:
            raise click.UsageError(f"no option {flag}")
        option = options[flag]
        if option.is_flag or not (value or rest):
            continue
        value = value or rest.pop(0)
        if not is_placeholder(value):
            option.type.convert(value, option, context)


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the first words name, and the words behind it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not is_placeholder(words[0]):
        actual = command.commands.get(words[0])
        if actual is None:
            raise click.UsageError(f"no command {words[0]!r} in {command.name}")
        command, words = actual, words[1:]
    return command, words


def options_of(command: click.Command) -> dict[str, click.Option]:
    options = [option for option in command.params if isinstance(option, click.Option)]
    return {flag: option for option in options for flag in option.opts + option.secondary_opts}


def is_placeholder(value: str) -> bool:
    return INSERTED in value or value.isupper() or "…" in value or value.startswith("<")


COMMANDS = list(commands())


def test_commands_are_found() -> None:
    """The scan reads f-strings, sums and lists of lines: it does not pass by finding nothing."""
    actual = {command.words[:2] for command in COMMANDS}
    assert {("index", "build"), ("verify", "--repair"), ("probe", "linear")} <= actual


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("serach --query-id 3", "no command"),
        ("search --cheese 3", "no option"),
        ("extract --dtype fp64", "fp64"),
        ("figure scores", "no command"),
    ],
)
def test_invalid_command_is_detected(words: str, what: str) -> None:
    with pytest.raises(click.UsageError) as refused:
        check(tuple(words.split()))
    assert what in refused.value.format_message()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.source)
def test_commands_in_messages_are_valid(command: Command) -> None:
    check(command.words)


def test_options_in_messages_exist() -> None:
    """Also where the command is not named next to it."""
    known = FOREIGN | {"--help", "--version"}
    for command in all_commands(cli):
        known |= options_of(command).keys()
    unknown = [
        f"{file.relative_to(PACKAGE.parent)}:{line}: {flag}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for line, text in texts(ast.parse(file.read_text(encoding="utf-8")))
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)
        if flag not in known
    ]
    assert unknown == []


def all_commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from all_commands(inner)
