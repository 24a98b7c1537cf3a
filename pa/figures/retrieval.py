"""Figures of `pa evaluate`: AP by encoder and by depth, part against whole, hubs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.data.crops import Crops
from pa.evaluate.neighbours import RELATIONS
from pa.evaluate.rows import BLOCK_VECTORS
from pa.figures.neighbours import write_number
from pa.figures.style import COLOURS, GREY, PAGE_WIDTH, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pa.evaluate.bootstrap import Mean
    from pa.evaluate.neighbours_table import Shares
    from pa.evaluate.retrieval_table import Scored

# Colours of `RELATIONS`: parts in blue, wholes in orange, neither in grey.
_RELATION_COLOURS = ("#08519c", "#6baed6", "#d94801", "#fdae6b", "#d9d9d9", "#000000")
_DARK = ("#08519c", "#d94801", "#000000")  # of these, with white numbers
_CELL, _GAP, _TITLE, _MARGIN = 120, 6, 46, 12  # pixels
_HUB_COLUMNS, _HUB_ROWS = 10, 2  # twenty hubs; a result lists 100
_FINAL = 1.5  # distance on the axis from the last block to the output after the final norm


def draw_scores(scored: Sequence[Scored], path: Path) -> Path:
    """Draw AP with its interval for every encoder and representation, and chance."""
    encoders = list(dict.fromkeys(entry.encoder for entry in scored))
    names = list(dict.fromkeys(entry.representation for entry in scored))
    with drawing(path, 2.4) as (_, (axes,)):
        for i, name in enumerate(names):
            entries = [entry for entry in scored if entry.representation == name]
            offset = (i - (len(names) - 1) / 2) * 0.8 / len(names)  # in a group 0.8 wide
            _points(
                axes,
                [encoders.index(entry.encoder) + offset for entry in entries],
                [entry.overall for entry in entries],
                COLOURS[i % len(COLOURS)],
                name,
            )
        _chance(axes, scored[0].overall.chance)
        axes.set(
            xticks=range(len(encoders)),
            xticklabels=encoders,
            xlim=(-0.6, len(encoders) - 0.4),
            ylabel="average precision (%)",
        )
        axes.set_title(_gallery(scored[0]), loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return path


def draw_depth(scored: Sequence[Scored], path: Path) -> Path:
    """Draw AP after each block; the last point of a curve is that after the final norm."""
    curves = []
    for i, store in enumerate(dict.fromkeys(entry.store.path for entry in scored)):
        entries = [entry for entry in scored if entry.store.path == store]
        means = {entry.representation: entry.overall for entry in entries}
        for kind, style in zip(BLOCK_VECTORS, ("-o", "--s"), strict=True):
            label = f"{entries[0].encoder}, {kind.removeprefix('layers_')}"
            curves.append(Curve.of(kind, means, label, COLOURS[i % len(COLOURS)], style))
    curves = [curve for curve in curves if curve.means]
    with drawing(path, 2.8) as (_, (axes,)):
        plot_depth(axes, curves, scored[0].overall.chance)
        axes.set_title(_gallery(scored[0]), loc="left")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return path


@dataclass(frozen=True)
class Curve:
    """AP after each block, and `final` after the final norm; `style` is a line and a marker."""

    label: str
    colour: str
    style: str
    means: Mapping[int, Mean]
    final: Mean | None

    @classmethod
    def of(
        cls, kind: str, scores: Mapping[str, Mean], label: str, colour: str, style: str
    ) -> Curve:
        """Select the blocks of one of `BLOCK_VECTORS` from scores by representation."""
        blocks = {
            int(name.partition(":")[2]): mean
            for name, mean in scores.items()
            if name.startswith(f"{kind}:")
        }
        final = scores.get(kind.removeprefix("layers_"))
        return cls(label, colour, style, dict(sorted(blocks.items())), final)


def plot_depth(axes: Axes, curves: Sequence[Curve], chance: float) -> None:
    """Plot curves of AP by depth with their intervals, and chance."""
    blocks = sorted({block for curve in curves for block in curve.means})
    for curve in curves:
        means = list(curve.means.values())
        low, high = [100 * mean.low for mean in means], [100 * mean.high for mean in means]
        values, positions = [100 * mean.value for mean in means], list(curve.means)
        look: Any = {"color": curve.colour, "linewidth": 1, "markersize": 3.5}
        axes.plot(positions, values, curve.style, label=curve.label, **look)
        axes.fill_between(positions, low, high, color=curve.colour, alpha=0.12, linewidth=0)
        if curve.final is not None:
            end = blocks[-1] + _FINAL
            _points(axes, [end], [curve.final], curve.colour, None, curve.style[-1])
    _chance(axes, chance)
    axes.set(
        xticks=[*blocks, blocks[-1] + _FINAL],
        xticklabels=[*map(str, blocks), "final\nnorm"],
        xlabel="block, from 0",
        ylabel="average precision (%)",
    )


def draw_shares(shares: Sequence[Shares], path: Path) -> Path:
    """Draw a bar of relations per encoder and representation, and one of chance."""
    first = shares[0]
    shown = {name: label for name, label in first.shown.items() if name in RELATIONS}
    labels = [f"{entry.store.encoder}\n{entry.representation}" for entry in shares]
    k = first.result.k
    with drawing(path, 0.42 * (len(shares) + 1) + 1.5) as (figure, (axes,)):
        plot_shares(axes, labels, [entry.scores for entry in shares], shown)
        axes.set_xlabel(f"share of the {k} nearest neighbours (%)")
        axes.set_title(f"{first.store.spec.dataset}/{first.store.spec.split}", loc="left")
        figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return path


def plot_shares(
    axes: Axes,
    labels: Sequence[str],
    means: Sequence[Mapping[str, Mean]],
    shown: Mapping[str, str],
) -> None:
    """Plot a bar of shares for each label, and one of chance; `shown` maps relations to labels."""
    start = [0.0] * (len(means) + 1)  # left end of the next segment of each bar
    for name, label in shown.items():
        of_bars = [bar[name] for bar in means]
        widths = [100 * value for value in (*(m.value for m in of_bars), of_bars[0].chance)]
        colour = _RELATION_COLOURS[RELATIONS.index(name)]
        axes.barh(range(len(widths)), widths, left=start, color=colour, height=0.72, label=label)
        for bar, (left, width) in enumerate(zip(start, widths, strict=True)):
            if width >= 5:  # percent: room for the number
                axes.text(
                    left + width / 2,
                    bar,
                    f"{width:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="white" if colour in _DARK else "black",
                )
        start = [left + width for left, width in zip(start, widths, strict=True)]
    axes.set(yticks=range(len(start)), yticklabels=[*labels, "at random"], xlim=(0, 100))
    axes.invert_yaxis()  # the first label on top


def draw_hubs(shares: Sequence[Shares], crops: Sequence[Crops], path: Path) -> Path:
    """Draw the twenty patches of each encoder and representation that are most often neighbours."""
    per_block = _TITLE + _HUB_ROWS * (_CELL + _GAP)
    width = _HUB_COLUMNS * (_CELL + _GAP) - _GAP + 2 * _MARGIN
    height = per_block * len(shares) + 2 * _MARGIN
    with drawing(path, PAGE_WIDTH * height / width) as (figure, (axes,)):
        figure.set_layout_engine("none")  # all positions are in pixels
        axes.set_position((0, 0, 1, 1))
        axes.set_axis_off()
        for block, (entry, of_store) in enumerate(zip(shares, crops, strict=True)):
            top = _MARGIN + block * per_block
            hubs = entry.hubness
            title = (
                f"{entry.store.encoder} · {entry.representation}: skewness {hubs.skewness:.2f} (at "
                f"random {hubs.chance_skewness:.2f}), {100 * hubs.never:.0f} % never a neighbour"
            )
            axes.text(_MARGIN, top + _TITLE - 12, title, fontsize=8)
            counts = hubs.occurrences[hubs.top]
            for i in range(min(_HUB_ROWS * _HUB_COLUMNS, len(entry.hub_rows))):
                row, column = divmod(i, _HUB_COLUMNS)
                left = _MARGIN + column * (_CELL + _GAP)
                upper = top + _TITLE + row * (_CELL + _GAP)
                picture = of_store.region(int(entry.hub_rows[i]), _CELL)
                extent = (left, left + _CELL, upper + _CELL, upper)
                axes.imshow(picture, extent=extent, interpolation="nearest", aspect="auto")
                write_number(axes, left + _CELL - 4, upper + _CELL - 4, f"×{counts[i]}", 5.5)
        axes.set(xlim=(0, width), ylim=(height, 0))  # pixels from the top left corner
    return path


def _points(
    axes: Axes,
    positions: Sequence[float],
    means: Sequence[Mean],
    colour: str,
    label: str | None,
    marker: str = "o",
) -> None:
    values = [100 * mean.value for mean in means]
    lengths = [
        [100 * (mean.value - mean.low) for mean in means],
        [100 * (mean.high - mean.value) for mean in means],
    ]
    axes.errorbar(
        positions,
        values,
        yerr=lengths,
        fmt=marker,
        color=colour,
        markersize=4,
        elinewidth=1,
        capsize=2,
        label=label,
    )


def _chance(axes: Axes, level: float) -> None:
    axes.axhline(100 * level, color=GREY, linewidth=0.8, linestyle=":", label="chance")


def _gallery(entry: Scored) -> str:
    counts, spec = entry.result.counts, entry.store.spec
    protocol = entry.result.protocol.name
    return (
        f"{spec.dataset}/{spec.split}, protocol {protocol}: {counts.queries} patches of "
        f"{counts.images} images"
    )
