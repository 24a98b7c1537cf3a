"""Render the report as one HTML page from the templates of this package."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from itertools import groupby

from jinja2 import Environment
from markupsafe import Markup

from pa.data.store.spec import FINGERPRINT_SHOWN
from pa.report.cells import dataset_titles
from pa.report.claims import GROUPS
from pa.report.figures import Figure, by_paper_figure
from pa.report.judging import Verdict, unpaired_note
from pa.report.rendering import context, environment
from pa.report.report import Report, source_name
from pa.report.selection import SelectedResult
from pa.report.table_view import TableView
from pa.report.text import between, printable

MINUS = "\u2212"  # as wide as a plus sign, so that columns align
WIDTH, MARGIN = 88, 5  # pixels of the drawing of an interval; the margin holds the dot

# Class of the style sheet, and sign: signs and words carry what the colours do.
BADGES: dict[Verdict, tuple[str, str]] = {
    "holds": ("holds", "✓"),
    "does not hold": ("fails", "✗"),
    "undecided": ("open", "?"),
    "not measured": ("none", "–"),
}


def page(report: Report) -> str:
    """Return the report as one HTML page without external files."""
    shown = context(report)
    # The last result of a store describes it; all have the same encoder and weights.
    stores = {
        store.fingerprint: (store, ours)
        for ours in shown["files"].values()
        for store in ours.source.result.stores_by_role.values()
    }
    by_group = groupby(report.judged, key=lambda item: item.claim.group)
    return (
        _environment()
        .get_template("page.html")
        .render(
            **shown,
            groups=[(GROUPS[group], list(judged)) for group, judged in by_group],
            missing={cell.key for cell in report.missing},
            figures=by_paper_figure(report.figures),
            stores=stores,
        )
    )


@cache
def _environment() -> Environment:
    style = resources.files("pa.report") / "templates" / "page.css"
    filters: dict[str, Callable[..., str]] = {
        "between": _between,
        "count": count,
        "data_url": _data_url,
        "dataset_title": lambda name: dataset_titles()[name],
        "number": _number,
        "prose": _prose,
        "signed": signed,
        "source_name": source_name,
    }
    created = environment(lambda value: Markup.escape(printable(value)), filters)
    created.globals |= {
        "badges": BADGES,
        "fingerprint_shown": FINGERPRINT_SHOWN,
        "scales_of": scales_of,
        "spoken": spoken,
        "style": Markup(style.read_text(encoding="utf-8")),
        "unpaired_note": unpaired_note,
        "width": WIDTH,
        "Scale": Scale,
    }
    return created


def signed(value: float | Decimal, places: int = 1) -> str:
    """Format a difference in points: "+1.5", "−0.4"."""
    shown = f"{abs(value):.{places}f}"
    # A difference that rounds to zero has no sign.
    if float(shown) == 0:
        return shown
    return ("+" if value > 0 else MINUS) + shown


def count(number: int, singular: str) -> str:
    """Format a count: "1 claim", "34 claims"."""
    return f"{number:,} {singular if number == 1 else singular + 's'}"


def spoken(selected: SelectedResult) -> str:
    """Describe a measured cell in one sentence."""
    interval = selected.ours.interval
    by = f", 95 % interval {_between(interval)}" if interval else ", without an interval"
    return f"ours {selected.shown()}{by}; the paper {selected.cell.printed}"


def _number(value: float, places: int = 2) -> str:
    return f"{value:.{places}f}".replace("-", MINUS)


def _between(interval: tuple[float, float] | None) -> str:
    return between(interval, ".1f", missing="no interval").replace("-", MINUS)


def _prose(words: str) -> Markup:
    """Return text of this package, in which `backticks` mark code."""
    pieces = [Markup.escape(piece) for piece in printable(words).split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else piece
        for index, piece in enumerate(pieces)
    )


def _data_url(figure: Figure) -> str:
    """Return a shown figure as a URL that contains the picture."""
    assert figure.shown is not None
    return f"data:{figure.media_type};base64,{base64.b64encode(figure.shown.read_bytes()).decode()}"


# -- intervals ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """A range of values in percent, drawn over `WIDTH` pixels."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Scale:
        """Return the range of some values with a margin on both sides."""
        known = sorted(values)
        # At least half a point, so that a column of equal numbers has a scale.
        room = max(0.04 * (known[-1] - known[0]), 0.5)
        return cls(known[0] - room, known[-1] + room)

    def x(self, value: float) -> float:
        """Return the position of a value in pixels from the left."""
        # Whiskers outside the scale end at its border.
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def scales_of(view: TableView) -> list[Scale]:
    """Return the scale of each column, which all of its rows share."""
    values: dict[str, list[float]] = {column: [] for column in view.table.columns}
    for cell in view.table.cells:
        values[cell.column].append(cell.value)
    for selected in view.selected:
        ours = selected.ours
        values[selected.cell.column] += [ours.value, *(ours.interval or ())]
    return [Scale.over(of_column) for of_column in values.values()]
