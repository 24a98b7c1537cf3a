"""Selection of the result shown in a cell, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pa.report.html import MINUS, page
from pa.report.markdown import markdown
from pa.report.protocol import Protocol
from tests.support.report import VIT_TI, Runs


def reason(runs: Runs) -> tuple[float, str, int]:
    selected = runs.report().selected["t3/deit/cub/linear", Protocol("paper")]
    return round(selected.ours.value, 3), selected.why, len(selected.others)


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        (lambda r: r.probe(accuracy=0.5, architecture=VIT_TI), "the paper's model"),
        (lambda r: r.probe(accuracy=0.5, test_images=300, rows="few"), "all of the paper's images"),
        (lambda r: r.probe(accuracy=0.5, changed={"epochs": 3}), "the recipe unchanged"),
        (lambda r: r.probe(accuracy=0.5, representation="pooled"), "the recipe unchanged"),
    ],
)
def test_result_closest_to_paper_is_selected(
    runs: Runs, worse: Callable[[Runs], object], why: str
) -> None:
    runs.probe(accuracy=0.9)
    worse(runs)  # newer, and yet not taken
    assert reason(runs) == (90.0, f"{why}, of 2 results", 1)


def test_then_the_one_of_more_images(runs: Runs) -> None:
    runs.probe(accuracy=0.9, test_images=400, architecture=VIT_TI)
    runs.probe(accuracy=0.5, test_images=300, architecture=VIT_TI, rows="fewer")
    assert reason(runs) == (90.0, "more images, of 2 results", 1)


def test_then_the_newest(runs: Runs) -> None:
    runs.probe(accuracy=0.5, rows="a")
    runs.probe(accuracy=0.6, rows="b")
    runs.probe(accuracy=0.7, rows="c")
    assert reason(runs) == (70.0, "the newest, of 3 results", 2)


def test_single_result_is_selected(runs: Runs) -> None:
    runs.probe(accuracy=0.5)
    assert reason(runs) == (50.0, "the only result", 0)


def test_protocols_never_compete(runs: Runs) -> None:
    runs.probe(accuracy=0.5)
    runs.probe(accuracy=0.6, protocol="released")
    report = runs.report()
    values = {
        protocol.key: selected.ours.value for (_, protocol), selected in report.selected.items()
    }
    assert values == pytest.approx({"paper": 50, "released": 60})
    assert all(not selected.others for selected in report.selected.values())
    assert report.selected["t3/deit/cub/linear", Protocol("released")].delta == pytest.approx(
        60 - 90.9
    )


@pytest.mark.parametrize(
    ("measured", "shown", "delta", "closer"),
    [
        (0.71249, "71.2", "-19.7", "-19.65"),
        (0.71251, "71.3", "-19.6", "-19.65"),
        (0.909, "90.9", "0.0", "0.00"),
        (0.90949, "90.9", "0.0", "0.05"),
    ],
)
def test_printed_difference_is_that_of_printed_numbers(
    runs: Runs, measured: float, shown: str, delta: str, closer: str
) -> None:
    """The paper's number of this cell is 90.9."""
    runs.probe(accuracy=measured)
    report = runs.report()
    selected = report.selected["t3/deit/cub/linear", Protocol("paper")]
    assert (selected.shown(), str(selected.shown_delta())) == (shown, delta)
    assert str(selected.shown_delta(2)) == closer
    assert selected.delta == pytest.approx(100 * measured - 90.9)
    signed = delta if delta[0] in "-0" else f"+{delta}"
    assert f"**{shown}** (90.9, {signed})" in markdown(report)
    assert f'<b>{shown}</b> <span class="delta">{signed.replace("-", MINUS)}</span>' in page(report)
    assert f'<td class="number">{100 * measured:.2f}</td>' in page(report)
