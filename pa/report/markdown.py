"""Render the report as Markdown from the templates of this package."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from pa.report.figures import Figure, by_paper_figure
from pa.report.rendering import context, environment
from pa.report.report import Report
from pa.report.text import one_line, printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def markdown(report: Report) -> str:
    """Return the report as one Markdown page, without its figures."""
    comparisons = [
        (judgement, outcome)
        for item in report.judged
        for judgement in item.ours
        for outcome in judgement.outcomes
        if outcome.is_measured
    ]
    template = _environment().get_template("report.md")
    return template.render(context(report), comparisons=comparisons)


def markdown_figures(figures: Sequence[Figure], folder: Path) -> str:
    """Return the figures as a section of a Markdown page in `folder`, with linked pictures."""
    template = _environment().get_template("figures.md")
    return template.render(figures=by_paper_figure(figures), folder=folder)


@cache
def _environment() -> Environment:
    filters = {"code": lambda name: Markup(code(name)), "prose": lambda text: Markup(prose(text))}
    return environment(escape, filters)


def escape(value: object) -> str:
    """Escape text for Markdown and put it on one line."""
    return _SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", printable(value)))


def prose(words: str) -> str:
    """Escape text of this package, in which `backticks` mark code."""
    pieces = words.split("`")
    return "".join(code(p) if index % 2 else escape(p) for index, p in enumerate(pieces))


def code(value: object) -> str:
    """Return a name as inline code, between more backticks than it contains.

    A name with |, which would end a table cell, becomes HTML with numeric characters: Markdown
    readers differ in how they treat a backslash before |.
    """
    shown = one_line(value)
    if "|" in shown:
        coded = re.sub(r"[^A-Za-z0-9 ./-]", lambda match: f"&#{ord(match[0])};", shown)
        return f"<code>{coded}</code>"
    # CommonMark: a code span ends at the first run of as many backticks as it begins with.
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    # A backtick at an end would join the fence; one space on both sides is not shown.
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{room}{shown}{room}{fence}"
