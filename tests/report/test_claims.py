"""What every format says of a claim: how much of it is measured, and on what it rests."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pa.commands.report import report_text
from pa.report.html import page
from pa.report.latex import latex
from pa.report.markdown import markdown
from pa.report.numbers import tables_of
from tests.support.report import Runs


def test_claim_progress_is_shown_in_every_format(runs: Runs) -> None:
    for encoder, miou in (("dino", 0.35), ("deit", 0.30)):
        runs.segmentation(encoder, "ade20k-part", miou=miou)
    report = runs.report()
    output = "1 of 2 measured: 1 holds"
    assert f"<small>{output}</small>" in page(report)
    assert f"undecided ({output})" in re.sub(r"\\\*", "", markdown(report))
    assert rf"\newline{{\tiny {output}}}" in latex(report)
    shown = report_text(report, ())
    line = next(row for row in shown.splitlines() if "DINO is above DeiT on ADE20K-Part" in row)
    assert re.split(r"\s{2,}", line)[:7] == [
        "undecided",
        "1 of 2",
        "1",
        "0",
        "0",
        "2",
        "ours, paper",
    ]
    judged = {item.claim.id: item for item in report.judged}["segmentation-dino-over-deit"]
    ours = judged.to_json()["by_ours"]["paper"]
    assert {name: ours[name] for name in ("verdict", "comparisons", "measured", "hold")} == {
        "verdict": "undecided",
        "comparisons": 2,
        "measured": 1,
        "hold": 1,
    }
    first, second = ours["outcomes"]
    assert (first["first"], first["verdict"]) == ("t4/dino/ade20k-part/miou", "holds")
    assert first["difference"] == pytest.approx(5)
    assert (second["verdict"], second["interval"]) == ("not measured", None)
    lines = tables_of(report)["claims"].filter(claim=judged.claim.id, by="ours, paper")
    assert lines["claim_measured"].to_list() == [1, 1]
    assert lines["claim_comparisons"].to_list() == [2, 2]
    assert lines["claim_needed"].to_list() == [2, 2]
    assert lines["verdict"].to_list() == ["holds", "not measured"]


# -- scores of queries -------------------------------------------------------------------------


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def shorter(path: Path) -> None:
    """A table of Parquet, of fewer queries."""
    pl.read_parquet(path).head(1).write_parquet(path)


def without_scores(path: Path) -> None:
    pl.read_parquet(path).drop("ap").write_parquet(path)


def overwritten(path: Path) -> None:
    """The ends of a table of Parquet, and noise between them."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) - 12) + whole[-8:])


@pytest.mark.parametrize("damage", [torn, empty, shorter, without_scores, overwritten])
def test_damaged_scores_of_queries_are_named_and_claims_say_so(
    runs: Runs, damage: Callable[[Path], None]
) -> None:
    for dataset, split in (("cub", "all"), ("coco", "train2017")):
        runs.retrieval("dino", dataset, ap=(0.5, 0.6), split=split)
        path = runs.retrieval("deit", dataset, ap=(0.4, 0.5), split=split)
    damage(path.with_suffix(".parquet"))
    report = runs.report()
    assert [item.path for item in report.damaged] == [path.with_suffix(".parquet")]
    assert len(report.collection.results) == 4  # the result itself stands
    judged = {item.claim.id: item for item in report.judged}["retrieval-self-supervised-over-deit"]
    bases = {o.comparison.first.key: o.basis for o in judged.ours[0].outcomes if o.is_measured}
    assert bases == {
        "t3/dino/cub/encoded": "paired",
        "t3/dino/coco/encoded": "unpaired: scores of queries damaged",
    }
    for html in (page(report), markdown(report), report_text(report, ())):
        assert path.with_suffix(".parquet").name in html
        assert "unpaired interval: scores of queries are damaged or missing" in html
    actual = judged.to_json()["by_ours"]["paper"]
    assert actual["without_pairs"] == 1
