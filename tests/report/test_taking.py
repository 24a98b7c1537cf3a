"""Which of several results stands in a cell, and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pa.report.protocol import Protocol
from tests.report.conftest import VIT_TI, Runs


def reason(runs: Runs) -> tuple[float, str, int]:
    taken = runs.report().taken["t3/deit/cub/linear", Protocol("paper")]
    return round(taken.ours.value, 3), taken.why, len(taken.others)


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        (lambda r: r.probe(accuracy=0.5, architecture=VIT_TI), "the paper's model"),
        (lambda r: r.probe(accuracy=0.5, test_images=300, rows="few"), "all of the paper's images"),
        (lambda r: r.probe(accuracy=0.5, changed={"epochs": 3}), "the recipe unchanged"),
        (lambda r: r.probe(accuracy=0.5, representation="pooled"), "the recipe unchanged"),
    ],
)
def test_the_nearest_to_the_paper_is_taken(
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


def test_one_result_is_the_only_one(runs: Runs) -> None:
    runs.probe(accuracy=0.5)
    assert reason(runs) == (50.0, "the only result", 0)


def test_protocols_never_compete(runs: Runs) -> None:
    runs.probe(accuracy=0.5)
    runs.probe(accuracy=0.6, protocol="released")
    report = runs.report()
    values = {protocol.key: taken.ours.value for (_, protocol), taken in report.taken.items()}
    assert values == pytest.approx({"paper": 50, "released": 60})
    assert all(not taken.others for taken in report.taken.values())
    assert report.taken["t3/deit/cub/linear", Protocol("released")].delta == pytest.approx(
        60 - 90.9
    )
