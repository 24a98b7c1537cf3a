"""Figures of recorded scores: AP by depth, part against whole, and sweeps."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from pa.evaluate.bootstrap import Mean
from pa.evaluate.neighbours import RELATIONS
from pa.evaluate.neighbours_table import shown_measures
from pa.evaluate.result_files import ResultFile
from pa.evaluate.rows import BLOCK_VECTORS
from pa.figures.names import look_of, representation_title
from pa.figures.record import FigureOutput, FigureRecord, WrittenFigure
from pa.figures.results import EncoderResults, protocol_key, remarks, shown_result
from pa.figures.retrieval import Curve, plot_depth, plot_shares
from pa.figures.style import Metadata, page
from pa.report.collection import ResultCollection

NARROW = 5.0  # inches: below, panels are stacked
_PANEL = 2.3  # height in inches

Draw = Callable[[Sequence[Path], float, Metadata], None]


def mean_of(file: ResultFile, score: str) -> Mean:
    mean: Mean = file.result.scores[score]
    return mean


def gallery(file: ResultFile) -> str:
    """Describe the rows of a result."""
    counts, store = file.result.counts, file.result.tested
    return (
        f"{counts.rows:,} part patches of {counts.images:,} images of {store.dataset}/{store.split}"
    )


def write_scores(
    kind: str,
    collection: ResultCollection,
    chosen: Sequence[EncoderResults],
    *,
    title: str,
    sentence: str,
    options: Sequence[str] = (),
    draw: Draw,
    output: FigureOutput,
    figures: Path,
) -> WrittenFigure:
    """Draw results with `draw`, and write the figure with its caption and provenance.

    The caption begins with `sentence`; `options` are further ones of the command that draws the
    figure again.
    """
    first = chosen[0].results[0]
    recipe, dataset = protocol_key(first), str(chosen[0].store.dataset)
    words = ["--encoder", ",".join(entry.encoder for entry in chosen), "--dataset", dataset]
    record = FigureRecord(
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
    paths = record.paths(output, figures)
    draw(paths, output.width, record.metadata)
    return record.write(paths)


# -- depth -----------------------------------------------------------------------------------------


def depth_panels(chosen: Sequence[EncoderResults]) -> dict[str, list[Curve]]:
    """Return the curves of every encoder that has blocks, by the kind of vector."""
    names = [entry.encoder for entry in chosen]
    panels: dict[str, list[Curve]] = {}
    for kind in BLOCK_VECTORS:
        for entry in chosen:
            means = {name: mean_of(file, "ap") for name, file in entry.by_representation.items()}
            colour, marker = look_of(entry.encoder, names)
            curve = Curve.of(kind, means, entry.title, colour, f"-{marker}")
            if curve.means:
                panels.setdefault(kind.removeprefix("layers_"), []).append(curve)
    return panels


def draw_depth(
    panels: Mapping[str, Sequence[Curve]],
    chance: float,
    paths: Sequence[Path],
    *,
    width: float,
    metadata: Metadata | None = None,
) -> None:
    """Draw a panel for each kind of vector, with a line for each encoder."""
    across = len(panels) if width >= NARROW else 1
    down = math.ceil(len(panels) / across)
    with page(paths, (width, _PANEL * down + 0.3), metadata) as figure:
        figure.set_layout_engine("constrained")
        grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        for axes, (name, curves) in zip(grid, panels.items(), strict=True):
            plot_depth(axes, curves, chance)
            axes.set_title(representation_title(name), loc="left")
            axes.label_outer(remove_inner_ticks=False)
        handles, labels = grid[0].get_legend_handles_labels()
        columns = max(1, min(len(labels), int(width / 0.85)))  # inches of an entry of the legend
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


# -- part against whole ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bars:
    """Labels and shares of the bars from the top, and labels of the relations."""

    labels: list[str]
    means: list[dict[str, Mean]]
    shown: dict[str, str]


def share_bars(chosen: Sequence[EncoderResults]) -> Bars:
    """Return a bar for each encoder and representation, projected last."""
    order = ("cls", "pooled", "projected")
    labels, means = [], []
    for entry in chosen:
        for name in sorted(entry.by_representation, key=lambda n: (*order, n).index(n)):
            file = entry.by_representation[name]
            labels.append(f"{entry.title}, {representation_title(name)}")
            means.append({score: mean_of(file, score) for score in file.result.scores})
    shown = {n: label for n, label in shown_measures(means[0]).items() if n in RELATIONS}
    return Bars(labels, means, shown)


def draw_shares(
    bars: Bars, k: int, paths: Sequence[Path], *, width: float, metadata: Metadata | None = None
) -> None:
    """Draw stacked shares of the k nearest neighbours; the last bar is that of chance."""
    columns = 2 if width >= NARROW else 1
    legend = 0.17 * math.ceil(len(bars.shown) / columns)  # inches per line of the legend
    height = 0.24 * (len(bars.labels) + 1) + legend + 0.55  # inches per bar, and for the axis
    with page(paths, (width, height), metadata) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        plot_shares(axes, bars.labels, bars.means, bars.shown)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"share of the {k} nearest neighbours (%)", x=1, ha="right")
        figure.legend(loc="outside lower center", ncols=columns, fontsize=7.5)


# -- sweeps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sheet:
    """Sweep results of one encoder and representation."""

    title: str
    table: pl.DataFrame


def sweep_sheets(
    chosen: Sequence[EncoderResults], tables: Mapping[str, pl.DataFrame]
) -> list[Sheet]:
    """Return the sheets of every encoder's table, in the order of its representations."""
    return [
        Sheet(
            f"{entry.title}, {representation_title(name)}",
            tables[entry.encoder].filter(pl.col("representation") == name),
        )
        for entry in chosen
        for name in tables[entry.encoder]["representation"].unique(maintain_order=True)
    ]


def draw_sweep(
    sheets: Sequence[Sheet],
    paths: Sequence[Path],
    *,
    width: float,
    metadata: Metadata | None = None,
) -> None:
    """Draw mean validation accuracy by learning rate and weight decay, on one colour scale."""
    from pa.figures.curves import draw_sweep_results

    rates = max(sheet.table["lr"].n_unique() for sheet in sheets)
    across = max(1, min(len(sheets), int(width / max(2.0, 0.42 * rates + 0.5))))  # inches
    down = math.ceil(len(sheets) / across)
    decays = max(sheet.table["weight_decay"].n_unique() for sheet in sheets)
    values = 100 * pl.concat([sheet.table["accuracy"] for sheet in sheets]).drop_nulls().to_numpy()
    height = down * max(0.9, 0.24 * decays + 0.62)  # 0.24 inches per line of numbers
    with page(paths, (width, height), metadata) as figure:
        figure.set_layout_engine("constrained")
        for i, sheet in enumerate(sheets):
            axes = figure.add_subplot(down, across, i + 1)
            draw_sweep_results(axes, sheet.table, sheet.title, (values.min(), values.max()))
            axes.set_title(sheet.title, loc="left")
            if i % across:
                axes.set_ylabel("")
            if i + across < len(sheets):
                axes.set_xlabel("")
