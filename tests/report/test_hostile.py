"""Names that a page, a table or a terminal could take for orders: every format shows them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import polars as pl
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from pa.commands.report import report_text
from pa.progress import Silent
from pa.report.collection import collect_results
from pa.report.html import page
from pa.report.latex import escape as latex_escape
from pa.report.latex import latex
from pa.report.markdown import code, markdown
from pa.report.markdown import escape as markdown_escape
from pa.report.numbers import tables_of
from pa.report.output import write_report
from pa.report.report import Report, build
from pa.report.text import identifier, one_line, printable
from tests.support.report import Runs

HOSTILE = {
    "markup": "\"><img src=x onerror='alert(1)'>&amp;<script>alert(2)</script><!-- ]]>",
    "style": "</style></title></textarea><b>x",
    "latex": r"\input{secret} \\ { } }{ % $x$ # _ ^ ~ & --- ``x'' !` ?` << >>",
    "formula": '=HYPERLINK("http://x";"y")',
    "plus": "+1+1",
    "minus": "-1-1",
    "at": "@SUM(A1:A2)",
    "markdown": "a|b\\|c\\\\|d `x` ``y`` *z* _u_ [l](http://x) ![i](x) # - 1. <b> ~~s~~ $m$",
    "lines": "one\n\n| two | three |\n| --- | --- |\r\n\r\n    four\u2028five\x0bsix",
    "direction": "abc\u202edcba\u2066x\u200f",
    "control": "\x1b[31mred\x1b]0;title\x07\x08\x7f\x9b1m",
    "long": "x" * 300,
    "letters": "Zürich Čapek 北京 שלום 🐦 ß ≤ ½",
    "quotes": 'it\'s "so" `it` is',
}
PLAIN = "plain"
names = pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)


def workspace(root: Path, name: str) -> Report:
    """Results, a damaged one, and a figure, with a name wherever a user or a file may put one."""
    file_name = re.sub(r"[/\x00]", "|", name).encode()[:200].decode(errors="ignore")
    root = root / file_name
    (root / "results" / "retrieval").mkdir(parents=True)
    runs = Runs(root)
    runs.probe("dino", "cub", options={"branch": name}, changed={name: name}, protocol="paper")
    runs.probe("deit", "cub", protocol=name)
    runs.retrieval("deit", split=name)
    runs.retrieval("dino", split=name, representation="projected")
    (root / "results" / "retrieval" / f"{file_name}.json").write_text("{")
    folder = root / "figures" / file_name
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "figure.png")
    about = {"title": name, "caption": name, "command": f"pa figure {name}"}
    (folder / "figure.json").write_text(json.dumps(about))
    actual = collect_results(root, root / "results", root / "features")
    return build(actual, root / "figures")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return workspace(tmp_path_factory.mktemp("plain"), PLAIN)


def parsed(text: str) -> html5lib.HTMLParser:
    """A page as a browser reads it: `root`, and `errors` of its writing."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    parser.root = parser.parse(text)
    return parser


def tags(root: Element) -> list[str]:
    return [str(item.tag) for item in root.iter()]


def words(root: Element) -> str:
    """What a page says and shows on hovering, with runs of white space as one space."""
    attributes = (value for item in root.iter() for value in item.attrib.values())
    return " ".join(" ".join([*root.itertext(), *attributes]).split())


@pytest.fixture(scope="module")
def plain_tags(plain: Report) -> list[str]:
    return tags(parsed(page(plain)).root)


@names
def test_hostile_names_do_not_change_page_structure(
    tmp_path: Path, plain_tags: list[str], name: str
) -> None:
    read = parsed(page(workspace(tmp_path, name)))
    assert read.errors == []
    assert tags(read.root) == plain_tags
    assert one_line(name) in words(read.root)
    assert [key for item in read.root.iter() for key in item.attrib if key.startswith("on")] == []
    ids = [item.attrib["id"] for item in read.root.iter() if "id" in item.attrib]
    assert len(set(ids)) == len(ids)


