"""Every result of a workspace is listed, whatever the paper's tables ask for."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from pa.commands.report import report_text
from pa.evaluate.bootstrap import Mean
from pa.evaluate.classification import Accuracy, Chance, Scores
from pa.evaluate.intervals import Interval
from pa.evaluate.result_parts import (
    Pair,
    RecordedProtocol,
    RowCounts,
    SplitCounts,
    SplitSelection,
    TargetSelection,
    TrainTest,
)
from pa.evaluate.results import KnnProbeResult, RetrievalDifference
from pa.report.html import page
from pa.report.latex import latex
from pa.report.markdown import markdown
from pa.report.numbers import tables_of
from tests.support.report import Runs

METHOD = "t over images"


def knn_result(runs: Runs) -> KnnProbeResult:
    """A result that no table of the paper asks for."""
    store = runs.store("timm/convnext_tiny", "holidays", "summer")
    best, other = (
        Accuracy(value, 80, 40, Interval(0.5, 0.75, METHOD), Chance(0.25, 0.25))
        for value in (0.625, 0.5)
    )
    counts = dict.fromkeys((item.name for item in fields(SplitCounts)), 40)
    return KnnProbeResult(
        protocol=RecordedProtocol({"protocol": "dino", "k": [10, 20]}),
        stores=TrainTest(store, store),
        representation="pooled",
        selection=SplitSelection("held out", "label"),
        counts=SplitCounts(**counts),
        scores={
            "k=10": Scores(**vars(best), std=None, each=(best,)),
            "k=20": Scores(**vars(other), std=None, each=(other,)),
        },
        seconds={},
    )


def difference_result(runs: Runs) -> RetrievalDifference:
    """A difference of two encoders, with the score of one part."""
    counts = dict.fromkeys((item.name for item in fields(RowCounts)), 40)
    return RetrievalDifference(
        protocol=RecordedProtocol({"protocol": "paper"}),
        stores=Pair(runs.store("dino", "cub", "all"), runs.store("deit", "cub", "all")),
        representation="pooled",
        selection=TargetSelection("label"),
        counts=RowCounts(**counts),
        scores={
            "ap": Mean(-0.015, 80, 40, Interval(-0.02, -0.01, METHOD)),
            "ap/tail": Mean(0.625, 80, 40, Interval(0.5, 0.75, METHOD)),
        },
        seconds={},
    )


@pytest.fixture
def several(runs: Runs) -> Runs:
    """Two results for one cell, one of another encoder and dataset, and two of other tasks."""
    runs.retrieval("deit", ap=(0.4, 0.5))
    runs.retrieval("deit", ap=(0.3, 0.45), representation="pooled")
    runs.retrieval("timm/convnext_tiny", "holidays", ap=(0.2, 0.4), split="summer")
    runs.write(knn_result(runs))
    runs.write(difference_result(runs))
    return runs


def test_results_are_listed_once_with_scores(several: Runs) -> None:
    listed = several.report().listed
    assert {item.file for item in listed} == {
        str(path.relative_to(several.root)) for path in several.written
    }
    assert [item.score for item in listed] == ["k=10", "k=20", "AP", "AP", "AP", "AP"]
    knn = listed[0]
    assert (knn.encoder, knn.data) == ("timm/convnext_tiny", "holidays, summer, parts")
    assert (knn.value, knn.interval, knn.chance) == (62.5, (50, 75), 25)
    assert (knn.n, knn.unit, knn.n_images) == (80, "test rows", 40)
    assert knn.protocol.startswith("dino")
    difference = next(item for item in listed if item.task == "retrieval-difference")
    assert (difference.encoder, difference.value) == ("dino − deit", -1.5)


def test_cells_of_paper_are_marked(several: Runs) -> None:
    listed = several.report().listed
    marked = {(item.encoder, item.representation): item for item in listed if item.cells}
    assert set(marked) == {("deit", "cls"), ("deit", "pooled")}
    better, other = marked["deit", "cls"], marked["deit", "pooled"]
    assert [cell.key for cell in better.cells] == ["t3/deit/cub/encoded"]
    assert (better.is_selected, other.is_selected) == (True, False)
    assert "Table 3" in better.in_the_paper


def test_results_are_listed_in_every_format(several: Runs) -> None:
    report = several.report()
    table = tables_of(report)["results"]
    assert table["value"].to_list() == [item.value for item in report.listed]
    assert table["cells"].to_list().count("t3/deit/cub/encoded") == 2
    rows = re.findall(r"<tr[^>]*>.*?</tr>", page(report), flags=re.S)
    for item in report.listed:
        in_page = [row for row in rows if item.file in row and item.protocol in row]
        assert any(f"{item.value:.2f}".lstrip("-") in row for row in in_page)
    assert f"**{report.listed[2].value:.2f}**" in markdown(report)
    for text in (markdown(report), latex(report)):
        for value in ("62.50", "50.00", "-1.50"):
            assert value in text
    assert len(json.loads(json.dumps(report.to_json()))["all_results"]) == 6
    assert "6 scores of 5 results" in report_text(report, ())
