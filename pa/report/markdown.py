"""Render the report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pa.report.cells import Table, dataset_titles, encoders, kind_title, paper, published, tables
from pa.report.numbers import source_name
from pa.report.protocol import Protocol
from pa.report.report import Judged, Report, all_protocols
from pa.report.table_view import TableView, views_of
from pa.report.text import one_line, printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def markdown(report: Report) -> str:
    """Return the report as one Markdown page."""
    parts = [
        "# The paper and what was measured",
        f"{escape(paper())}.",
        f"Workspace {code(report.collection.root)}, {report.created:%Y-%m-%d %H:%M} UTC, "
        f"pa {report.version}.",
        *_summary(report),
        "## Tables",
        "A measured cell holds our number, then in brackets the paper's and the difference of "
        "the two in points. Letters say why ours is not of the paper's setting, numbers what to "
        "know of the paper's.",
        *(part for table in tables() for part in _table(report, table)),
        "## Claims",
        *_claims(report),
        "## All results",
        *_all_results(report),
        "## Sources of the tables",
        *_results(report),
    ]
    return "\n\n".join(parts) + "\n"


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
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    room = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{room}{shown}{room}{fence}"


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], right: int = 99) -> str:
    """Return a table of Markdown cells; columns from `right` on are aligned right."""
    rule = ["---" if index < right else "---:" for index in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def _summary(report: Report) -> Iterator[str]:
    n_measured, n_exact = len(report.measured_cells), len(report.papers_cells)
    yield (
        f"{n_measured} of {len(published())} cells are measured, {n_exact} of them of the paper's "
        f"model, images and recipe."
    )
    if report.damaged:
        lines = [
            f"- {code(report.collection.relative(d.path))}: {escape(d.reason)}"
            for d in report.damaged
        ]
        yield f"{len(report.damaged)} files could not be read:\n\n" + "\n".join(lines)


def _table(report: Report, table: Table) -> Iterator[str]:
    views = views_of(report, table)
    yield f"### Table {table.number}: {escape(table.title)}"
    for view in views:
        yield _view(view)
    if remarks := views[0].remarks:
        yield "\n".join(f"{remark.number}. {prose(remark.issue.text)}" for remark in remarks)


def _view(view: TableView) -> str:
    table, protocol = view.table, view.protocol

    def shown(encoder: str, column: str) -> str:
        cell = table.at(encoder, column)
        if cell is None:
            return "–"
        published = cell.printed + _sup(view.numbers("cell", cell.key))
        if (selected := view.selected.get(cell.key)) is None:
            return published
        letters, delta = _sup(view.marks.letters(selected)), selected.shown_delta()
        return f"**{selected.shown()}**{letters} ({published}, {f'{delta:+}' if delta else '0.0'})"

    heads = ["Method"]
    for column in table.columns:
        dataset = dataset_titles()[column.partition("/")[0]]
        heads.append(f"{dataset} {kind_title(column)}{_sup(view.numbers('column', column))}")
    rows = [
        [
            encoder.title + _sup(view.numbers("row", encoder.name)),
            *(shown(encoder.name, column) for column in table.columns),
        ]
        for encoder in encoders().values()
    ]
    title = f"Protocol {escape(protocol.title)}:" if protocol else "Nothing of it is measured:"
    notes = "\n".join(f"- {sign}: {escape(text)}" for sign, text in view.marks.listed())
    return "\n\n".join(filter(None, [title, grid(heads, rows, right=1), notes]))


def _sup(signs: Sequence[str]) -> str:
    return f"<sup>{','.join(signs)}</sup>" if signs else ""


def _claims(report: Report) -> Iterator[str]:
    sources: list[Protocol | None] = [None, *all_protocols(report)]
    heads = ["Claim", "Where", *(escape(source_name(source)) for source in sources)]
    rows = [
        [
            escape(item.claim.says),
            item.claim.where,
            *(_verdict(item, source) for source in sources),
        ]
        for item in report.judged
    ]
    yield grid(heads, rows)
    if any(judgement.marks for item in report.judged for judgement in item.ours):
        yield "\\* from numbers that are not of the paper's setting."
    if note := report.unpaired_note:
        yield f"{note}."
    yield from _comparisons(report)


def _verdict(judged: Judged, source: Protocol | None) -> str:
    judgement = judged.by(source)
    if not judgement.measured:
        return "not measured"
    star = "\\*" if judgement.marks else ""
    return f"{judgement.verdict}{star} ({judgement.summary})"


def _comparisons(report: Report) -> Iterator[str]:
    """Yield the outcome of each measured comparison, in a collapsed block."""
    rows = [
        [
            escape(item.claim.says),
            escape(source_name(judgement.protocol)),
            escape(outcome.comparison.words),
            f"{outcome.value:+.2f}" if outcome.value else "0.00",
            "" if outcome.interval is None else " to ".join(f"{e:+.2f}" for e in outcome.interval),
            escape(outcome.basis),
            outcome.verdict,
        ]
        for item in report.judged
        for judgement in item.ours
        for outcome in judgement.outcomes
        if outcome.is_measured
    ]
    if not rows:
        return
    heads = ["Claim", "By", "Comparison", "Difference", "95 % interval", "Basis", "Verdict"]
    yield f"<details><summary>The {len(rows)} comparisons that are measured</summary>"
    yield grid(heads, rows)
    yield (
        "Differences of two of our numbers are in points and taken before either is rounded.\n\n"
        "</details>"
    )


def _all_results(report: Report) -> Iterator[str]:
    """Yield the scores of every result; bold ones are shown in a table of the paper."""
    heads = ["Score", "Data", "Encoder", "Representation", "Ours", "95 % interval", "Chance", "n"]
    rows = [
        [
            f"{escape(item.task)}: {escape(item.score)}",
            escape(item.data),
            escape(item.encoder),
            escape(item.representation),
            f"**{item.value:.2f}**" if item.is_selected else f"{item.value:.2f}",
            "–" if item.interval is None else " to ".join(f"{end:.2f}" for end in item.interval),
            "–" if item.chance is None else f"{item.chance:.2f}",
            "–" if item.n is None else f"{item.n:,} {item.unit}",
            escape(item.protocol),
            escape(item.in_the_paper) or "–",
            code(item.file),
        ]
        for item in report.listed
    ]
    yield grid([*heads, "Protocol", "In the paper", "File"], rows)
    yield "Percent; points for differences. Bold: shown in a table above."


def _results(report: Report) -> Iterator[str]:
    files = {selected.ours.file: selected.ours for selected in report.selected.values()}
    if not files:
        yield "None."
        return
    rows = [
        [code(name), escape(ours.model), code(ours.command)] for name, ours in sorted(files.items())
    ]
    yield grid(["File", "Model", "Command"], rows)