def structure(text: str) -> list[str]:
    """Return the parts of a Markdown page, and the non-text content of its lines."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    collected: list[str] = []
    for token in reader.parse(text):
        collected.append(token.type)
        collected += [child.type for child in token.children or () if child.type not in INLINE]
    return collected


# Code with a | in it is written as HTML; this makes no other part of a page.
INLINE = ("text", "code_inline", "html_inline", "text_special", "softbreak")


@names
def test_markdown_shows_names_and_its_tables_stay_tables(
    tmp_path: Path, plain: Report, name: str
) -> None:
    result = markdown(workspace(tmp_path, name))
    assert structure(result) == structure(markdown(plain))
    shown = parsed(MarkdownIt("commonmark").enable("table").render(result)).root
    assert one_line(name) in words(shown)
    assert {"script", "img", "a", "style"} & set(tags(shown)) == set()


@names
def test_markdown_text_and_code_read_back(name: str) -> None:
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for written_as in (markdown_escape(name), code(name)):
        shown = parsed(reader.render(f"| a | b |\n| --- | --- |\n| {written_as} | c |\n")).root
        cells = ["".join(item.itertext()) for item in shown.iter("td")]
        assert cells == [one_line(name), "c"]
    shown = parsed(reader.render(f"Workspace {code(name)}, and")).root
    assert "".join(next(shown.iter("p")).itertext()) == f"Workspace {one_line(name)}, and"


# What LaTeX's escapes may be made of: words, and commands that set one sign.
SAFE = re.compile(
    r"(?:[A-Za-z0-9 .,;:!?'=+/@()\[\]*-]|\\[&%$#_{}]|\{\}|\{`\}"
    r"|\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots"
    r"|textendash|textquotedblright)\{\}|\$(?:-|\\times|\\leq)\$|\\[`'^~=u.\"rHvc]\{\\?[A-Za-z]\})*"
)


@names
def test_latex_is_words_and_signs(name: str) -> None:
    result = latex_escape(name)
    assert SAFE.fullmatch(result), result
    assert "--" not in result


def test_latex_sets_accents_and_says_what_it_has_no_sign_for() -> None:
    assert latex_escape("Zürich, Čapek, 北") == r"Z\"{u}rich, \v{C}apek, U+5317"
    assert latex_escape("--limit") == "-{}-limit"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles_with_every_name(tmp_path: Path) -> None:
    parts = []
    for number, name in enumerate(HOSTILE.values()):
        (tmp_path / f"tables{number}.tex").write_text(
            latex(workspace(tmp_path / str(number), name)), encoding="utf-8"
        )
        parts.append(rf"\input{{tables{number}}}\clearpage")
    body = "\n".join(parts)
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,longtable}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output[-2000:]
    assert "multiply defined" not in output
    assert "Missing character" not in output


@names
def test_tables_read_back_equal(tmp_path: Path, name: str) -> None:
    report = workspace(tmp_path, name)
    for table in (tables_of(report)["cells"], tables_of(report)["claims"]):
        read = pl.read_csv(io.BytesIO(table.write_csv().encode()), schema=table.schema)
        empty = pl.col(pl.String).fill_null("")
        assert read.with_columns(empty).equals(table.with_columns(empty))
    assert any(name in (item or "") for item in tables_of(report)["cells"]["remarks"])
    assert f"{name}-on-paper" in tables_of(report)["cells"]["protocol"].to_list()


@names
def test_hostile_names_do_not_control_terminal(tmp_path: Path, plain: Report, name: str) -> None:
    shown = report_text(workspace(tmp_path, name), ())
    assert printable(shown) == shown
    assert len(shown.splitlines()) == len(report_text(plain, ()).splitlines())
    assert one_line(name) in shown


def test_undecodable_file_name_is_shown(tmp_path: Path) -> None:
    """Bytes that are not UTF-8: the damaged file is named in every format, and JSON can be sent."""
    runs = Runs(tmp_path)
    runs.probe("deit")
    folder = os.fsencode(tmp_path / "results" / "probe-linear")
    try:
        with open(folder + b"/caf\xe9.json", "wb") as file:  # noqa: PTH123 - bytes, not a Path
            file.write(b"{")
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    report = runs.report()
    for path in write_report(report, tmp_path / "reports", (), Silent()):
        assert path.stat().st_size
        if path.suffix in (".html", ".md"):
            assert "xe9.json" in path.read_text(encoding="utf-8")
    assert report.to_json()["damaged"][0]["file"].endswith(r"caf\xe9.json")
    assert json.dumps(report.to_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("first", "two"), [("a b", "a_b"), ("שלום", "北京"), ("A", "a"), ("a|b", "a/b")]
)
def test_identifiers_of_other_names_are_other_ones(first: str, two: str) -> None:
    result = {identifier(first), identifier(two)}
    assert len(result) == 2
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in result)
