"""Render the report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pa.report.cells import paper, published, tables
from pa.report.figures import Figure, by_paper_figure, relative
from pa.report.report import Report, source_name
from pa.report.table_view import ShownCell, TableView, views_of
from pa.report.text import between, one_line, printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def markdown(report: Report) -> str:
    """Return the report as one Markdown page, without its figures."""
    parts = [
        "# The paper and what was measured",
        f"{escape(paper())}.",
        f"Workspace {code(report.collection.root)}, {report.created:%Y-%m-%d %H:%M} UTC, "
        f"pa {report.version}.",
        f"{len(report.measured_cells)} of {len(published())} cells are measured, "
        f"{len(report.papers_cells)} of them with the paper's model, images and recipe.",
    ]
    if report.damaged:
        files = [(report.collection.relative(d.path), d.reason) for d in report.damaged]
        lines = "\n".join(f"- {code(path)}: {escape(reason)}" for path, reason in files)
        parts.append(f"{len(files)} files could not be read:\n\n{lines}")
    parts += [
        "## Tables",
        "A measured cell shows our number, then in brackets the paper's number and the difference "
        "in points. Letters refer to the differences of our number from the paper's setting, "
        "numbers to remarks on the paper's number.",
    ]
    for table in tables():
        views = views_of(report, table)
        parts += [f"### Table {table.number}: {escape(table.title)}", *map(_table, views)]
        if remarks := [f"{r.number}. {prose(r.issue.text)}" for r in views[0].remarks]:
            parts.append("\n".join(remarks))
    parts += ["## Claims", *_claims(report)]
    parts += ["## All results", *_results(report)]
    parts += ["## Sources of the tables", _sources(report)]
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


def _table(view: TableView) -> str:
    datasets = [title for title, n in view.datasets for _ in range(n)]
    columns = zip(datasets, view.columns, strict=True)
    heads = ["Method", *(f"{title} {head.title}{_sup(head.numbers)}" for title, head in columns)]
    rows = [
        [row.title + _sup(row.numbers), *map(_cell, row.cells)]
        for rows in view.families.values()
        for row in rows
    ]
    title = "Not measured:"
    if view.protocol is not None:
        title = f"Protocol {escape(view.protocol.title)}:"
    notes = "\n".join(f"- {letter}: {escape(text)}" for letter, text in view.letters.items())
    return "\n\n".join(filter(None, [title, grid(heads, rows, right=1), notes]))


def _cell(shown: ShownCell | None) -> str:
    if shown is None:
        return "–"
    published = shown.cell.printed + _sup(shown.numbers)
    if shown.ours is None:
        return published
    delta = shown.ours.shown_delta()
    signed = f"{delta:+}" if delta else "0.0"
    return f"**{shown.ours.shown()}**{_sup(shown.letters)} ({published}, {signed})"


def _sup(signs: Sequence[str]) -> str:
    return f"<sup>{','.join(signs)}</sup>" if signs else ""


def _claims(report: Report) -> Iterator[str]:
    rows = []
    for item in report.judged:
        row = [escape(item.claim.says), item.claim.where]
        for judgement in map(item.by, report.sources):
            verdict = judgement.verdict + ("\\*" if judgement.marks else "")
            row.append(f"{verdict} ({judgement.summary})" if judgement.measured else verdict)
        rows.append(row)
    yield grid(["Claim", "Where", *(escape(source_name(s)) for s in report.sources)], rows)
    if report.has_marked_claims:
        yield "\\* from numbers that are not in the paper's setting."
    if note := report.unpaired_note:
        yield f"{note}."
    rows = [
        [
            escape(item.claim.says),
            escape(source_name(judgement.protocol)),
            escape(outcome.comparison.words),
            f"{outcome.value:+.2f}" if outcome.value else "0.00",
            between(outcome.interval, "+.2f"),
            escape(outcome.basis),
            outcome.verdict,
        ]
        for item in report.judged
        for judgement in item.ours
        for outcome in judgement.outcomes
        if outcome.is_measured
    ]
    if rows:
        heads = ["Claim", "By", "Comparison", "Difference", "95 % interval", "Basis", "Verdict"]
        yield f"<details><summary>The {len(rows)} measured comparisons</summary>"
        yield grid(heads, rows)
        yield "Differences of two of our numbers are in points, before rounding.\n\n</details>"


def _results(report: Report) -> Iterator[str]:
    heads = ["Score", "Data", "Encoder", "Representation", "Ours", "95 % interval", "Chance", "n"]
    rows = [
        [
            f"{escape(item.task)}: {escape(item.score)}",
            escape(item.data),
            escape(item.encoder),
            escape(item.representation),
            f"**{item.value:.2f}**" if item.is_selected else f"{item.value:.2f}",
            between(item.interval, missing="–"),
            "–" if item.chance is None else f"{item.chance:.2f}",
            f"{item.n:,} {item.unit}",
            escape(item.protocol),
            escape(item.in_the_paper) or "–",
            code(item.file),
        ]
        for item in report.listed
    ]
    yield grid([*heads, "Protocol", "In the paper", "File"], rows)
    yield "Percent; points for differences. Bold numbers are shown in a table above."


def _sources(report: Report) -> str:
    files = {selected.ours.file: selected.ours for selected in report.selected.values()}
    rows = [[code(name), escape(o.model), code(o.command)] for name, o in sorted(files.items())]
    return grid(["File", "Model", "Command"], rows) if rows else "None."


# -- figures --------------------------------------------------------------------------------------


def markdown_figures(figures: Sequence[Figure], folder: Path) -> Iterator[str]:
    """Yield paragraphs of a Markdown page in `folder`, with linked pictures."""
    for original, ours in by_paper_figure(figures):
        if original is None:
            yield "### Other figures"
        else:
            yield f"### {escape(original.heading)}"
            yield f"The paper ({escape(original.where)}): {escape(original.shows)}."
            if not ours:
                yield f"Ours is not drawn: {code(original.command)}"
        for figure in ours:
            title = escape(figure.title)
            if figure.shown is None:
                yield f"{title}: not shown, {escape(figure.why_not)}."
            else:
                yield f"![{title}](<{relative(figure.shown, folder)}>)"
            yield " ".join(filter(None, [f"**{title}.**", escape(figure.caption)]))
            if figure.command:
                stores = ", ".join(map(code, figure.stores))
                yield code(figure.command) + (f" from {stores}" if stores else "")
