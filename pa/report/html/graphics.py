"""Small drawings of the page: intervals with dot and whisker, and stacked bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pa.report.html.markup import Markup, tag

WIDTH, HEIGHT, MARGIN = 88, 14, 5  # pixels; the margin holds the dot


@dataclass(frozen=True)
class Scale:
    """A range of values in percent, and its width in pixels."""

    low: float
    high: float
    width: int = WIDTH

    @classmethod
    def over(cls, values: Iterable[float], width: int = WIDTH) -> Scale:
        """Return the range of some values with a margin on both sides."""
        known = sorted(values)
        room = max(0.04 * (known[-1] - known[0]), 0.5)
        return cls(known[0] - room, known[-1] + room, width)

    def x(self, value: float) -> float:
        """Return the position of a value in pixels from the left."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(MARGIN + share * (self.width - 2 * MARGIN), 1)


def interval(
    scale: Scale, value: float, ends: tuple[float, float] | None, published: float, spoken: str
) -> Markup:
    """Draw our number as a dot with a whisker, and the paper's as a bar.

    `spoken` is the text for screen readers.
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
    """A segment of a stacked bar: its class of the style sheet, length and label."""

    kind: str
    length: int
    label: str


def stacked(bars: Sequence[Bar], spoken: str) -> Markup:
    """Draw a bar of segments whose lengths are counts."""
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
