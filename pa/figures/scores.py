"""Charts of scores: AP by encoder and by depth, and part against whole.

Each is drawn from results: `pa figure` and the option `--figure` of `pa evaluate` draw the same
chart.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pa.evaluate.bootstrap import Mean
from pa.evaluate.neighbours import RELATIONS, shown_measures
from pa.evaluate.results import Result
from pa.evaluate.rows import BLOCK_VECTORS
from pa.figures.names import look_of, representation_title, title_of
from pa.figures.record import FigureRecord
from pa.figures.results import EncoderResults, protocol_key, remarks, shown_result
from pa.figures.style import GREY, Target, page
from pa.report.collection import ResultCollection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NARROW = 5.0  # inches: below, panels are stacked
_PANEL = 2.3  # height of a panel in inches
_FINAL = 1.5  # distance on the axis from the last block to the output after the final norm
_ORDER = ("cls", "pooled", "projected")  # of representations; others come later
_FILLS: tuple[Any, ...] = ("full", "none", "left", "top")  # of the markers of representations
# Colours of `RELATIONS`: parts in blue, wholes in orange, neither in grey.
_RELATION_COLOURS = ("#08519c", "#6baed6", "#d94801", "#fdae6b", "#d9d9d9", "#000000")
_DARK = ("#08519c", "#d94801", "#000000")  # of these, with white numbers


def by_encoder(results: Sequence[Result]) -> dict[tuple[str, str], dict[str, Any]]:
    """Group scores by name and title of their encoder, then by their representation."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for result in results:
        store = result.tested
        key = store.encoder, title_of(store.encoder, store.architecture)
        groups.setdefault(key, {})[result.representation] = result.scores
    return groups


def gallery(result: Result) -> str:
    """Describe the rows of a result."""
    counts, store = result.counts, result.tested
    return (
        f"{counts.rows:,} part patches of {counts.images:,} images of {store.dataset}/{store.split}"
    )


def describe(
    kind: str,
    collection: ResultCollection,
    chosen: Sequence[EncoderResults],
    *,
    title: str,
    sentence: str,
    options: Sequence[str] = (),
) -> FigureRecord:
    """Return caption and provenance of a chart of results.

    The caption begins with `sentence`; `options` are further ones of the command that draws the
    figure again.
    """
    first = chosen[0].results[0]
    recipe, dataset = protocol_key(first), str(chosen[0].store.dataset)
    words = ["--encoder", ",".join(entry.encoder for entry in chosen), "--dataset", dataset]
    return FigureRecord(
        kind=kind,
        name=f"{dataset}-{recipe}",
        title=title,
        caption=" ".join(filter(None, [sentence, f"Protocol {recipe}.", remarks(chosen)])),
        command=shlex.join(["pa", "figure", kind, *words, "--protocol", recipe, *options]),
        stores=[
            asdict(store)
            for entry in chosen
            for store in entry.results[0].result.stores_by_role.values()
        ],
        protocol=dict(first.result.protocol.parameters),
        results=[shown_result(file, collection) for entry in chosen for file in entry.results],
    )


# -- average precision -----------------------------------------------------------------------------


def draw_scores(results: Sequence[Result], target: Target) -> None:
    """Draw AP with its interval for every encoder and representation, and chance."""
    groups = by_encoder(results)
    encoders = [encoder for encoder, _ in groups]
    names = list(dict.fromkeys(result.representation for result in results))
    with page(target, 2.4) as figure:
        axes = figure.add_subplot()
        for i, name in enumerate(names):
            offset = (i - (len(names) - 1) / 2) * 0.5 / len(names)  # in a group 0.5 wide
            fill = _FILLS[i % len(_FILLS)]
            for group, ((encoder, _), scores) in enumerate(groups.items()):
                if name in scores:
                    look = look_of(encoder, encoders)
                    _plot_mean(axes, group + offset, scores[name]["ap"], *look, fill)
            # An empty series in grey: the legend is about the fill, not about an encoder.
            label = representation_title(name)
            axes.plot([], [], "o", color=GREY, fillstyle=fill, markersize=4, label=label)
        _plot_chance(axes, results)
        axes.set(
            xticks=range(len(groups)),
            xticklabels=[title.replace(" (", "\n(") for _, title in groups],
            xlim=(-0.6, len(groups) - 0.4),
            ylabel="average precision (%)",
        )
        axes.set_title(f"{gallery(results[0])}, protocol {results[0].protocol.name}", loc="left")
        figure.legend(loc="outside lower center", ncols=len(names) + 1)


@dataclass(frozen=True)
class Curve:
    """AP after each block, and `final` after the final norm."""

    encoder: str
    label: str
    means: dict[int, Mean]
    final: Mean | None


def depth_panels(results: Sequence[Result]) -> dict[str, list[Curve]]:
    """Return the curves of every encoder that has scores of blocks, by the kind of vector."""
    panels: dict[str, list[Curve]] = {}
    for kind in BLOCK_VECTORS:
        name = kind.removeprefix("layers_")
        for (encoder, title), scores in by_encoder(results).items():
            blocks = {
                int(representation.partition(":")[2]): of["ap"]
                for representation, of in scores.items()
                if representation.startswith(f"{kind}:")
            }
            if blocks:
                # After the final norm: the score of the whole network, without which a curve ends.
                final = scores[name]["ap"] if name in scores else None
                curve = Curve(encoder, title, dict(sorted(blocks.items())), final)
                panels.setdefault(name, []).append(curve)
    return panels


