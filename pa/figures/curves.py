"""Figures of the probes: confusion matrix, learning curves, sweep results, few shots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pa.data.datasets.imagenet import readable_label
from pa.figures.colours import OKABE_ITO, as_hex
from pa.figures.style import GREY, Target, page
from pa.probe.attentive.run import AttentiveResult
from pa.probe.linear.run import LinearResult
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.recording import ScoredProbe
from pa.probe.training import TrainedHead

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

NAMED_CLASSES = 12  # more classes are drawn without names and numbers
SHEETS_ACROSS = 3  # sweep results in a line; numbers stay legible
_HEIGHT, _SHEET_HEIGHT = 2.5, 1.7  # inches
_BLUE, _RED = as_hex(OKABE_ITO[0]), as_hex(OKABE_ITO[1])
_SMALL = 6.5  # points, of the numbers of a sweep
_DARK = 0.55  # share of the colour scale above which a number is white


def draw_linear(done: LinearResult, path: Path) -> Path:
    """Draw the confusion matrix and learning curves, and below them the results of a sweep."""
    sweep = None if done.choice is None else done.choice.sweep
    sheets = {} if sweep is None else by_representation(sweep)
    down = math.ceil(len(sheets) / SHEETS_ACROSS)
    with page(Target([path]), _HEIGHT + down * _SHEET_HEIGHT) as figure:
        heights = [_HEIGHT, down * _SHEET_HEIGHT] if sheets else [_HEIGHT]
        top, *below = figure.subfigures(len(heights), height_ratios=heights, squeeze=False).ravel()
        left, right = top.subplots(1, 2)
        draw_confusion(top, left, done.confusion, done.split.classes)
        draw_curves(right, done.runs, best=done.recipe.reported == BEST_ON_TEST)
        if sheets:
            _draw_sheets(below[0], sheets, min(len(sheets), SHEETS_ACROSS))
    return path


def by_representation(sweep: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the part of a sweep of each representation, in its order."""
    parts = sweep.partition_by("representation", maintain_order=True)
    return {part["representation"][0]: part for part in parts}


def draw_attentive(done: AttentiveResult, path: Path) -> Path:
    """Draw the confusion matrix, summed over the seeds, and learning curves."""
    with page(Target([path]), _HEIGHT) as figure:
        left, right = figure.subplots(1, 2)
        draw_confusion(figure, left, done.confusion, done.split.classes)
        draw_curves(right, done.runs, best=done.recipe.reported == BEST_ON_TEST)
    return path


def draw_confusion(
    figure: FigureBase, axes: Axes, confusion: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> None:
    """Draw the share of each true class (rows) by predicted class, in percent."""
    sizes = confusion.sum(axis=1, keepdims=True)  # (C, 1)
    # A class without test rows has no share: an empty line instead of zeros.
    shares = np.divide(confusion, sizes, out=np.full(confusion.shape, np.nan), where=sizes > 0)
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title("confusion (% of the true class)", loc="left")
    axes.spines[:].set_visible(False)
    if len(classes) > NAMED_CLASSES:
        axes.set(xticks=[], yticks=[])
        axes.set(xlabel=f"predicted ({len(classes)} classes)")
        figure.colorbar(image, ax=axes, shrink=0.8)
        return
    ticks = range(len(classes))
    names = [readable_label(name).replace("_", " ") for name in classes]
    axes.set_xticks(ticks, names, rotation=35, ha="right")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            colour = "white" if share > _DARK else "black"
            text = f"{100 * share:.1f}"
            axes.text(column, row, text, ha="center", va="center", color=colour)


def draw_curves(axes: Axes, runs: Sequence[TrainedHead], *, best: bool = False) -> None:
    """Draw the accuracy of every seed after each epoch; `best` marks the reported epochs."""
    from matplotlib.ticker import MaxNLocator

    for i, head in enumerate(runs):
        epochs = np.arange(1, len(head.train_accuracy) + 1)  # (E,)
        first = i == 0
        thin: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.8}
        label = "training" if first else None
        axes.plot(epochs, 100 * head.train_accuracy, "--", color=GREY, label=label, **thin)
        if not np.isnan(head.test_accuracy).all():
            label = "test" if first else None
            axes.plot(epochs, 100 * head.test_accuracy, color=_BLUE, label=label, **thin)
            if best:
                at = 100 * head.test_accuracy[head.epoch - 1]
                label = "best on test" if first else None
                axes.plot(head.epoch, at, "o", color=_RED, markersize=3, label=label)
    axes.set(xlabel="epoch", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
    axes.set_title(f"learning curves, {seeds}", loc="left")
    axes.legend(loc="lower right")


def draw_sweep_results(
    axes: Axes, sheet: pl.DataFrame, name: str, limits: tuple[float, float]
) -> None:
    """Draw mean validation accuracy over the seeds by learning rate and weight decay.

    The selected cell has a frame; a setting with a diverged seed is a cross.
    """
    from matplotlib.patches import Rectangle

    rates, decays = sorted(sheet["lr"].unique()), sorted(sheet["weight_decay"].unique())
    cells = np.full((len(decays), len(rates)), np.nan)  # percent
    chosen = None
    means = sheet.group_by("lr", "weight_decay", "chosen").agg(
        pl.col("accuracy").mean(), pl.col("diverged").count()
    )
    for cell in means.iter_rows(named=True):
        at = decays.index(cell["weight_decay"]), rates.index(cell["lr"])
        if cell["diverged"] == 0:
            cells[at] = 100 * cell["accuracy"]
        chosen = at if cell["chosen"] else chosen
    # White numbers on dark cells. The spread is not 0 if all cells are equal.
    spread = max(limits[1] - limits[0], 1e-9)
    axes.imshow(cells, cmap="Blues", vmin=limits[0], vmax=limits[1], aspect="auto")
    for (row, column), value in np.ndenumerate(cells):
        dark = not np.isnan(value) and (value - limits[0]) / spread > _DARK
        text = "×" if np.isnan(value) else f"{value:.1f}"
        colour = "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=_SMALL)
    if chosen is not None:
        corner = chosen[1] - 0.5, chosen[0] - 0.5
        style: Any = {"fill": False, "edgecolor": _RED, "linewidth": 2, "clip_on": False}
        axes.add_patch(Rectangle(corner, 1, 1, **style))
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(decays)), [f"{decay:g}" for decay in decays])
    axes.tick_params(length=0, labelsize=_SMALL)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="learning rate", ylabel="weight decay")
    axes.set_title(f"{name}: validation (%)", loc="left")


