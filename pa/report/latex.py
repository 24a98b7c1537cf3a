"""Render the tables as LaTeX with booktabs, one table per protocol."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from pa.report.cells import tables
from pa.report.figures import Figure, by_paper_figure, relative
from pa.report.report import Report
from pa.report.table_view import ShownCell, TableView, views_of
from pa.report.text import between, identifier, one_line

HEADING = """\
% Tables of the paper with the measured numbers; written by pa {version}.
% Needs \\usepackage{{booktabs}}. Claims and results need \\usepackage{{longtable}} too.
"""

WIDE = 3  # columns of numbers that fit a page in small print, ours with theirs
_NARROW = r"\scriptsize\setlength{\tabcolsep}{2.5pt}"  # wide tables fit a page this way

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
    signs = [_letter(sign) for sign in unicodedata.normalize("NFC", one_line(value))]
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
    base, *accents = list(unicodedata.normalize("NFD", sign))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        base = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"U+{ord(sign):04X}"


def latex(report: Report) -> str:
    """Return Tables 1 to 6, the claims, and the scores of every result."""
    parts = [HEADING.format(version=report.version)]
    for table in tables():
        parts += [_table(view) for view in views_of(report, table)]
    parts += [_claims(report), _results(report)]
    return "\n".join(parts)


def _table(view: TableView) -> str:
    table, n_columns = view.table, len(view.columns)
    caption = f"The paper's Table {table.number}: {escape(table.title)}. "
    label = f"tab:table{table.number}-"
    if view.protocol is None:
        caption += "The paper's numbers; none of them is measured."
        label += "published"
    else:
        caption += (
            f"Protocol {escape(view.protocol.title)}. Bold: ours, with the paper's number in small "
            f"print; other numbers are the paper's."
        )
        label += identifier(view.protocol.key)
    lines = [
        r"\begin{table}[t]",
        r"\centering" + (_NARROW if n_columns > WIDE and view.selected else r"\small"),
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{l{'r' * n_columns}}}",
        r"\toprule",
        *_heads(view),
    ]
    separator = r"\midrule"
    for family, rows in view.families.items():
        lines += [
            separator,
            rf"\multicolumn{{{n_columns + 1}}}{{l}}{{\textit{{{escape(family)}}}}} \\",
        ]
        lines += [_row([escape(row.title), *map(_cell, row.cells)]) for row in rows]
        separator = r"\addlinespace"
    lines += [r"\bottomrule", r"\end{tabular}"]
    if view.letters:
        notes = "; ".join(f"{_sup([sign])}~{escape(text)}" for sign, text in view.letters.items())
        lines.append(rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}.}}")
    return "\n".join([*lines, r"\end{table}", ""])


def _heads(view: TableView) -> Iterator[str]:
    first, rules, position = [""], "", 2
    for title, width in view.datasets:
        first.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
        rules += rf"\cmidrule(lr){{{position}-{position + width - 1}}}"
        position += width
    yield _row(first)
    yield rules
    yield _row(["Method", *(escape(head.title) for head in view.columns)])


def _cell(shown: ShownCell | None) -> str:
    if shown is None:
        return "--"
    if shown.ours is None:
        return shown.cell.printed
    ours = rf"\textbf{{{shown.ours.shown()}}}{_sup(shown.letters)}"
    return rf"{ours} {{\scriptsize {shown.cell.printed}}}"


def _sup(letters: Sequence[str]) -> str:
    return f"$^{{\\mathrm{{{','.join(letters)}}}}}$" if letters else ""


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _long_table(columns: str, caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that may span several pages, in small print."""
    lines = [
        r"\begingroup" + _NARROW,
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{caption}}}\\",
        r"\toprule",
        _row(heads),
        r"\midrule\endhead",
        *rows,
        r"\bottomrule",
        r"\end{longtable}",
        r"\endgroup",
        "",
    ]
    return "\n".join(lines)


def _claims(report: Report) -> str:
    names = ["The paper"]
    names += [f"Ours, {escape(source.title)}" for source in report.sources if source is not None]
    rows = []
    for item in report.judged:
        cells = [escape(item.claim.says), escape(item.claim.where)]
        for judgement in map(item.by, report.sources):
            verdict = judgement.verdict + ("*" if judgement.marks else "")
            if judgement.measured:  # the counts in small print below the verdict
                verdict += rf"\newline{{\tiny {escape(judgement.summary)}}}"
            cells.append(verdict)
        rows.append(_row(cells))
    n = 1 + len(names)
    return _long_table(
        rf"p{{{0.94 - 0.12 * n:.2f}\linewidth}}" + r"p{0.11\linewidth}" * n,
        "The paper's claims, judged from its own numbers and from ours. A star marks numbers that "
        "are not in the paper's setting.",
        ["Claim", "Where", *names],
        rows,
    )


_RESULT_COLUMNS = (0.15, 0.12, 0.09, 0.1, 0.055, 0.115, 0.055, 0.055, 0.12)  # of the line's width


def _results(report: Report) -> str:
    heads = ["Score", "Data", "Encoder", "Representation", "Ours", r"95\,\% interval"]
    rows = []
    for item in report.listed:
        cells = [
            f"{escape(item.task)}: {escape(item.score)}",
            *map(escape, (item.data, item.encoder, item.representation)),
            rf"\textbf{{{item.value:.2f}}}" if item.is_selected else f"{item.value:.2f}",
            between(item.interval, missing="--"),
            "--" if item.chance is None else f"{item.chance:.2f}",
            f"{item.n:,}",
            escape(item.protocol),
        ]
        rows.append(_row(cells))
    return _long_table(
        "".join(f"p{{{width}\\linewidth}}" for width in _RESULT_COLUMNS),
        "The scores of every result, in percent; points for differences. Bold: shown in a table of "
        "the paper.",
        [*heads, "Chance", "$n$", "Protocol"],
        rows,
    )


# -- figures --------------------------------------------------------------------------------------


def latex_figures(figures: Sequence[Figure], folder: Path, version: str) -> str:
    """Return the floats of a LaTeX file in `folder`, those of the paper first."""
    lines = [
        f"% Figures of the workspace; written by pa {version}.",
        "% Needs \\usepackage{graphicx}; paths are relative to the folder of this file.",
        "",
    ]
    for original, ours in by_paper_figure(figures):
        of = f"The paper's Figure {original.number}, ours: " if original else ""
        for figure in ours:
            if figure.printed is None:
                continue
            stores = f"Stores: {', '.join(figure.stores)}." if figure.stores else ""
            caption = " ".join(filter(None, [f"{of}{figure.title}.", figure.caption, stores]))
            label = re.sub(r"[^A-Za-z0-9]+", "-", f"{figure.folder}-{figure.name}").strip("-")
            path = relative(figure.printed, folder)
            lines += [
                r"\begin{figure}[p]",
                r"\centering",
                rf"\includegraphics[width=\linewidth]{{\detokenize{{{path}}}}}",
                rf"\caption{{{escape(caption)}}}",
                rf"\label{{figure-{label}}}",
                r"\end{figure}",
                "",
            ]
    return "\n".join(lines)
