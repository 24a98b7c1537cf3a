"""Markdown, LaTeX, CSV and Parquet hold the same numbers as the page."""

from __future__ import annotations

import re
import runpy
from itertools import islice
from pathlib import Path

import polars as pl
import pytest

from pa.report.cells import published, tables
from pa.report.latex import escape as latex_escape
from pa.report.latex import latex
from pa.report.markdown import code, markdown
from pa.report.markdown import escape as markdown_escape
from pa.report.numbers import tables_of
from pa.report.table_view import alphabet, remarks
from tests.support.report import VIT_TI, Runs


@pytest.fixture
def some(runs: Runs) -> Runs:
    runs.retrieval("deit", ap=(0.31, 0.41), representation="cls")
    runs.retrieval("deit", ap=(0.35, 0.45), representation="pooled")
    runs.probe("deit", "cub", accuracy=0.8, architecture=VIT_TI)
    runs.probe("deit", "cub", accuracy=0.85, protocol="released")
    return runs


def test_cells_and_results_have_one_line_each(some: Runs) -> None:
    table = tables_of(some.report())["cells"]
    assert table["key"].n_unique() == len(published()) == 230
    states = dict(table.group_by("state").len().iter_rows())
    assert states == {"shown": 3, "not shown": 1, "not measured": 228}
    encoded = table.filter(key="t3/deit/cub/encoded").sort("value")
    assert encoded["stored_as"].to_list() == ["cls", "pooled"]
    assert encoded["state"].to_list() == ["not shown", "shown"]
    assert encoded["delta"].to_list() == pytest.approx([36 - 35, 40 - 35])
    linear = table.filter(key="t3/deit/cub/linear")
    assert linear["protocol"].to_list() == ["paper", "released"]
    assert linear["in_the_papers_setting"].to_list() == [False, True]
    assert linear["low"].to_list() == pytest.approx([79, 84])
    assert table["published"].to_list() == [
        item.value for key in table["key"] for item in published() if item.key == key
    ]


@pytest.mark.parametrize("name", ["cells", "claims"])
def test_every_column_has_values(some: Runs, name: str) -> None:
    some.probe("dino", "cub", accuracy=0.9)  # a comparison with an interval
    table = tables_of(some.report())[name]
    assert [column.name for column in table if column.null_count() == len(table)] == []


def test_csv_and_parquet_agree(some: Runs, tmp_path: Path) -> None:
    table = tables_of(some.report())["cells"]
    table.write_parquet(tmp_path / "cells.parquet")
    read = pl.read_parquet(tmp_path / "cells.parquet")
    text = pl.read_csv(table.write_csv().encode(), schema=table.schema)
    assert read.equals(table)
    assert text.with_columns(pl.col(pl.String).fill_null("")).equals(
        table.with_columns(pl.col(pl.String).fill_null(""))
    )


def test_comparisons_have_one_line_per_source(some: Runs) -> None:
    report = some.report()
    table = tables_of(report)["claims"]
    for judged in report.judged:
        lines = table.filter(claim=judged.claim.id)
        sources = 1 + len(judged.ours)
        assert len(lines) == sources * len(judged.claim.comparisons)
    reference = table.filter(by="paper's numbers")
    assert reference["verdict"].is_in(["holds", "does not hold"]).all()


# -- Markdown -------------------------------------------------------------------------------------


def rows_of(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown page: their rows, their cells."""
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE)
    split = re.compile(r"(?<!\\)\|")
    return [
        [[cell.strip() for cell in split.split(line)[1:-1]] for line in block.splitlines()]
        for block in blocks
    ]


def test_markdown_tables_are_whole(some: Runs) -> None:
    result = rows_of(markdown(some.report()))
    assert len(result) == 6 + 1 + 3  # Table 3 twice, the claims, all results, the sources
    for table in result:
        assert len({len(row) for row in table}) == 1
    deit = next(row for table in result for row in table if row[1].startswith("**40.0**"))
    assert deit[1] == "**40.0** (35.0, +5.0)"
    assert deit[5] == "**80.0**<sup>a</sup> (90.9, -10.9)"


def test_markdown_takes_names_as_they_stand() -> None:
    assert markdown_escape("a|b*c\nd <x>") == r"a\|b\*c d \<x\>"
    assert markdown_escape(" costs $5 ") == r" costs \$5 "
    assert code("a`b c") == "``a`b c``"
    assert code("a`b|c") == "<code>a&#96;b&#124;c</code>"
    assert code("`a") == "`` `a ``"


# -- LaTeX ----------------------------------------------------------------------------------------


def test_latex_rows_have_their_columns(some: Runs) -> None:
    result = latex(some.report())
    for values in re.finditer(
        r"\\begin\{tabular\}\{(l(r+))\}(.*?)\\end\{tabular\}", result, re.DOTALL
    ):
        rows = [line for line in values[3].splitlines() if line.endswith(r"\\") and "&" in line]
        assert len(rows) == 2 + 7
        for row in rows:
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert row.count("&") + spanned == len(values[2])
    assert result.count(r"\begin{table}") == result.count(r"\end{table}") == 7
    assert r"\textbf{80.0}$^{\mathrm{a}}$ {\scriptsize 90.9}" in result


def test_latex_takes_names_as_they_stand() -> None:
    assert latex_escape(r"50 % of a_b & {c} \d ~ ^") == (
        r"50 \% of a\_b \& \{c\} \textbackslash{}d \textasciitilde{} \textasciicircum{}"
    )


# -- footnotes ------------------------------------------------------------------------------------


def test_letters_continue_after_z() -> None:
    first = list(islice(alphabet(), 703))
    assert [first[n] for n in (0, 25, 26, 51, 52, 701, 702)] == [
        "a",
        "z",
        "aa",
        "az",
        "ba",
        "zz",
        "aaa",
    ]


def test_remarks_are_at_their_cells() -> None:
    placed = {item.issue.id: item for item in remarks(tables()[2])}
    assert (placed["mae-shuffle"].scope, placed["mae-shuffle"].at) == ("row", {"mae"})
    assert placed["projected-which"].scope == "column"
    assert placed["projected-which"].at == {"cub/projected", "coco/projected"}
    assert placed["half-sides"].scope == "table"
    assert placed["ibot-best-on-coco-only"].at == {"t3/ibot/cub/encoded"}
    assert [item.number for item in remarks(tables()[2])] == list(range(1, len(placed) + 1))


def test_claims_page_is_current() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "claims.md"
    script = runpy.run_path(str(page.with_name("claims_page.py")))
    assert page.read_text(encoding="utf-8") == script["claims_page"]()
