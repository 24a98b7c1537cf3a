"""Figures of a workspace and of the paper in the page, in Markdown and in LaTeX."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pa.report.figures import LARGEST, Figure, by_paper_figure, figures_in, paper_figures
from pa.report.html import page
from pa.report.latex import latex_figures
from pa.report.markdown import markdown_figures
from tests.support.commands import parse_words
from tests.support.report import Runs

ABOUT = {
    "title": "Top-24 neighbours",
    "caption": "With 5 % & a_b, row 7.",
    "command": "pa figure neighbours --query 7",
    "stores": [
        {"title": "imagenet/val/grid/deit/0123456789abcdef"},
        {"title": "imagenet/val/grid/deit/0123456789abcdef"},
    ],
}


@pytest.fixture
def figures(runs: Runs) -> tuple[Figure, ...]:
    folder = runs.root / "figures"
    for name in ("neighbours/figure-2", "segmentation/figure-6-pascal-paper", "depth/cub-paper"):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path)
        path.with_suffix(".pdf").write_bytes(b"%PDF")
        path.with_suffix(".json").write_text(json.dumps(ABOUT))
    return figures_in(folder)


def test_figures_are_shown_next_to_descriptions(figures: tuple[Figure, ...]) -> None:
    ours = {
        reference.number if reference else None: [item.name for item in actual]
        for reference, actual in by_paper_figure(figures)
    }
    named = {2: ["figure-2"], 4: [], 6: ["figure-6-pascal-paper"], 7: [], 8: []}
    assert ours == {**named, None: ["cub-paper"]}


def test_commands_of_paper_figures_are_valid() -> None:
    for item in paper_figures():
        words = item.command.split()
        assert words[0] == "pa"
        parse_words(words[1:])
        assert words[-1] == f"figure-{item.number}"


def test_page_embeds_figures(runs: Runs, figures: tuple[Figure, ...]) -> None:
    html = page(runs.report())
    assert html.count('src="data:image/png;base64,') == len(figures)
    assert "Figure 2: Nearest patches" in html
    assert html.index("Figure 6: ") < html.index("Other figures")
    assert html.count("imagenet/val/grid/deit/0123456789abcdef") == len(figures)
    assert "pa figure projected --encoder mocov3 --example 1 --name figure-4" in html


def test_markdown_links_are_relative_to_its_folder(runs: Runs, figures: tuple[Figure, ...]) -> None:
    text = markdown_figures(figures, runs.root / "reports")
    links = [line.split("(<")[1].rstrip(">)") for line in text.splitlines() if "](<" in line]
    assert len(links) == len(figures)
    for link in links:
        assert (runs.root / "reports" / link).resolve().is_file()
    assert "`imagenet/val/grid/deit/0123456789abcdef`" in text
    assert "Ours is not drawn: `pa figure projected" in text


def test_latex_takes_the_pdf_and_escapes_the_caption(
    runs: Runs, figures: tuple[Figure, ...]
) -> None:
    text = latex_figures(figures, runs.root / "reports", "1.0")
    assert text.count(r"\begin{figure}") == text.count(r"\end{figure}") == len(figures)
    assert r"{\detokenize{../figures/neighbours/figure-2.pdf}}" in text
    assert r"The paper's Figure 2, ours: Top-24 neighbours. With 5 \% \& a\_b, row 7." in text


def test_figures_are_grouped_and_the_best_is_shown(tmp_path: Path) -> None:
    for name in ("a.pdf", "a.png", "b.pdf", "sub/c.svg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "big.png").write_bytes(bytes(LARGEST + 1))
    actual = {item.name: item for item in figures_in(tmp_path)}
    assert sorted(actual) == ["a", "b", "big", "c"]
    assert actual["a"].shown == tmp_path / "a.png"
    assert actual["a"].files == (tmp_path / "a.pdf", tmp_path / "a.png")
    assert actual["b"].why_not == "no PNG, SVG, JPEG or WebP of it"
    assert actual["big"].why_not == "8.0 MB, too large for this page"
    assert (actual["c"].folder, actual["c"].media_type) == ("sub", "image/svg+xml")
    assert figures_in(tmp_path / "nowhere") == ()


def test_figures_have_recorded_captions(tmp_path: Path) -> None:
    for name, about in (
        ("top-24", '{"title": "Top 24", "caption": "Nearest patches.", "command": "pa figure"}'),
        ("torn-0123456789ab", "{"),
        ("list", "[1]"),
        ("odd", '{"title": 7, "caption": "Here."}'),
    ):
        (tmp_path / f"{name}.png").write_bytes(b"x")
        (tmp_path / f"{name}.json").write_text(about)
    output = {item.name: (item.title, item.caption, item.command) for item in figures_in(tmp_path)}
    assert output == {
        "top-24": ("Top 24", "Nearest patches.", "pa figure"),
        "torn-0123456789ab": ("torn", "", ""),
        "list": ("list", "", ""),
        "odd": ("odd", "Here.", ""),
    }
