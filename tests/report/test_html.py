"""The page: whole, safe, accessible, and nothing mixed."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from pa.report.collection import collect_results
from pa.report.html import MARGIN, WIDTH, Scale, page, signed
from pa.report.report import build
from pa.report.text import identifier
from tests.support.report import VIT_TI, Runs

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Parse a page: elements with attributes, text of each table cell, balance of tags."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for values, attributes in self.elements if values == name]


@pytest.fixture
def full(runs: Runs) -> Runs:
    """A workspace with numbers of several tables, protocols, models, and a figure."""
    for encoder, ap in (("deit", (0.3, 0.4, 0.35)), ("dino", (0.4, 0.5, 0.45))):
        for representation in ("cls", "pooled"):
            runs.retrieval(encoder, ap=ap, representation=representation)
    runs.retrieval("dino", ap=(0.2, 0.3, 0.2), representation="projected")
    runs.probe("deit", "cub", accuracy=0.8, architecture=VIT_TI, test_images=400)
    runs.probe("deit", "cub", accuracy=0.85, protocol="released")
    runs.segmentation("cae", "lip", miou=0.4, test_images=10_000)
    folder = runs.root / "figures" / "retrieval"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 20), "white").save(folder / "scores.png")
    return runs


def test_page_is_valid_html(full: Runs) -> None:
    document = page(full.report())
    assert document.startswith('<!doctype html>\n<html lang="en">')
    read = Page(document)
    assert read.open == []
    assert next(a.get("charset") for a in read.of("meta")) == "utf-8"


def test_page_is_self_contained(full: Runs) -> None:
    read = Page(page(full.report()))
    assert {name for name, _ in read.elements} & {"script", "link", "iframe", "object"} == set()
    for name, attributes in read.elements:
        for attribute in ("src", "href"):
            if (value := attributes.get(attribute)) is not None:
                assert value.startswith(("#", "data:image/")), (name, value)
        assert not [key for key in attributes if key.startswith("on")]
    assert "url(" not in page(full.report())
    assert "@import" not in page(full.report())


def test_page_links_have_targets(full: Runs) -> None:
    read = Page(page(full.report()))
    places = [attributes["id"] for _, attributes in read.elements if attributes.get("id")]
    assert [folder for folder, n in Counter(places).items() if n > 1] == []
    links = {str(attributes["href"])[1:] for attributes in read.of("a")}
    assert links - set(places) == set()


def test_tables_have_scopes_and_pictures_words(full: Runs) -> None:
    read = Page(page(full.report()))
    assert all(attributes.get("scope") for attributes in read.of("th"))
    assert all(attributes.get("alt") for attributes in read.of("img"))
    assert all(a.get("role") == "img" and a.get("aria-label") for a in read.of("svg"))
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


EVIL = '"><img src=x onerror=alert(1)>&<script>alert(2)</script>'


def test_names_cannot_inject(tmp_path: Path) -> None:
    """A folder, an encoder's options, a split, and a damaged file with markup in their names."""
    root = tmp_path / EVIL.replace("/", "|")
    (root / "results").mkdir(parents=True)
    runs = Runs(root)
    runs.probe("dino", "cub", options={"branch": EVIL}, changed={EVIL: EVIL})
    runs.retrieval("deit", split=EVIL.replace("/", ""))
    (root / "results" / "retrieval" / f"{EVIL.replace('/', '')}.json").write_text("{")
    folder = root / "figures" / EVIL.replace("/", "")
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / '"onload=alert(3) x=".png')
    actual = collect_results(root, root / "results", root / "features")
    html = page(build(actual, root / "figures"))
    plain = Page(page(build(collect_results(tmp_path, tmp_path, tmp_path), tmp_path / "no")))
    read = Page(html)
    assert {name for name, _ in read.elements} - {name for name, _ in plain.elements} <= {
        "img",
        "svg",
        "circle",
        "line",
        "b",
        "br",
        "sup",
        "small",
        "strong",
        "ul",
        "details",
        "figure",
        "figcaption",
        "summary",
    }
    assert read.of("script") == []
    assert all(str(a["src"]).startswith("data:image/png;base64,") for a in read.of("img"))
    assert not [a for _, a in read.elements if any(key.startswith("on") for key in a)]
    assert any("<script>alert(2)" in message for message in read.text)  # as words


