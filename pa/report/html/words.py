"""Numbers and verdicts as the page shows them."""

from __future__ import annotations

from decimal import Decimal

from pa.report.html.markup import Markup, tag
from pa.report.judging import Verdict
from pa.report.selection import SelectedResult

MINUS = "\u2212"  # as wide as a plus sign, so that columns align

# Class of the style sheet, sign, and words; signs and words carry what the colours do.
BADGES: dict[Verdict, tuple[str, str, str]] = {
    "holds": ("holds", "✓", "holds"),
    "does not hold": ("fails", "✗", "does not hold"),
    "undecided": ("open", "?", "undecided"),
    "not measured": ("none", "–", "not measured"),
}


def signed(value: float | Decimal, places: int = 1) -> str:
    """Format a difference in points: "+1.5", "−0.4"."""
    shown = f"{abs(value):.{places}f}"
    if float(shown) == 0:
        return shown
    return ("+" if value > 0 else MINUS) + shown


def ends(interval: tuple[float, float] | None) -> str:
    """Format an interval: "36.1 to 37.0"."""
    return "no interval" if interval is None else f"{_plain(interval[0])} to {_plain(interval[1])}"


def _plain(value: float) -> str:
    return f"{value:.1f}".replace("-", MINUS)


def spoken(selected: SelectedResult) -> str:
    """Describe a measured cell in one sentence."""
    ours = selected.ours
    by = f", 95 % interval {ends(ours.interval)}" if ours.interval else ", without an interval"
    return f"ours {selected.shown()}{by}; the paper {selected.cell.printed}"


def badge(verdict: Verdict, after: str = "") -> Markup:
    """Return a verdict as a badge."""
    kind, sign, words = BADGES[verdict]
    return tag(
        "span",
        tag("span", sign, class_="sign", aria_hidden="true"),
        words,
        after,
        class_=f"badge {kind}",
    )


def count(number: int, singular: str, plural: str = "") -> str:
    """Format a count: "1 claim", "34 claims"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