def draw_sweep(sheets: dict[str, pl.DataFrame], target: Target) -> None:
    """Draw mean validation accuracy by learning rate and weight decay, on one colour scale.

    `sheets` maps the title of an encoder and representation to its part of a sweep.
    """
    rates = max(sheet["lr"].n_unique() for sheet in sheets.values())
    decays = max(sheet["weight_decay"].n_unique() for sheet in sheets.values())
    across = max(1, min(len(sheets), int(target.width / max(2.0, 0.42 * rates + 0.5))))  # inches
    # 0.24 inches per line of numbers.
    height = math.ceil(len(sheets) / across) * max(0.9, 0.24 * decays + 0.62)
    with page(target, height) as figure:
        _draw_sheets(figure, sheets, across)


def _draw_sheets(figure: FigureBase, sheets: dict[str, pl.DataFrame], across: int) -> None:
    """Draw a panel for each sheet of a sweep, `across` in a line, on one colour scale."""
    values = 100 * pl.concat([s["accuracy"] for s in sheets.values()]).drop_nulls().to_numpy()
    down = math.ceil(len(sheets) / across)
    for i, (title, sheet) in enumerate(sheets.items()):
        axes = figure.add_subplot(down, across, i + 1)
        draw_sweep_results(axes, sheet, title, (values.min(), values.max()))
        if i % across:
            axes.set_ylabel("")
        if i + across < len(sheets):
            axes.set_xlabel("")


def draw_fewshot(done: ScoredProbe, path: Path) -> Path:
    """Draw the accuracy by the number of shots: the mean, and every draw."""
    with page(Target([path], 3.6), _HEIGHT) as figure:
        axes = figure.add_subplot()
        ticks = range(len(done.scores))
        for tick, scores in zip(ticks, done.scores.values(), strict=True):
            values = [100 * score.value for score in scores.each]
            label = "a draw" if tick == 0 else None
            axes.plot([tick] * len(values), values, ".", color=GREY, label=label)
        means = [100 * scores.value for scores in done.scores.values()]
        axes.plot(ticks, means, "-o", color=_BLUE, label="mean", markersize=4)
        chance = 100 * next(iter(done.scores.values())).chance.majority
        axes.axhline(chance, color=GREY, linestyle=":", label="commonest class")
        axes.set_xticks(ticks, [str(n) for n in done.scores])
        axes.set(xlabel="regions of each class", ylabel="test accuracy (%)")
        axes.set_title("few shots", loc="left")
        axes.legend(loc="upper left")
    return path
