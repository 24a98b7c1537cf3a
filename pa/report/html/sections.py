"""The sections of the page: summary, figures, missing cells, results and provenance."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from pa.report.cells import dataset_titles, paper, published, tables
from pa.report.figures import Figure
from pa.report.html import claims
from pa.report.html.graphics import Bar, stacked
from pa.report.html.markup import Child, Markup, prose, scrolled, table, tag
from pa.report.html.words import MINUS, count, ends
from pa.report.paper_figures import by_paper_figure, others
from pa.report.report import Report
from pa.report.results import ListedResult


def summary(report: Report) -> Markup:
    """Render what was measured, and an overview of the claims."""
    total, n_measured = len(published()), len(report.measured_cells)
    by_papers, tally = len(report.papers_cells), report.tally(None)
    decided = [
        item
        for item in report.judged
        if any(by.verdict in ("holds", "does not hold") for by in item.ours)
    ]
    tiles: list[Child] = [
        _tile(
            f"{n_measured}",
            f"of {total} cells measured",
            stacked(
                [
                    Bar("holds", by_papers, f"{by_papers} in the paper's setting"),
                    Bar(
                        "open",
                        n_measured - by_papers,
                        f"{n_measured - by_papers} not in its setting",
                    ),
                    Bar("none", total - n_measured, f"{total - n_measured} not measured"),
                ],
                f"{by_papers} in the paper's setting, {n_measured - by_papers} not, "
                f"{total - n_measured} not measured",
            ),
        ),
        _tile(
            f"{by_papers}",
            "of them of the paper's model, images and recipe",
            None,
        ),
        _tile(
            f"{tally['holds']}",
            f"of {len(report.judged)} claims hold by the paper's own numbers",
            None,
        ),
        _tile(
            f"{len(decided)}",
            f"of {len(report.judged)} claims decided by ours, under one protocol or another",
            None,
        ),
    ]
    return tag(
        "section",
        tag("h2", "Summary"),
        _warning(report),
        _unread(report),
        tag("div", tiles, class_="tiles"),
        claims.glance(report),
        id="summary",
    )


def _tile(number: str, label: str, below: Markup | None) -> Markup:
    return tag("div", tag("b", number), tag("span", label), below, class_="tile")


def _warning(report: Report) -> Markup | None:
    numbers = [selected.ours for selected in report.selected.values()]
    marked = [ours for ours in numbers if not ours.is_papers]
    if not marked:
        return None
    models = dict.fromkeys(ours.model for ours in marked)
    which = f"{len(marked)} of our {len(numbers)} numbers are"
    if len(marked) == len(numbers):
        which = "None of our numbers is in the paper's setting: they are"
    return tag(
        "p",
        tag("strong", "Read with care. "),
        f"{which} of another model, a part of the images, or a changed recipe. Each is marked "
        f"with letters, and so are the claims that rest on it. Models: {'; '.join(models)}.",
        class_="care",
    )


def _unread(report: Report) -> Markup | None:
    if not report.damaged:
        return None
    return tag(
        "p",
        tag("strong", f"{count(len(report.damaged), 'file')} could not be read"),
        ": ",
        tag("a", "which, and why", href="#provenance"),
        ".",
        class_="care",
    )


def figures(report: Report) -> Markup:
    """Render a description of each figure of the paper with ours, then all other figures."""
    parts: list[Child] = []
    for original, ours in by_paper_figure(report.figures):
        parts.append(tag("h3", original.heading))
        parts.append(tag("p", f"The paper ({original.where}): {original.shows}."))
        if ours:
            parts.append(_figures(report, ours))
        else:
            parts.append(
                tag("p", "Ours is not drawn: ", tag("code", original.command), class_="hint")
            )
    if more := others(report.figures):
        parts += [tag("h3", "Other figures"), _figures(report, more)]
    return tag("section", tag("h2", "Figures"), *parts, id="figures")


def _figures(report: Report, shown: Sequence[Figure]) -> Markup:
    return tag("div", (_figure(report, item) for item in shown), class_="figures")


def _figure(report: Report, figure: Figure) -> Markup:
    files = ", ".join(report.collection.relative(path) for path in figure.files)
    image: Child = tag("p", f"not shown: {figure.why_not}", class_="hint")
    if figure.shown is not None:
        data = base64.b64encode(figure.shown.read_bytes()).decode()
        where = f" of {figure.folder}" if figure.folder else ""
        image = tag(
            "img",
            src=f"data:{figure.media_type};base64,{data}",
            alt=f"Figure{where}: {figure.title}. {figure.caption}".strip(". ") + ".",
            loading="lazy",
        )
    label = tag("p", figure.caption) if figure.caption else None
    command = tag("p", tag("code", figure.command)) if figure.command else None
    heading = tag("b", figure.title)
    # Fingerprints and file names are long, and few readers want them.
    origin = [f"Store {store}" for store in figure.stores] + [files]
    lines = tag("ul", (tag("li", tag("code", line)) for line in origin))
    more = tag("details", tag("summary", "Sources"), command, lines)
    return tag("figure", image, tag("figcaption", heading, label, more))


def missing(report: Report) -> Markup:
    """Render the number of missing cells of each table, and the command that fills them."""
    left = {cell.key for cell in report.missing}
    rows = []
    for printed in tables():
        cells = [cell for cell in printed.cells if cell.key in left]
        names = dict.fromkeys(dataset_titles()[cell.dataset] for cell in cells)
        rows.append(
            tag(
                "tr",
                tag("th", f"Table {printed.number}", scope="row"),
                tag("td", f"{len(cells)} of {len(printed.cells)}", class_="number"),
                tag("td", ", ".join(names)),
            )
        )
    return tag(
        "section",
        tag("h2", "What is missing"),
        tag(
            "p",
            f"{count(len(left), 'cell')} of {len(published())}. ",
            tag("code", "pa report --missing > fill.sh"),
            " writes the commands that fill them, as a script.",
        ),
        table(("Table", "Not measured", "Datasets"), rows, "full narrow"),
        id="missing",
    )


RESULT_HEADS = (
    "Score",
    "Data",
    "Encoder",
    "Ours",
    "95 % interval",
    "Chance",
    "n",
    "Protocol",
    "In the paper",
    "File",
)


def results(report: Report) -> Markup:
    """Render the scores of every result; those of cells of the paper are marked."""
    shown = sum(item.is_selected for item in report.listed)
    return tag(
        "section",
        tag("h2", "All results"),
        tag(
            "p",
            f"{count(len(report.listed), 'score')} of "
            f"{count(len(report.collection.results), 'result')}, {shown} of them shown in a table "
            f"of the paper (shaded). Percent; points for differences.",
            class_="lead",
        ),
        scrolled(
            "All results",
            table(RESULT_HEADS, (_result(item) for item in report.listed), "full results"),
        ),
        id="results",
    )


def _result(result: ListedResult) -> Markup:
    counted: list[Child] = [] if result.n is None else [f"{result.n:,} {result.unit}"]
    if result.n_images is not None:
        counted.append(tag("small", f"of {count(result.n_images, 'image')}"))
    fixed = result.fixed_gallery
    return tag(
        "tr",
        tag("th", result.score, tag("small", result.task), scope="row"),
        tag("td", result.data),
        tag("td", result.encoder, tag("small", result.representation)),
        tag("td", f"{result.value:.2f}".replace("-", MINUS), class_="number"),
        tag(
            "td",
            ends(result.interval),
            tag("small", result.interval_method),
            tag("small", f"gallery fixed: {ends(fixed)}") if fixed else None,
            class_="number",
        ),
        tag("td", "–" if result.chance is None else f"{result.chance:.2f}", class_="number"),
        tag("td", counted, class_="number"),
        tag("td", result.protocol),
        tag("td", result.in_the_paper or "–"),
        tag("td", tag("code", result.file)),
        class_="in-table" if result.is_selected else None,
    )


def provenance(report: Report) -> Markup:
    """Render versions, stores, result files, and files that could not be read."""
    return tag(
        "section",
        tag("h2", "Provenance"),
        tag(
            "p",
            f"The paper: {paper()}. Its numbers are those of Tables 1 to 6. Ours are read from "
            f"the result files of ",
            tag("code", str(report.collection.root)),
            "; nothing is computed again for this page.",
        ),
        _damaged(report),
        tag("h3", "Stores"),
        scrolled("Stores", _stores(report)),
        tag("h3", "Results shown in a table"),
        scrolled("Results", _results(report)),
        id="provenance",
    )


def _damaged(report: Report) -> Markup | None:
    if not report.damaged:
        return None
    return tag(
        "div",
        tag("p", tag("strong", f"{count(len(report.damaged), 'file')} could not be read"), ":"),
        tag(
            "ul",
            (
                tag(
                    "li",
                    tag("code", report.collection.relative(item.path)),
                    ": ",
                    prose(item.reason),
                )
                for item in report.damaged
            ),
        ),
        class_="care",
    )


def _stores(report: Report) -> Markup:
    lines: dict[str, Markup] = {}
    for selected in report.selected.values():
        ours = selected.ours
        for store in ours.stores:
            lines[store.fingerprint] = tag(
                "tr",
                tag("th", tag("code", store.fingerprint), scope="row"),
                tag("td", f"{store.dataset}, {store.split}"),
                tag("td", ours.question.encoder),
                tag("td", ours.model),
                tag("td", tag("code", ours.weights[:12] or "not known")),
                tag("td", "" if store.n_rows is None else f"{store.n_rows:,}", class_="number"),
                tag("td", "in this workspace" if store.exists else "not in this workspace"),
            )
    heads = ("Fingerprint", "Rows of", "Encoder", "Model", "Weights, SHA-256", "Rows", "State")
    return table(heads, lines.values())


def _results(report: Report) -> Markup:
    files: dict[str, Markup] = {}
    for selected in report.selected.values():
        ours = selected.ours
        versions = ", ".join(f"{name} {version}" for name, version in ours.versions)
        files[ours.file] = tag(
            "tr",
            tag("th", tag("code", ours.file), scope="row"),
            tag("td", ours.written.strftime("%Y-%m-%d %H:%M")),
            tag("td", versions),
            tag("td", tag("code", ours.command)),
        )
    heads = ("File", "Written (UTC)", "Versions", "Command")
    return table(heads, (files[name] for name in sorted(files)))
