"""The page in a real browser: Chromium, driven by Playwright."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from pa.config import Config
from pa.data.views import VIEWS
from tests.explore.conftest import PER_IMAGE, clustered, photographs, serving
from tests.support.images import noise_image
from tests.support.vectors import write_store

pytestmark = pytest.mark.browser

Json = dict[str, Any]
Open = Callable[..., Page]
ROW = 107  # of image 2
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail("Chromium is required here, and not installed")
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # In a container root may not have the sandbox that Chromium wants.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def url(workspace: Path) -> Iterator[str]:
    with serving(workspace) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Open]:
    """Open the page: other hosts are out of reach, and no complaint of the browser is let pass."""
    complaints: list[str] = []
    strangers: list[str] = []
    referers: list[str] = []
    contexts = []

    def stay(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and address.hostname != "127.0.0.1":
            strangers.append(request.url)
        referers.append(request.headers.get("referer", ""))

    def open_it(query: str = "", at: str = url, **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
        contexts.append(context)
        context.route(lambda url: urlsplit(url).hostname not in (None, "127.0.0.1"), _abort)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", stay)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(at + query.replace("?", "&"))
        assert "token" not in page.url
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert strangers == []
    assert not any("token" in referer for referer in referers)
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def _abort(route: Any) -> None:
    route.abort()


def settled(page: Page, row: int) -> None:
    """Wait until the page shows the neighbours of a row."""
    expect(page.locator("#query .facts dd").first).to_have_text(str(row))
    expect(page.locator(".column.stale")).to_have_count(0)


def shown(page: Page) -> dict[str, list[tuple[int, float]]]:
    """Rows and cosines of every column that has an answer."""
    neighbours: dict[str, list[tuple[int, float]]] = {}
    for section in page.locator(".column").all():
        patches = section.locator(".patch").all()
        if patches:
            name = " ".join(section.locator("h2 > *").all_inner_texts())
            neighbours[name] = [
                (int(p.get_attribute("data-row") or -1), float(p.get_attribute("data-cosine") or 9))
                for p in patches
            ]
    return neighbours


def searched(command: str) -> dict[str, list[tuple[int, float]]]:
    """The same of `pa search --json`, typed in a shell."""
    neighbours = {}
    for line in command.splitlines():
        words = [sys.executable, "-m", *shlex.split(line), "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        for result in json.loads(done.stdout)["results"]:
            name = f"{result['encoder']} {result['representation']}"
            neighbours[name] = [(near["row"], near["cosine"]) for near in result["neighbours"]]
    return neighbours


def test_choose_an_image_click_a_window_follow_a_neighbour_and_go_back(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("option", name="class2 002.png").click()
    settled(page, 2 * PER_IMAGE + 24)
    page.get_by_role("button", name=f"row {ROW}").click()
    settled(page, ROW)
    assert f"row={ROW}" in page.url
    first = shown(page)
    assert list(first) == ["alpha cls", "alpha pooled", "alpha projected", "beta cls"]
    assert all(len(patches) == 24 for patches in first.values())

    near = page.locator(".column").nth(2).locator(".patch").nth(3)
    to = int(near.get_attribute("data-row") or -1)
    near.click()
    settled(page, to)
    assert shown(page) != first
    assert page.locator("#trail li").count() == 4

    page.go_back()
    settled(page, ROW)
    assert shown(page) == first
    page.locator("#trail a").first.click()
    expect(page.locator("#trail li")).to_have_count(1)


def test_neighbours_are_those_of_the_command_that_is_copied(
    open_page: Open, workspace: Path
) -> None:
    page = open_page(
        f"?row={ROW}&k=13&exclude=1", permissions=["clipboard-read", "clipboard-write"]
    )
    settled(page, ROW)
    page.get_by_role("button", name="Columns").or_(page.locator("#choose summary")).first.click()
    page.get_by_label("beta · pooled").uncheck()
    settled(page, ROW)
    page.get_by_role("button", name="Copy pa search").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    command = page.evaluate("navigator.clipboard.readText()")
    assert "--exclude-same-image" in command
    assert shown(page) == searched(command)


def test_permalink_restores_page(open_page: Open) -> None:
    page = open_page(f"?row={ROW}")
    settled(page, ROW)
    page.locator("#exclude").check()
    page.locator("#k").fill("7")
    page.locator("#k").press("Enter")
    page.locator("#k").blur()
    expect(page.locator(".column").first.locator(".patch")).to_have_count(7)
    settled(page, ROW)
    before = shown(page)
    assert all(row // PER_IMAGE != 2 for patches in before.values() for row, _ in patches)
    page.reload()
    settled(page, ROW)
    assert shown(page) == before
    other = open_page("?" + urlsplit(page.url).query)
    settled(other, ROW)
    assert shown(other) == before


def test_page_works_with_keyboard_only(open_page: Open) -> None:
    page = open_page(f"?row={ROW}")
    settled(page, ROW)
    keys = page.keyboard
    keys.press("/")
    keys.type("class1 004")
    keys.press("Enter")
    settled(page, 4 * PER_IMAGE + 24)
    page.locator("#text").press("ArrowDown")
    expect(page.locator(".thumb:focus")).to_have_attribute("aria-selected", "true")

    keys.press("q")
    expect(page.locator(".hit:focus")).to_have_attribute("data-row", str(4 * PER_IMAGE + 24))
    keys.press("ArrowDown")
    keys.press("ArrowRight")
    keys.press("Enter")
    settled(page, 4 * PER_IMAGE + 32)

    keys.press("n")
    keys.press("ArrowRight")
    focused = page.locator(".patch:focus")
    expect(focused).to_have_attribute("data-rank", "2")
    outline = focused.evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid", "focus can be seen"
    expect(page.locator("#inspector dd").nth(1)).to_have_text("2 in alpha · cls")
    to = int(focused.get_attribute("data-row") or -1)
    keys.press("Enter")
    settled(page, to)
    expect(page.locator(".patch:focus")).to_have_attribute("data-rank", "1")
    keys.press("Tab")
    inside = page.evaluate(
        "document.activeElement.closest('.column').querySelector('h2').innerText"
    )
    assert inside.split() == ["alpha", "pooled"]
    keys.press("b")
    settled(page, 4 * PER_IMAGE + 32)
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    keys.press("Escape")
    keys.press("r")
    expect(page.locator("#query .facts dd").first).not_to_have_text(str(4 * PER_IMAGE + 32))


def test_page_fits_narrow_screen(open_page: Open) -> None:
    page = open_page(f"?row={ROW}", viewport={"width": 400, "height": 860})
    settled(page, ROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for selector in ("#gallery", "#k", "#random", "#text", "#query .frame", ".patch"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    page.get_by_role("button", name=f"row {ROW + 1}", exact=False).click()
    settled(page, ROW + 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page: Open, scheme: str) -> None:
    """The contrast of text by WCAG 2: 4.5 to 1 or more."""
    page = open_page(f"?row={ROW}", color_scheme=scheme)
    settled(page, ROW)
    pairs = page.evaluate(CONTRASTS)
    assert len(pairs) > 20
    assert min(_contrast(*pair) for pair in pairs) >= 4.5


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour, below) => {
    canvas.fillStyle = `rgb(${below})`;
    canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const behind = (element) => {
    const above = [];
    for (let at = element; at; at = at.parentElement) above.unshift(getComputedStyle(at).backgroundColor);
    return above.reduce((below, colour) => rgb(colour, below), [255, 255, 255]);
  };
  return [...document.querySelectorAll("h1, h2 > *, .note, .cosine, .label, dt, dd, summary, .key, .field > span, .check, .thumb span, output, main button")]
    .filter((element) => element.textContent.trim() && element.checkVisibility() && !element.closest("[aria-busy]"))
    .map((element) => [rgb(getComputedStyle(element).color, behind(element)), behind(element)]);
}"""