def draw_depth(results: Sequence[Result], target: Target) -> None:
    """Draw AP after each block, a panel for each kind of vector and a line for each encoder."""
    panels = depth_panels(results)
    encoders = list(dict.fromkeys(curve.encoder for curves in panels.values() for curve in curves))
    across = len(panels) if target.width >= NARROW else 1
    down = math.ceil(len(panels) / across)
    with page(target, _PANEL * down + 0.3) as figure:
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, (name, curves) in zip(grid, panels.items(), strict=True):
            blocks = sorted({block for curve in curves for block in curve.means})
            for curve in curves:
                colour, marker = look_of(curve.encoder, encoders)
                _plot_curve(axes, curve, blocks[-1] + _FINAL, colour, marker)
            _plot_chance(axes, results)
            axes.set(
                xticks=[*blocks, blocks[-1] + _FINAL],
                xticklabels=[*map(str, blocks), "final\nnorm"],
                xlabel="block, from 0",
                ylabel="average precision (%)",
            )
            axes.set_title(representation_title(name), loc="left")
            axes.label_outer(remove_inner_ticks=False)
        handles, labels = grid[0].get_legend_handles_labels()
        longest = max(map(len, labels))
        # A line of the legend is as wide as the figure: 0.06 inches a letter, 0.45 the sample.
        columns = max(1, min(len(labels), int(target.width / (0.06 * longest + 0.45))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _plot_curve(axes: Axes, curve: Curve, end: float, colour: str, marker: str) -> None:
    means, positions = list(curve.means.values()), list(curve.means)
    values = [100 * mean.value for mean in means]
    look: Any = {"color": colour, "linewidth": 1, "markersize": 3.5}
    axes.plot(positions, values, f"-{marker}", label=curve.label, **look)
    low, high = [100 * mean.low for mean in means], [100 * mean.high for mean in means]
    axes.fill_between(positions, low, high, color=colour, alpha=0.12, linewidth=0)
    if curve.final is not None:
        _plot_mean(axes, end, curve.final, colour, marker)


def _plot_mean(
    axes: Axes, position: float, mean: Mean, colour: str, marker: str, fill: Any = "full"
) -> None:
    """Plot a mean with its 95 % interval."""
    lengths = [[100 * (mean.value - mean.low)], [100 * (mean.high - mean.value)]]
    look: Any = {"color": colour, "markersize": 4, "elinewidth": 1, "capsize": 2}
    axes.errorbar([position], [100 * mean.value], lengths, fmt=marker, fillstyle=fill, **look)


def _plot_chance(axes: Axes, results: Sequence[Result]) -> None:
    # Chance depends on the rows alone, which all results share.
    level = 100 * results[0].scores["ap"].chance
    axes.axhline(level, color=GREY, linewidth=0.8, linestyle=":", label="chance")


# -- part against whole ----------------------------------------------------------------------------


def share_bars(results: Sequence[Result]) -> dict[str, dict[str, Mean]]:
    """Return shares by relation of each encoder and representation, projected last, by title."""
    return {
        f"{title}, {representation_title(name)}": scores[name]
        for (_, title), scores in by_encoder(results).items()
        for name in sorted(scores, key=lambda n: (*_ORDER, n).index(n))
    }


def draw_shares(results: Sequence[Result], target: Target) -> None:
    """Draw stacked shares of the nearest neighbours; the last bar is that of chance."""
    bars = share_bars(results)
    means = list(bars.values())
    shown = {n: label for n, label in shown_measures(means[0]).items() if n in RELATIONS}
    columns = 2 if target.width >= NARROW else 1
    legend = 0.17 * math.ceil(len(shown) / columns)  # inches per line of the legend
    height = 0.24 * (len(bars) + 1) + legend + 0.55  # inches per bar, and for the axis
    with page(target, height) as figure:
        axes = figure.add_subplot()
        # (bars + 1,) left end of the next segment of each bar, and of that of chance
        start = np.zeros(len(bars) + 1)
        for name, label in shown.items():
            # All results are of the same rows, so that chance is that of the first.
            values = [bar[name].value for bar in means] + [means[0][name].chance]
            widths = 100 * np.array(values)
            colour = _RELATION_COLOURS[RELATIONS.index(name)]
            axes.barh(
                range(len(widths)), widths, left=start, color=colour, height=0.72, label=label
            )
            look: Any = {"ha": "center", "va": "center", "fontsize": 7}
            look["color"] = "white" if colour in _DARK else "black"
            for bar in np.flatnonzero(widths >= 5).tolist():  # percent: room for the number
                axes.text(start[bar] + widths[bar] / 2, bar, f"{widths[bar]:.0f}", **look)
            start += widths
        axes.set(yticks=range(len(start)), yticklabels=[*bars, "at random"], xlim=(0, 100))
        axes.invert_yaxis()  # the first bar on top
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        k = results[0].protocol.parameters["k"]
        axes.set_xlabel(f"share of the {k} nearest neighbours (%)", x=1, ha="right")
        figure.legend(loc="outside lower center", ncols=columns, fontsize=7.5)