def test_protocol_has_separate_tables(full: Runs) -> None:
    html = page(full.report())
    captions = re.findall(r"<caption>(Table 3[^<]*)</caption>", html)
    assert [caption.rpartition(", ")[2] for caption in captions] == [
        "protocol paper",
        "protocol released",
    ]
    tables = re.findall(r'<table class="paper"><caption>Table 3.*?</table>', html, re.DOTALL)
    assert "80.0" in tables[0]
    assert "85.0" not in tables[0]
    assert "85.0" in tables[1]
    assert "80.0" not in tables[1]


def test_deviations_are_marked_at_number_and_on_top(full: Runs) -> None:
    html = page(full.report())
    letters = re.search(r"<b>80\.0</b><sup>([a-z,]+)</sup>", html)
    assert letters is not None
    assert letters[1] == "a,b"
    assert "<sup>a</sup> another model: ViT-Ti/16, 192 wide" in html
    assert "<sup>b</sup> subset: 400 images of 5,794" in html
    assert "Read with care." in html
    assert re.search(r"<b>85\.0</b> ", html)  # this one is the paper's setting: no letter


def test_page_without_deviations_has_no_warning(runs: Runs) -> None:
    runs.probe("deit", "cub")
    assert "Read with care." not in page(runs.report())


def test_equal_reports_give_equal_pages(full: Runs) -> None:
    from datetime import UTC, datetime

    result = datetime(2026, 1, 2, tzinfo=UTC)
    actual = full.read()
    pages = {page(build(actual, full.root / "figures", created=result)) for _ in range(2)}
    assert len(pages) == 1


# -- colours --------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of a colour, WCAG 2.1."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, two: str) -> float:
    light, dark = sorted((luminance(first), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes() -> list[dict[str, str]]:
    sheet = (resources.files("pa.report") / "templates" / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    return [
        {
            name: colour if len(colour) == 7 else "#" + "".join(2 * c for c in colour[1:])
            for name, colour in re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", block)
        }
        for block in blocks
    ]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_can_be_read(number: int) -> None:
    """Contrast of 4.5 to 1 at least, WCAG level AA, for every colour of text on its ground."""
    colours = schemes()[number]
    pairs = [(name, "paper") for name in ("ink", "soft", "ours", "theirs", "link")]
    pairs += [(name, f"{name}-bg") for name in ("holds", "fails", "open", "none")]
    pairs += [("ink", "open-bg"), ("ink", "faint"), ("open", "paper")]
    low = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}


# -- small things ---------------------------------------------------------------------------------


def test_identifiers_are_readable() -> None:
    assert identifier("t3/dino/cub/encoded-paper") == "t3-dino-cub-encoded-paper"


def test_dot_is_drawn_at_its_number() -> None:
    scale = Scale(20, 60)
    assert (scale.x(20), scale.x(40), scale.x(60)) == (MARGIN, WIDTH / 2, WIDTH - MARGIN)
    assert scale.x(999) == WIDTH - MARGIN  # never outside


def test_interval_is_drawn_around_dot(runs: Runs) -> None:
    runs.probe("deit", "cub", accuracy=0.8, half=0.02)
    read = Page(page(runs.report()))
    drawings = [item for name, item in read.elements if name in ("line", "circle")]
    legend, drawn = drawings[: len(drawings) // 2], drawings[len(drawings) // 2 :]
    assert [item["class"] for item in drawn] == [item["class"] for item in legend]
    _, bar, whisker, _, _, ours = drawn
    low, high, dot = (float(str(item)) for item in (whisker["x1"], whisker["x2"], ours["cx"]))
    assert dot == pytest.approx((low + high) / 2, abs=0.1)
    assert dot < float(str(bar["x1"]))  # the paper's number of this cell is 90.9


@pytest.mark.parametrize(
    ("value", "message"), [(1.54, "+1.5"), (-0.04, "0.0"), (-0.4, "\u22120.4"), (0, "0.0")]
)
def test_differences_have_signs(value: float, message: str) -> None:
    assert signed(value) == message
