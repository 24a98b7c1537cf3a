from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pa.errors import UsageError
from pa.figures.curves import (
    draw_confusion,
    draw_curves,
    draw_fewshot,
    draw_linear,
    draw_sweep_results,
)
from pa.probe.linear.recipes import PAPER
from pa.probe.linear.train import Grid
from pa.probe.recipes import BEST_ON_TEST
from tests.support.arrays import MakeStore, blobs, make_store
from tests.support.probes import fewshot, linear

__all__ = ["make_store"]

QUICK = replace(PAPER, epochs=5, batch=64)


def pixels(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def texts(axes: object) -> list[str]:
    return [text.get_text() for text in axes.texts]  # type: ignore[attr-defined]


def test_confusion_shows_shares_of_the_true_class() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    draw_confusion(figure, axes, np.array([[3, 1], [0, 0]]), ("left_wing", "tail"))
    assert texts(axes) == ["75.0", "25.0"]  # a class without rows has no numbers
    assert [label.get_text() for label in axes.get_yticklabels()] == ["left wing", "tail"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_confusion_of_many_classes_has_colour_bar() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    draw_confusion(figure, axes, np.eye(40, dtype=np.int64), tuple(map(str, range(40))))
    assert texts(axes) == []
    assert len(figure.axes) == 2
    assert axes.get_xlabel() == "predicted (40 classes)"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_run_and_sweep_are_drawn(make_store: MakeStore, tmp_path: Path, suffix: str) -> None:
    features, labels = blobs(90, spread=0.5)
    store = make_store({"cls": features, "pooled": features}, labels)
    grid = Grid(("cls", "pooled"), (0.1, 0.4, 1e39), (0.0, 0.01), (0, 1))
    recipe = replace(QUICK, reported=BEST_ON_TEST)
    done = linear(
        store,
        results=tmp_path,
        recipe=recipe,
        seeds=2,
        grid=grid,
        references=False,
    )
    path = draw_linear(done, tmp_path / f"probe.{suffix}")
    assert path.stat().st_size > 5000
    if suffix == "png":
        size = pixels(path)
        plain = linear(store, results=tmp_path, recipe=QUICK)
        smaller = pixels(draw_linear(plain, tmp_path / "plain.png"))
        assert size[0] == smaller[0]  # a page wide
        assert size[1] > smaller[1]

    axes = Figure().add_subplot()
    draw_curves(axes, done.runs, best=True)
    lines = {line.get_label(): line for line in axes.get_lines()}
    run = done.runs[0]
    np.testing.assert_allclose(lines["test"].get_ydata(), 100 * run.test_accuracy)
    np.testing.assert_allclose(lines["training"].get_ydata(), 100 * run.train_accuracy)
    assert lines["best on test"].get_xdata() == [run.epoch]

    assert done.choice is not None
    sheet = done.choice.sweep.filter(representation=done.result.representation)
    axes = Figure().add_subplot()
    draw_sweep_results(axes, sheet, "cls", (0, 100))
    shown = texts(axes)
    assert shown.count("×") == 2  # the rate that diverged, for both decays
    mean = 100 * sheet.filter(lr=0.1, weight_decay=0.01)["accuracy"].mean()  # type: ignore[operator]
    assert shown[3] == f"{mean:.1f}"
    assert len(axes.patches) == 1  # the frame of what was chosen


def test_few_shots_are_drawn(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(90, spread=0.5)
    store = make_store({"cls": features}, labels)
    done = fewshot(store, shots=(1, 5), draws=2, results=tmp_path, recipe=QUICK)
    assert pixels(draw_fewshot(done, tmp_path / "few.png")) == (1080, 750)


def test_other_suffix_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    features, labels = blobs(90)
    done = linear(make_store({"cls": features}, labels), results=tmp_path, recipe=QUICK)
    with pytest.raises(UsageError, match=r"expected a file ending in \.png, \.pdf, \.svg"):
        draw_linear(done, tmp_path / "probe.jpg")
