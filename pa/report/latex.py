"""Render tables and figures as LaTeX from the templates of this package.

The templates have delimiters that LaTeX does not use: `<< value >>` and `<% statement %>`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment

from pa.report.figures import Figure, by_paper_figure
from pa.report.rendering import context, environment
from pa.report.report import Report
from pa.report.text import one_line

_SPECIAL = {  # characters that LaTeX or its fonts treat in another way
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "×": r"$\times$",
    "–": r"\textendash{}",
    "’": "'",
    "`": "{`}",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "✓": "yes",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_ACCENTS = {  # combining characters, and the accents of LaTeX
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def escape(value: object) -> str:
    """Escape text for LaTeX and put it on one line.

    >>> escape("a_b 50 %")
    'a\\\\_b 50 \\\\%'
    """
    # Composed characters first: an accent alone would have no base letter.
    signs = [_letter(sign) for sign in unicodedata.normalize("NFC", one_line(value))]
    # Two hyphens in a row would become a dash.
    return re.sub("-(?=-)", "-{}", "".join(signs))


def _letter(sign: str) -> str:
    """Return one character for LaTeX.

    Accented letters are composed; a character that the fonts lack, which would stop LaTeX, is
    written as its code point.
    """
    if known := _SPECIAL.get(sign):
        return known
    if sign.isascii():
        return sign
    # An accent that is written as a command needs no input encoding.
    base, *accents = list(unicodedata.normalize("NFD", sign))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"U+{ord(sign):04X}"


def latex(report: Report) -> str:
    """Return Tables 1 to 6, the claims, and the scores of every result."""
    return _environment().get_template("tables.tex").render(context(report))


def latex_figures(figures: Sequence[Figure], folder: Path, version: str) -> str:
    """Return the floats of a LaTeX file in `folder`, those of the paper first."""
    template = _environment().get_template("figures.tex")
    return template.render(figures=by_paper_figure(figures), folder=folder, version=version)


@cache
def _environment() -> Environment:
    filters = {"label": lambda name: re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")}
    return environment(
        escape,
        filters,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