def _contrast(text: list[int], ground: list[int]) -> float:
    def luminance(colour: list[int]) -> float:
        parts = [value / 255 for value in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(text), luminance(ground)))
    return (bright + 0.05) / (dark + 0.05)


def test_missing_index_is_shown_with_command(
    open_page: Open, tmp_path: Path, workspace: Path
) -> None:
    page = open_page(f"?row={ROW}")
    settled(page, ROW)
    message = page.locator(".column").last.locator(".problem")
    expect(message.locator("code")).to_contain_text("pa index build --store")
    expect(message.locator("code")).to_contain_text(f"--workspace {workspace}")
    with serving(tmp_path) as empty:
        nothing = open_page(at=empty)
        expect(nothing.get_by_role("heading", name="No features yet")).to_be_visible()
        expect(nothing.locator("code").first).to_contain_text("pa extract")
        gone = open_page(f"?row={10**9}")
        expect(gone.locator("#query .problem")).to_contain_text("has rows 0 to 587")
        gone.get_by_role("button", name="A random region").click()
        expect(gone.locator(".patch").first).to_be_visible()


def test_stopped_server_is_noticed(open_page: Open, workspace: Path) -> None:
    with serving(workspace) as address:
        page = open_page(f"?row={ROW}", at=address)
        settled(page, ROW)
    page.get_by_role("button", name=f"row {ROW + 1}", exact=False).click()
    message = page.locator("#query .problem")
    expect(message).to_contain_text("does not answer")
    expect(message.locator("code")).to_have_text("pa explore")


