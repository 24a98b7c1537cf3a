"""Small drawings inside the page: an interval as dot and whisker, and the claims as squares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pa.report.html.markup import Markup, tag

WIDTH, HEIGHT, MARGIN = 88, 14, 5


@dataclass(frozen=True)
class Scale:
    """A range of values, in percent, and the pixels that it is drawn on."""

    low: float
    high: float
    width: int = WIDTH

    @classmethod
    def over(cls, values: Iterable[float], width: int = WIDTH) -> Scale:
        """The range of some values with a little room on both sides."""
        known = sorted(values)
        room = max(0.04 * (known[-1] - known[0]), 0.5)
        return cls(known[0] - room, known[-1] + room, width)

    def x(self, value: float) -> float:
        """Where a value lies, in pixels from the left, with a margin for the dot."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(MARGIN + share * (self.width - 2 * MARGIN), 1)


def interval(
    scale: Scale, value: float, ends: tuple[float, float] | None, published: float, spoken: str
) -> Markup:
    """Ours as a dot with its whisker, the paper's number as a bar, on a thin axis.

    `spoken` is what a screen reader says in place of it.
    """
    middle = HEIGHT / 2
    parts = [
        tag("line", class_="axis", x1=0, x2=scale.width, y1=middle, y2=middle),
        tag("line", class_="theirs", x1=(at := scale.x(published)), x2=at, y1=1.5, y2=HEIGHT - 1.5),
    ]
    if ends is not None:
        low, high = scale.x(ends[0]), scale.x(ends[1])
        parts.append(tag("line", class_="whisker", x1=low, x2=high, y1=middle, y2=middle))
        parts += [
            tag("line", class_="whisker", x1=end, x2=end, y1=middle - 3, y2=middle + 3)
            for end in (low, high)
        ]
    parts.append(tag("circle", class_="ours", cx=scale.x(value), cy=middle, r=3.2))
    return tag(
        "svg",
        *parts,
        class_="interval",
        width=scale.width,
        height=HEIGHT,
        viewBox=f"0 0 {scale.width} {HEIGHT}",
        role="img",
        aria_label=spoken,
    )


@dataclass(frozen=True)
class Bar:
    """One stretch of a bar: a class of the style sheet, its length, and what it is."""

    kind: str
    length: int
    label: str


def stacked(bars: Sequence[Bar], spoken: str) -> Markup:
    """A bar in stretches whose lengths are numbers of the same things."""
    return tag(
        "div",
        (
            tag(
                "span",
                class_=f"stretch {bar.kind}",
                style=f"flex-grow:{bar.length}",
                title=bar.label,
            )
            for bar in bars
            if bar.length
        ),
        class_="stacked",
        role="img",
        aria_label=spoken,
    )
