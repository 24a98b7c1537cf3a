"""Render the tables as LaTeX with booktabs, one table per protocol."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from pa.report.cells import Table, dataset_titles, encoders, families, kind_title, tables
from pa.report.judging import Judgement
from pa.report.protocol import Protocol
from pa.report.report import Judged, Report, all_protocols
from pa.report.results import ListedResult
from pa.report.table_view import Marks, TableView, views_of
from pa.report.text import identifier, one_line

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
    table, protocol = view.table, view.protocol

    def shown(encoder: str, column: str) -> str:
        cell = table.at(encoder, column)
        if cell is None:
            return "--"
        if (selected := view.selected.get(cell.key)) is None:
            return cell.printed
        letters = ",".join(view.marks.letters(selected))
        sup = f"$^{{\\mathrm{{{letters}}}}}$" if letters else ""
        return rf"\textbf{{{selected.shown()}}}{sup} {{\scriptsize {cell.printed}}}"

    columns = table.columns
    lines = [
        r"\begin{table}[t]",
        r"\centering" + (_NARROW if len(columns) > WIDE and view.selected else r"\small"),
        rf"\caption{{{_caption(table, protocol)}}}",
        rf"\label{{tab:{_label(table, protocol)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        *_heads(columns),
        r"\midrule",
    ]
    for position, (family, names) in enumerate(
        groupby(encoders().values(), lambda entry: entry.family)
    ):
        if position:
            lines.append(r"\addlinespace")
        title = escape(families()[family])
        lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\textit{{{title}}}}} \\")
        for name in names:
            cells = " & ".join(shown(name.name, column) for column in columns)
            lines.append(rf"{escape(name.title)} & {cells} \\")
    lines += [r"\bottomrule", r"\end{tabular}", *_notes(view.marks), r"\end{table}", ""]
    return "\n".join(lines)


def _caption(table: Table, protocol: Protocol | None) -> str:
    text = f"The paper's Table {table.number}: {escape(table.title)}."
    if protocol is None:
        return f"{text} The paper's numbers; nothing of it is measured."
    return (
        f"{text} Protocol {escape(protocol.title)}. Bold: ours, with the paper's number in small "
        f"print; other numbers are the paper's."
    )


def _label(table: Table, protocol: Protocol | None) -> str:
    return f"table{table.number}-" + (identifier(protocol.key) if protocol else "published")


def _heads(columns: Sequence[str]) -> Iterator[str]:
    first, rules, position = [""], [], 2
    for dataset, members in groupby(columns, key=lambda column: column.partition("/")[0]):
        width = len(list(members))
        first.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(dataset_titles()[dataset])}}}")
        rules.append(rf"\cmidrule(lr){{{position}-{position + width - 1}}}")
        position += width
    yield " & ".join(first) + r" \\"
    yield "".join(rules)
    yield " & ".join(["Method", *(escape(kind_title(column)) for column in columns)]) + r" \\"


def _notes(marks: Marks) -> Iterator[str]:
    if marks.texts:
        text = "; ".join(
            f"$^{{\\mathrm{{{sign}}}}}$~{escape(text)}" for sign, text in marks.listed()
        )
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {text}.}}"


def _claims(report: Report) -> str:
    sources: list[Protocol | None] = [None, *all_protocols(report)]
    names = ["The paper", *(f"Ours, {escape(s.title)}" for s in sources if s is not None)]
    width = 0.94 - 0.12 * (1 + len(sources))
    columns = rf"p{{{width:.2f}\linewidth}}" + r"p{0.11\linewidth}" * (1 + len(sources))
    return _long_table(
        columns,
        "The paper's claims, judged from its own numbers and from ours. A star: from numbers that "
        "are not of the paper's setting.",
        ["Claim", "Where", *names],
        [_claim(item, sources) for item in report.judged],
    )


def _long_table(columns: str, caption: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that may span several pages, in small print."""
    lines = [
        r"\begingroup" + _NARROW,
        rf"\begin{{longtable}}{{{columns}}}",
        rf"\caption{{{caption}}}\\",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule\endhead",
        *rows,
        r"\bottomrule",
        r"\end{longtable}",
        r"\endgroup",
        "",
    ]
    return "\n".join(lines)


def _claim(judged: Judged, sources: Sequence[Protocol | None]) -> str:
    verdicts = []
    for source in sources:
        judgement = judged.by(source)
        star = "*" if judgement.marks else ""
        verdicts.append(f"{judgement.verdict}{star}" + _counted(judgement))
    cells = [escape(judged.claim.says), escape(judged.claim.where), *verdicts]
    return " & ".join(cells) + r" \\"


def _counted(judgement: Judgement) -> str:
    """Return the counts of the comparisons, in small print below the verdict."""
    return rf"\newline{{\tiny {escape(judgement.summary)}}}" if judgement.measured else ""


_RESULT_COLUMNS = (0.15, 0.12, 0.09, 0.1, 0.055, 0.115, 0.055, 0.055, 0.12)  # of the line's width


def _results(report: Report) -> str:
    heads = ["Score", "Data", "Encoder", "Representation", "Ours", r"95\,\% interval"]
    heads += ["Chance", "$n$", "Protocol"]
    columns = "".join(f"p{{{width}\\linewidth}}" for width in _RESULT_COLUMNS)
    return _long_table(
        columns,
        "The scores of every result, in percent; points for differences. Bold: shown in a table of "
        "the paper.",
        heads,
        [_result(item) for item in report.listed],
    )


def _result(result: ListedResult) -> str:
    value = f"{result.value:.2f}"
    cells = [
        f"{escape(result.task)}: {escape(result.score)}",
        escape(result.data),
        escape(result.encoder),
        escape(result.representation),
        rf"\textbf{{{value}}}" if result.is_selected else value,
        "--" if result.interval is None else " to ".join(f"{end:.2f}" for end in result.interval),
        "--" if result.chance is None else f"{result.chance:.2f}",
        "--" if result.n is None else f"{result.n:,}",
        escape(result.protocol),
    ]
    return " & ".join(cells) + r" \\"