def test_uploaded_image_is_boxed_and_searched(open_page: Open, tmp_path: Path) -> None:
    noise_image(5, (200, 100)).save(tmp_path / "mine.png")
    page = open_page(f"?row={ROW}")
    settled(page, ROW)
    page.get_by_role("button", name="Your image").click()
    page.locator("#own-file").set_input_files(tmp_path / "mine.png")
    numbers = page.locator(".numbers input")
    expect(numbers.nth(3)).to_have_value("75")
    frame = page.locator(".drawing").bounding_box()
    assert frame is not None
    at = [
        (frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y)
        for x, y in ((0.1, 0.2), (0.6, 0.8))
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    box = [int(number.input_value()) for number in numbers.all()]
    assert all(abs(shown - drawn) <= 1 for shown, drawn in zip(box, (20, 20, 120, 80), strict=True))
    page.locator(".drawing .box").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    moved = [int(number.input_value()) for number in numbers.all()]
    assert moved == [box[0] - 2, box[1], box[2] - 2, box[3] + 2]
    page.get_by_role("button", name="Search", exact=True).click()
    # The encoders of this workspace are made up: each column says what is missing.
    expect(page.locator(".column .problem").first).to_contain_text("alpha", timeout=60_000)
    expect(page.locator("#query .facts")).to_contain_text("mine.png, 200×100")
    page.go_back()
    settled(page, ROW)


def test_touch_selects_window_and_draws_box(open_page: Open, tmp_path: Path) -> None:
    noise_image(5, (200, 100)).save(tmp_path / "mine.png")
    phone = {"viewport": {"width": 400, "height": 860}, "has_touch": True, "is_mobile": True}
    page = open_page(f"?row={ROW}", **phone)
    settled(page, ROW)
    page.get_by_role("button", name=f"row {ROW + 1}", exact=False).tap()
    settled(page, ROW + 1)
    page.get_by_role("button", name="Your image").tap()
    page.locator("#own-file").set_input_files(tmp_path / "mine.png")
    numbers = page.locator(".numbers input")
    expect(numbers.nth(3)).to_have_value("75")
    page.locator(".drawing").scroll_into_view_if_needed()
    frame = page.locator(".drawing").bounding_box()
    assert frame is not None
    scrolled = page.evaluate("scrollY")
    finger = page.context.new_cdp_session(page)
    for kind, x, y in (("Start", 0.1, 0.2), ("Move", 0.4, 0.5), ("Move", 0.6, 0.8)):
        point = {"x": frame["x"] + frame["width"] * x, "y": frame["y"] + frame["height"] * y}
        finger.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    box = [int(number.input_value()) for number in numbers.all()]
    assert all(abs(shown - drawn) <= 2 for shown, drawn in zip(box, (20, 20, 120, 80), strict=True))
    assert page.evaluate("scrollY") == scrolled


def test_figure_is_downloaded(open_page: Open, tmp_path: Path) -> None:
    page = open_page(f"?row={ROW}&k=4")
    settled(page, ROW)
    page.locator("#choose summary").click()
    page.get_by_label("beta · pooled").uncheck()
    settled(page, ROW)
    for suffix, begins in (("PNG", b"\x89PNG"), ("PDF", b"%PDF")):
        with page.expect_download() as coming:
            page.get_by_role("button", name=suffix, exact=True).click()
        assert coming.value.suggested_filename == f"query-{ROW}.{suffix.lower()}"
        assert coming.value.path().read_bytes().startswith(begins)


def test_visible_images_alone_are_in_page(open_page: Open, config: Config, tmp_path: Path) -> None:
    n = 10_000
    images = photographs(tmp_path / "nowhere", n, write=False)
    write_store(tmp_path / "features", images, VIEWS["image"], {"cls": clustered(0, 4, n)}, "many")
    with serving(tmp_path) as address:
        page = open_page("?row=0", at=address)
        expect(page.locator("#found")).to_have_text("10,000 images")
        expect(page.locator(".thumb").first).to_be_attached()
        assert page.locator(".thumb").count() < 120
        page.locator(".thumb").first.focus()
        page.keyboard.press("End")
        expect(page.locator(".thumb:focus")).to_have_attribute("aria-posinset", str(n))
        expect(page.locator(".thumb:focus")).to_have_attribute("data-image", str(n - 1))
        assert page.locator(".thumb").count() < 120
        page.locator("#text").fill("9321.png")
        expect(page.locator("#found")).to_have_text("1 image")
