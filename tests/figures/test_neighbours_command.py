"""`pa figure neighbours` and `projected`: positions of patches, and metadata of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pa.data.crops import Crops
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.figures.neighbours import Layout
from pa.figures.paper import MARGIN
from pa.figures.style import PRINT_DPI
from tests.figures.conftest import cloud, metadata_of, photographs, pixels_of
from tests.support.commands import Run
from tests.support.vectors import is_red, write_store

QUERY = 60  # window 11 of image 1: row 1, column 4


def neighbours_of(store: Store, name: str, query: int, k: int) -> list[int]:
    """The k rows of the largest cosine, by numpy."""
    vectors = store.read(name, np.arange(store.n_rows)).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = np.argsort(-(unit @ unit[query]), kind="stable")
    return [int(row) for row in ranked if row != query][:k]


@pytest.mark.parametrize("across", [1, 2, 3, 6])
@pytest.mark.parametrize("width", [3.25, 6.5])
def test_squares_fill_the_width_and_do_not_overlap(across: int, width: float) -> None:
    layout = Layout(width, n_panels=7, across=across, k=24)
    assert layout.columns * layout.rows >= 24
    boxes = [layout.corner(panel, index) for panel in range(7) for index in range(24)]
    rights = [left + layout.cell for left, _ in boxes]
    assert max(rights) == pytest.approx(width)
    assert min(left for left, _ in boxes) > layout.query
    assert max(top + layout.cell for _, top in boxes) <= layout.height + 1e-9
    apart = np.abs(np.array(boxes)[:, None] - np.array(boxes)[None]).max(-1)
    assert apart[~np.eye(len(boxes), dtype=bool)].min() >= layout.cell


def test_neighbours_of_each_encoder_in_the_order_of_rank(
    pa: Run, two_encoders: dict[str, Store]
) -> None:
    done = pa("figure", "neighbours", "--query", QUERY, "-k", 12, "--out", "f")
    assert done.code == 0, done.err
    fields = json.loads(Path("f.json").read_text())
    answers = {item["encoder"]: item["neighbours"] for item in fields["details"]["answers"][0]}
    assert list(answers) == ["deit", "dino"]  # the paper's order
    picture = pixels_of("f.png")
    layout = Layout(6.5 - 2 * MARGIN, n_panels=2, across=1, k=12)
    side = round(layout.cell * PRINT_DPI)
    for panel, name in enumerate(answers):
        store = two_encoders[name]
        rows = neighbours_of(store, "pooled", QUERY, 12)
        assert [item["row"] for item in answers[name]] == rows
        crops = Crops(store)
        for index, row in enumerate(rows):
            x, y = layout.corner(panel, index)
            left, top = (round((MARGIN + length) * PRINT_DPI) for length in (x, y))
            # Its upper half: the cosine is in the lower right corner.
            half = slice(2, side // 2)
            expected = np.asarray(crops.region(row, side), int)[half, 2:-2]
            actual = picture[top : top + side, left : left + side][half, 2:-2]
            assert np.abs(actual - expected).mean() < 2


def test_red_box_surrounds_window(pa: Run, two_encoders: dict[str, Store]) -> None:
    assert pa("figure", "neighbours", "--query", QUERY, "--out", "f.png").code == 0
    red = is_red(Path("f.png"))
    box = Crops(two_encoders["dino"]).box(QUERY)
    layout = Layout(6.5 - 2 * MARGIN, n_panels=2, across=1, k=24)
    scale = layout.query * PRINT_DPI / 224
    line = 8  # pixels of the frame, which is around the window
    above = red[: round((MARGIN + 0.18 + layout.query) * PRINT_DPI)]  # not the enlarged window
    rows, columns = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    assert columns[0] == pytest.approx(MARGIN * PRINT_DPI + box[0] * scale, abs=line)
    assert columns[-1] == pytest.approx(MARGIN * PRINT_DPI + box[2] * scale, abs=line)
    assert rows[-1] - rows[0] == pytest.approx((box[3] - box[1]) * scale, abs=2 * line)
    middle = round(MARGIN * PRINT_DPI + (box[0] + box[2]) / 2 * scale)
    assert above[:, middle].sum() < 3 * line  # nothing inside the frame is covered
    assert not Path("f.pdf").exists()


@pytest.mark.usefixtures("two_encoders")
def test_metadata_name_sources_and_picture_does_not(pa: Run) -> None:
    done = pa("figure", "neighbours", "--query", "val_0001:11", "--json").json
    paths = {Path(path).suffix: Path(path) for path in done["files"]}
    assert set(paths) == {".pdf", ".png", ".txt", ".json"}
    assert all(path.parent == Path.cwd() / "figures" / "neighbours" for path in paths.values())
    output = metadata_of(paths[".png"])
    origin = json.loads(output["Source"])
    command = "pa figure neighbours --query val_0001:11 --encoder deit,dino --representation pooled"
    assert origin["command"].startswith(command)
    assert list(origin["stores"].values()) == [item["fingerprint"] for item in done["stores"]]
    assert output["Description"] == done["caption"]
    assert command.encode() in paths[".pdf"].read_bytes()
    text = paths[".txt"].read_text()
    assert text.startswith(done["caption"])
    assert done["stores"][0]["title"] in text
    assert "Top-24 patch retrieval with DeiT and DINO (mean patch token)." in text
    assert "196 regions of 4 images of toy/val" in text
    assert "row 60" in text


@pytest.mark.usefixtures("two_encoders")
def test_recorded_command_recreates_file(pa: Run) -> None:
    first = pa("figure", "neighbours", "--query", "5,60", "--across", 2, "-k", 6, "--json").json
    words = first["command"].split()[1:]
    for path in first["files"]:
        Path(path).rename(f"{path}.first")
    again = pa(*words, "--json").json
    assert again == first
    for path in first["files"]:
        assert Path(path).read_bytes() == Path(f"{path}.first").read_bytes()


def test_encoded_and_projected_are_drawn_side_by_side(
    pa: Run, two_encoders: dict[str, Store]
) -> None:
    done = pa("figure", "projected", "--query", QUERY, "-k", 6, "--json").json
    (answers,) = done["details"]["answers"]
    assert [item["representation"] for item in answers] == ["pooled", "projected"]
    assert [item["encoder"] for item in answers] == ["dino", "dino"]
    for item in answers:
        expected = neighbours_of(two_encoders["dino"], item["representation"], QUERY, 6)
        assert [neighbour["row"] for neighbour in item["neighbours"]] == expected


@pytest.mark.usefixtures("two_encoders")
@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("neighbours",), 2, "Give --query ID, a row id, or --query NAME:REGION"),
        (("neighbours", "--query", "val:3"), 2, "4 images have 'val' in their path"),
        (("neighbours", "--query", "dog:3"), 3, "no image of toy/val/grid/deit"),
        (("neighbours", "--query", "val_0001:49"), 2, "has 49 regions, 0 to 48"),
        (("neighbours", "--query", "beak"), 2, "expected a row id, or NAME:REGION"),
        (("neighbours", "--query", "1", "--encoder", "mae"), 3, "pa extract --encoder mae"),
        (("neighbours", "--query", "1", "--view", "parts"), 3, "there is no complete store"),
        (("neighbours", "--query", "1", "--width", "40"), 2, "2 to 20 inches wide, not 40"),
        (("neighbours", "--query", "1", "--out", "f.jpg"), 2, "found .jpg"),
        (("neighbours", "--query", "1", "--root", "moved"), 3, "if they were moved"),
        (("projected", "--query", "1", "--encoder", "deit"), 2, "keeps no projected vectors"),
        (("projected", "--query", "1", "--representation", "projected"), 2, "the encoded vector"),
    ],
)
def test_errors(pa: Run, words: tuple[str, ...], code: int, text: str) -> None:
    refused = pa("figure", *words)
    assert (refused.code, text in refused.err) == (code, True), refused.err
    assert not list(Path().glob("f.*"))


def test_stores_of_other_regions_do_not_share_a_query(
    pa: Run, two_encoders: dict[str, Store], tmp_path: Path
) -> None:
    fewer = photographs(tmp_path / "fewer", 3)
    write_store(tmp_path / "features", fewer, VIEWS["grid"], {"pooled": cloud(4, 3)}, "mae")
    refused = pa("figure", "neighbours", "--query", QUERY)
    assert refused.code == 2
    assert "hold different regions" in refused.err
    assert pa("figure", "neighbours", "--query", QUERY, "--encoder", "deit,dino").code == 0


@pytest.mark.usefixtures("two_encoders")
def test_figure_taller_than_page_is_noted(pa: Run) -> None:
    queries = ",".join(str(49 * image + n) for image in range(3) for n in range(2))
    done = pa("figure", "neighbours", "--query", queries, "--out", "f.png")
    assert done.code == 0
    assert "inches tall, more than a page" in done.err


@pytest.mark.usefixtures("two_encoders")
def test_default_queries_replace_missing_images(pa: Run) -> None:
    """Of 4 images those at 1/6, 3/6 and 5/6, each by its middle window of 49."""
    Path("pa.toml").write_text('[datasets.toy]\nkind = "imagenet"\nroot = "photos"\n')
    done = pa("figure", "neighbours", "--json")
    rows = [of_query[0]["query"]["row"] for of_query in done.json["details"]["answers"]]
    assert rows == [image * 49 + 24 for image in (0, 2, 3)]
    assert "val_00013660:19, a query of the released code, is not in toy/val/grid" in done.err
    assert "3 of these queries are not of the released code." in done.json["caption"]
    chosen = pa("figure", "neighbours", "--example", "3,1", "--json").json
    assert [of[0]["query"]["row"] for of in chosen["details"]["answers"]] == [rows[2], rows[0]]
    assert "--query 171,24" in chosen["command"]
    assert pa("figure", "neighbours", "--example", "4").code != 0
    assert pa("figure", "neighbours", "--example", "1", "--query", "3").code == 2


@pytest.mark.usefixtures("two_encoders")
def test_named_figure_replaces_previous_one(pa: Run) -> None:
    for query in ("3", "4"):
        output = pa("figure", "neighbours", "--query", query, "--name", "figure-2", "--json").json
    folder = Path("figures") / "neighbours"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"figure-2.{suffix}" for suffix in ("json", "pdf", "png", "txt")
    ]
    assert output["details"]["answers"][0][0]["query"]["row"] == 4
    assert pa("figure", "neighbours", "--query", "3", "--name", "../x").code == 2
    assert pa("figure", "neighbours", "--query", "3", "--name", "x", "--out", "y").code == 2
