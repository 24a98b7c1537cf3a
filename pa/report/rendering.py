"""Read the templates of this package: values are escaped for the format, and markup is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pa.report.cells import column_title, encoders, paper, published, tables
from pa.report.figures import relative
from pa.report.report import Report, source_name
from pa.report.table_view import views_of
from pa.report.text import between, identifier


def environment(
    escape: Callable[[object], str],
    filters: Mapping[str, Callable[..., str]],
    **delimiters: str,
) -> Environment:
    """Return an environment whose templates escape every value but `Markup` with a function.

    Names of folders, encoders and files come from the user's disk, so no value is printed as it is.
    """

    def escaped(value: object) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(value))

    loaded = Environment(
        loader=PackageLoader("pa.report"),
        # With autoescape macros return markup, so that their text is not escaped again. Templates
        # of other formats than HTML must not join markup and text with ~, which escapes for HTML.
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **delimiters,  # type: ignore[arg-type]
    )
    loaded.filters |= {
        "between": between,
        "identifier": identifier,
        "number": lambda value: f"{value:.2f}",
        **filters,
    }
    loaded.globals |= {
        "column_title": column_title,
        "encoders": encoders,
        "paper": paper,
        "published": published,
        "relative": relative,
        "source_name": source_name,
    }
    return loaded


def context(report: Report) -> dict[str, Any]:
    """Return what the templates of all formats show: the report, and each table with its views."""
    numbers = [selected.ours for selected in report.selected.values()]
    return {
        "report": report,
        "tables": [(table, views_of(report, table)) for table in tables()],
        "files": {ours.file: ours for ours in numbers},
    }
