"""The paper's tables with our numbers: one table per protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from pa.report.cells import Table, dataset_titles, encoders, families, kind_title, tables
from pa.report.html.graphics import Scale, interval
from pa.report.html.markup import Child, Markup, prose, scrolled, table, tag
from pa.report.html.words import count, ends, signed, spoken
from pa.report.measured import Measured
from pa.report.report import Report
from pa.report.selection import SelectedResult
from pa.report.table_view import Marks, Remark, TableView, views_of
from pa.report.text import identifier


def section(report: Report) -> Markup:
    """Render Tables 1 to 6."""
    return tag(
        "section",
        tag("h2", "Tables"),
        tag(
            "p",
            "A measured cell holds our number and its difference to the paper in points, then "
            "both on a scale that all rows of a column share, and the paper's number below. A "
            "difference is that of the two numbers as shown.",
            class_="lead",
        ),
        _legend(),
        (_article(report, printed) for printed in tables()),
        id="tables",
    )


def _legend() -> Markup:
    scale = Scale(0, 10)
    return tag(
        "p",
        interval(scale, 6, (4, 8), 2.5, "the legend: a dot with whiskers, and a bar"),
        tag("span", "dot and whisker: ours", class_="key ours"),
        tag("span", "bar: the paper", class_="key theirs"),
        tag("span", "a, b … why ours is not of the paper's setting", class_="key"),
        tag("span", "1, 2 … what to know of the paper's number", class_="key"),
        class_="legend",
    )


def _article(report: Report, printed: Table) -> Markup:
    views = views_of(report, printed)
    parts: list[Child] = [
        tag("h3", f"Table {printed.number}", tag("span", printed.title, class_="subtitle")),
    ]
    for view in views:
        if view.protocol is None:
            hint = "Nothing of it is measured: these are the paper's numbers."
            parts += [tag("p", hint, class_="hint"), _grid(view)]
            continue
        measured = f"{len(view.selected)} of {len(printed.cells)} cells measured"
        parts += [
            tag(
                "h4",
                "Protocol ",
                tag("span", view.protocol.title, class_="protocol"),
                tag("span", measured, class_="count"),
            ),
            _grid(view),
            _letters(view.marks),
            _numbers(view),
        ]
    return tag("article", parts, _known(views[0].remarks), id=f"table-{printed.number}")


# -- the table as the paper prints it -------------------------------------------------------------


def _grid(view: TableView) -> Markup:
    printed, protocol = view.table, view.protocol
    caption = f"Table {printed.number}: {printed.title}" + (
        f", protocol {protocol.title}" if protocol else ", the paper's numbers"
    )
    scales = {column: _scale(view, column) for column in printed.columns}
    rows = []
    for family, names in groupby(encoders().values(), key=lambda entry: entry.family):
        heading = tag(
            "tr",
            tag("th", families()[family], colspan=len(printed.columns) + 1, scope="rowgroup"),
            class_="family",
        )
        body = [
            tag(
                "tr",
                tag("th", name.title, _sup(view.numbers("row", name.name)), scope="row"),
                (_cell(view, name.name, column, scales[column]) for column in printed.columns),
            )
            for name in names
        ]
        rows.append(tag("tbody", heading, body))
    return scrolled(
        caption, tag("table", tag("caption", caption), _heads(view), rows, class_="paper")
    )


def _scale(view: TableView, column: str) -> Scale:
    """Return the scale that all rows of a column share."""
    values = [cell.value for cell in view.table.cells if cell.column == column]
    for selected in view.selected.values():
        if selected.cell.column == column:
            values += [selected.ours.value, *(selected.ours.interval or ())]
    return Scale.over(values)


def _heads(view: TableView) -> Markup:
    columns = view.table.columns
    by_dataset = groupby(columns, key=lambda column: column.partition("/")[0])
    groups = [(name, len(list(members))) for name, members in by_dataset]
    return tag(
        "thead",
        tag(
            "tr",
            tag("th", "Method", rowspan=2, scope="col"),
            (
                tag("th", dataset_titles()[name], colspan=n, scope="colgroup", class_="dataset")
                for name, n in groups
            ),
        ),
        tag(
            "tr",
            (
                tag("th", kind_title(column), _sup(view.numbers("column", column)), scope="col")
                for column in columns
            ),
        ),
    )


def _sup(marks: Sequence[str]) -> Markup | None:
    return tag("sup", ",".join(marks)) if marks else None


def _cell(view: TableView, encoder: str, column: str, scale: Scale) -> Markup:
    cell = view.table.at(encoder, column)
    if cell is None:
        return tag("td", tag("span", "–", class_="paper-number", aria_label="not in the paper"))
    numbers = _sup(view.numbers("cell", cell.key))
    selected = view.selected.get(cell.key)
    if selected is None:
        return tag("td", tag("span", cell.printed, class_="paper-number"), numbers)
    return tag(
        "td",
        tag(
            "div",
            tag("b", selected.shown()),
            _sup(view.marks.letters(selected)),
            " ",
            tag("span", signed(selected.shown_delta()), class_="delta"),
            class_="ours-number",
        ),
        interval(scale, selected.ours.value, selected.ours.interval, cell.value, spoken(selected)),
        tag("div", tag("span", cell.printed, class_="paper-number"), numbers),
        class_="measured" + ("" if selected.ours.is_papers else " marked"),
    )


def _letters(marks: Marks) -> Markup | None:
    if not marks.texts:
        return None
    return tag(
        "ul",
        (tag("li", tag("sup", sign), " ", text) for sign, text in marks.listed()),
        class_="letters",
        aria_label="Why these numbers are not of the paper's setting",
    )


def _known(known: Sequence[Remark]) -> Markup | None:
    if not known:
        return None
    return tag(
        "details",
        tag("summary", f"What to know of the paper's numbers ({len(known)})"),
        tag(
            "ol",
            (
                tag(
                    "li",
                    prose(item.issue.text),
                    " ",
                    tag("cite", item.issue.source),
                    value=item.number,
                )
                for item in known
            ),
            class_="known-issues",
        ),
    )


# -- every number in full -------------------------------------------------------------------------

HEADS = ("Cell", "Ours", "95 % interval", "Paper", "Δ", "n", "What it is of", "Source")


def _numbers(view: TableView) -> Markup:
    lines = (_line(selected) for selected in view.selected.values())
    return tag(
        "details",
        tag("summary", f"Each number in full ({len(view.selected)})"),
        scrolled(f"Each number of table {view.table.number} in full", table(HEADS, lines)),
    )


def _line(selected: SelectedResult) -> Markup:
    ours, cell = selected.ours, selected.cell
    title = f"{encoders()[cell.encoder].title}, {dataset_titles()[cell.dataset]}, "
    return tag(
        "tr",
        tag(
            "th",
            title,
            kind_title(cell.column),
            scope="row",
            id=identifier(f"{cell.key}-{ours.protocol.key}"),
        ),
        tag("td", selected.shown(2), class_="number"),
        tag("td", ends(ours.interval), tag("small", ours.interval_method), class_="number"),
        tag("td", cell.printed, class_="number"),
        tag("td", signed(selected.shown_delta(2), 2), class_="number"),
        tag("td", _counted(ours), class_="number"),
        tag("td", tag("ul", (tag("li", text) for text in _remarks_of(ours)))),
        tag("td", _source(selected)),
    )


def _counted(ours: Measured) -> Iterator[Child]:
    if ours.n is not None:
        yield f"{ours.n:,} {ours.unit}"
    if ours.n_images is not None:
        yield tag("small", f"of {count(ours.n_images, 'image')}")
    if ours.chance is not None:
        yield tag("small", f"chance {ours.chance:.1f}")


def _remarks_of(ours: Measured) -> list[str]:
    texts = [item.text for item in (*ours.marks, *ours.notes)]
    return texts if ours.deviates("model") else [f"model: {ours.model}", *texts]


def _source(selected: SelectedResult) -> Iterator[Child]:
    yield tag("code", selected.ours.file)
    stores = ", ".join(f"{store.role} {store.fingerprint}" for store in selected.ours.stores)
    yield tag("small", f"store: {stores}")
    yield tag("small", f"selected: {selected.why}")
    for other in selected.others:
        yield tag("small", f"not selected: {other.value:.1f}, ", tag("code", other.file))
