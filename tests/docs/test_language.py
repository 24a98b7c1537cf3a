"""Plain technical English: no word of the banned list in docs, help texts, code or test names."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pa.cli import cli
from tests.docs.pages import ROOT, pages

SOURCES = sorted(
    path
    for folder in ("pa", "tests", "benchmarks", "tools", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__).resolve()
)
WEB_FILES = sorted(
    path for path in (ROOT / "pa").rglob("*.*") if path.suffix in {".html", ".js", ".css", ".j2"}
)

# Phrases banned from all prose. Each has an everyday replacement in docs/decisions/0004-language.md.
PHRASES = [
    r"so many",
    r"(?<!there )(is|are|was|were) no(?! (longer|more|less|such|need|different|better|worse))",
    r"(?-i:is none|was none)",
    r"lies? (in|at|under|below|beside|where|there|here)",
    r"where [\w /'`-]{1,40} lies?",
    r"as (it|they) lies?",
    r"of (your|my|one.s) own",
    r"one's",
    r"in (the|their|its|other) hands?( of)?",
    r"another hand",
    r"to be had",
    r"go(es)? round|in circles",
    r"nobody|nobody's",
    r"at work",
    r"as a person",
    r"at (its|their) most",
    r"meant",
    r"told|tells?|telling",
    r"said",
    r"besides?",
    r"(go|goes|going|went|gone) on",
    r"falls? away",
    r"stands? (in|at|beside|behind|before|there|side|next|where|too)",
    r"good news",
    r"worth while",
    r"giv(e|es|ing) way",
    r"anew|afresh|hitherto|whence|thence|thither|whither|thereof|nought|ought|shall",
    r"in (the )?place of",
    r"in (its|their) place",
    r"in the way",
    r"at hand",
    r"of now",
    r"how far (it|they|every|each|all)",
    r"the very",
    r"comes? along",
    r"where there (is|are)",
    r"what there (is|are|was)",
    r"(what|that|which|all) (is|are|was|were) (not )?there",
    r"(is|are|was|were) not there",
    r"(is|are|was|were) to be",
    r"(for )?want of",
    r"dear(er|est)?",
    r"paints|painted",
    r"seals?|sealed|unsealed",
    r"kinship",
    r"oddity|oddities",
    r"departures?|departs?|departed",
    r"retyping|retype|retyped",
    r"(?<!keeps )(?<!keep )pace",
    r"rivals?",
    r"outlook",
    r"veil|veiled",
    r"patience",
    r"choosers?",
    r"troubles?",
    r"misfits?",
    r"(store|occupied|its|the) slot",
    r"donors?",
    r"surface of (a|the) sweep",
    r"wholly|many a",
]
PROSE = [re.compile(rf"\b(?:{phrase})(?!\w)", re.IGNORECASE) for phrase in PHRASES]

# Names that say nothing about their value, and metaphors. Only definitions are read, so a
# keyword of another library is never reported.
NAMES = re.compile(
    r"one|found|place|there|told|said|given|mine|theirs|thing|things|way|ways|course|gate"
    r"|plate|plates|made|taken|taking|take_all|beside|exam|exams|kinship|trouble|troubles|looked"
    r"|look_ahead|outlook|painted|paint|veil|patience|seal|seals|sealed|unseal|recall_file"
    r"|rival|rivals|departure|departures|departs|oddity|oddities|retyping|pace|scatter"
    r"|chooser|choosers|left_out|leftout|misfits|folk|hand|hands|own"
)


def words(name: str) -> str:
    """Return an identifier in lower case with underscores: `TakenResult` is `taken_result`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def joined(text: str) -> str:
    """Return a text on one line, so that a phrase broken over two lines is recognised."""
    return re.sub(r"\s+", " ", text)


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every string, docstrings and f-strings included."""
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [
                str(value.value) if isinstance(value, ast.Constant) else "{}"
                for value in node.values
            ]
            yield node.lineno, "".join(parts)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield comments; those on successive lines are one text."""
    start, last, lines = 0, -2, []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and lines:
                yield start, " ".join(lines)
                lines = []
            start = start if lines else token.start[0]
            last = token.start[0]
            lines.append(token.string.lstrip("#: "))
    if lines:
        yield start, " ".join(lines)


def definitions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every name that a module defines: variables, parameters, fields, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield getattr(node, "lineno", 0), node.asname


def phrases(text: str) -> list[str]:
    """Return the banned phrases of a text."""
    return [match[0] for pattern in PROSE for match in pattern.finditer(joined(text))]


def faults_of_source(path: Path) -> list[str]:
    """Return the banned words of a Python file, each with its line."""
    text = path.read_text()
    tree = ast.parse(text)
    faults = []
    for line, passage in (*literals(tree), *comments(text)):
        faults += [f"{line}: '{phrase}'" for phrase in phrases(passage)]
    for line, name in definitions(tree):
        if NAMES.fullmatch(words(name)):
            faults.append(f"{line}: name {name}")
        if name.startswith("test_"):
            faults += [f"{line}: {name}" for _ in phrases(name.replace("_", " "))]
    if NAMES.fullmatch(words(path.stem)):
        faults.append(f"0: module {path.stem}")
    return faults


def faults_of_text(path: Path) -> list[str]:
    return [f"'{phrase}'" for phrase in phrases(path.read_text())]


def parameters(
    command: click.Command = cli, name: str = "pa"
) -> Iterator[tuple[str, click.Command, click.Option]]:
    """Yield every option of every command with the words that select the command."""
    for option in command.params:
        if isinstance(option, click.Option):
            yield name, command, option
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found_command = command.get_command(context, child)
            assert found_command is not None
            yield from parameters(found_command, f"{name} {child}")


def faults_of_help() -> list[str]:
    """Return the options whose help is not made of complete sentences."""
    faults = set()
    for name, command, option in parameters():
        text = option.help or ""
        whole = re.match(r"[A-Z0-9`(-]", text) and text.endswith((".", ".)"))
        if not whole or phrases(text):
            faults.add(f"{name} {option.opts[0]}: {text!r}")
        faults |= {f"{name}: '{phrase}'" for phrase in phrases(command.help or "")}
    return sorted(faults)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_uses_plain_english(path: Path) -> None:
    assert not faults_of_source(path)


# The record of the decision lists the words that it replaces.
PAGES = [path for path in pages() if path.name != "0004-language.md"]


@pytest.mark.parametrize("path", [*PAGES, *WEB_FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_page_uses_plain_english(path: Path) -> None:
    assert not faults_of_text(path)


def test_help_consists_of_complete_sentences() -> None:
    assert not faults_of_help()


def test_banned_phrases_are_recognised() -> None:
    """The patterns match what they are for, and leave ordinary English alone."""
    assert phrases("the data lies\nin an image of your own") == ["lies in", "of your own"]
    assert phrases("x.txt is no PNG") == ["is no"]
    assert not phrases("there is no index; it is no longer valid; lists in retold order")
    assert words("TakenResult") == "taken_result"
