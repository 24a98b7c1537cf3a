"""The HTML page."""

from __future__ import annotations

from importlib import resources

from pa.report.cells import paper
from pa.report.html import claims, sections, tables
from pa.report.html.markup import Markup, tag
from pa.report.report import Report

SECTIONS = {
    "summary": "Summary",
    "tables": "Tables",
    "claims": "Claims",
    "results": "All results",
    "figures": "Figures",
    "missing": "Missing",
    "provenance": "Provenance",
}


def page(report: Report) -> str:
    """Return the report as one HTML page without external files."""
    title = f"The paper and what was measured: {report.collection.root.name}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"pa {report.version}"),
        tag("title", title),
        tag("style", _style()),
    )
    main = tag(
        "main",
        sections.summary(report),
        tables.section(report),
        claims.section(report),
        sections.results(report),
        sections.figures(report),
        sections.missing(report),
        sections.provenance(report),
        id="main",
    )
    footer = tag("footer", f"pa {report.version}, {report.created:%Y-%m-%d %H:%M} UTC")
    skip = tag("a", "To the report", href="#main", class_="skip")
    body = tag("body", skip, _header(report), _nav(), main, footer)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _style() -> Markup:
    sheet = resources.files("pa.report.html") / "page.css"
    return Markup(sheet.read_text(encoding="utf-8"))


def _header(report: Report) -> Markup:
    return tag(
        "header",
        tag("p", "Reproduction report", class_="kicker"),
        tag("h1", "The paper and what was measured"),
        tag("p", tag("cite", paper()), class_="citation"),
        tag(
            "p",
            "Workspace ",
            tag("code", str(report.collection.root)),
            f" · {report.created:%d %B %Y, %H:%M} UTC · pa {report.version}",
            class_="facts",
        ),
    )


def _nav() -> Markup:
    links = (tag("li", tag("a", name, href=f"#{anchor}")) for anchor, name in SECTIONS.items())
    return tag("nav", tag("ul", links), aria_label="Sections")
