"""Responses of the server: equal to those of the command line."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from starlette.testclient import TestClient

from pa.cli import cli
from pa.config import Config
from pa.data.crops import Crops
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.explore.stores import OpenStores, vector_names
from pa.workspace import Workspace
from tests.explore.conftest import N_IMAGES, PER_IMAGE, N, column, drawn, searched

Json = dict[str, Any]


def test_encoders_of_same_regions_share_gallery(gallery: Json) -> None:
    names = [
        (info["encoder"], info["representation"], info["width"]) for info in gallery["columns"]
    ]
    assert names == [
        ("alpha", "cls", 16),
        ("alpha", "pooled", 16),
        ("alpha", "projected", 8),
        ("beta", "cls", 12),
        ("beta", "pooled", 12),
    ]
    assert [info["indexed"] for info in gallery["columns"]] == [True, True, True, True, False]
    assert (gallery["n_rows"], gallery["n_images"]) == (N, N_IMAGES)
    assert gallery["unfinished"] == []


@pytest.mark.parametrize("row", [0, 7, 105, N - 1])
@pytest.mark.parametrize(
    ("k", "flags"),
    [(24, {}), (1, {}), (40, {"include_self": True}), (24, {"exclude_same_image": True})],
)
@pytest.mark.parametrize(
    ("encoder", "representation"), [("alpha", "cls"), ("alpha", "projected"), ("beta", "cls")]
)
def test_neighbours_are_those_of_the_command_line(
    client: TestClient,
    config: Config,
    gallery: Json,
    encoder: str,
    representation: str,
    k: int,
    flags: dict[str, bool],
    row: int,
) -> None:
    asked = {"column": column(gallery, encoder, representation), "k": k, **flags}
    answer = client.get(f"/api/galleries/{gallery['id']}/rows/{row}/neighbours", params=asked)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    (expected,) = searched(
        config,
        row,
        k=k,
        encoders=(encoder,),
        representations=(representation,),
        **flags,
    )
    assert body["result"] == _as_json(expected)
    rows = [neighbour["row"] for neighbour in expected["neighbours"]]
    assert body["images"] == [[r // PER_IMAGE, f"class{r // PER_IMAGE % 3}"] for r in rows]


def _as_json(value: Json) -> Json:
    """Boxes are tuples in Python and lists in JSON."""
    query = {**value["query"], "box": list(value["query"]["box"])}
    near = [{**region, "box": list(region["box"])} for region in value["neighbours"]]
    return {**value, "query": query, "neighbours": near}


def test_shares_of_windows_are_counts(client: TestClient, gallery: Json) -> None:
    asked = {"column": column(gallery, "alpha", "cls"), "k": 60}
    body = client.get(f"/api/galleries/{gallery['id']}/rows/30/neighbours", params=asked).json()
    rows = np.array([region["row"] for region in body["result"]["neighbours"]])
    image, label = rows // PER_IMAGE, rows // PER_IMAGE % 3
    expected = {
        "same image": (image == 0).mean(),
        "same label, another image": ((label == 0) & (image != 0)).mean(),
        "another label": (label != 0).mean(),
    }
    shares = {share["name"]: share["value"] for share in body["shares"]}
    assert shares == {name: value for name, value in expected.items() if value}
    assert sum(shares.values()) == pytest.approx(1)


# -- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("", list(range(N_IMAGES))),
        ("class1", [1, 4, 7, 10]),
        ("CLASS1 007", [7]),
        ("003.png", [3]),
        ("49", [1]),  # the image of row 49; no path has this number
        ("#588", []),
        ("11", [0, 11]),  # row 11 is of image 0, and image 11 has the number in its path
        ("nothing", []),
        (".*", []),
    ],
)
def test_images_are_found_by_label_path_and_row(
    client: TestClient, gallery: Json, text: str, images: list[int]
) -> None:
    path = f"/api/galleries/{gallery['id']}/images"
    body = client.get(path, params={"text": text}).json()
    assert [image["image"] for image in body["images"]] == images
    assert body["total"] == len(images)
    pages = [
        client.get(path, params={"text": text, "offset": offset, "limit": 5}).json()
        for offset in range(0, N_IMAGES, 5)
    ]
    assert [image["image"] for page in pages for image in page["images"]] == images


def test_row_lists_regions_of_its_image(client: TestClient, gallery: Json) -> None:
    info = client.get(f"/api/galleries/{gallery['id']}/rows/100").json()
    assert (info["image"], info["path"], info["image_label"]) == (2, "class2/002.png", "class2")
    assert (info["size"], info["bad"]) == ([224, 224], None)
    assert [region["row"] for region in info["regions"]] == list(range(98, 147))
    assert info["regions"][2]["box"] == [56, 0, 112, 56]


def test_pictures_are_those_of_the_rows(client: TestClient, config: Config, gallery: Json) -> None:
    base = f"/api/galleries/{gallery['id']}"
    crops = Crops(next(stores.find(config.features)))
    for path, expected in (
        (f"{base}/rows/60/region", crops.region(60)),
        (f"{base}/images/1/canvas", crops.canvas(60)),
        (f"{base}/images/1/thumbnail", crops.canvas(60).resize((128, 128))),
    ):
        answer = client.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        picture = Image.open(io.BytesIO(answer.content))
        assert picture.size == expected.size
        difference = np.asarray(picture, dtype=float) - np.asarray(expected, dtype=float)
        assert np.abs(difference).mean() < 3, path  # of 255: what JPEG loses


def test_random_rows_are_rows(client: TestClient, gallery: Json) -> None:
    path = f"/api/galleries/{gallery['id']}/random"
    rows = {client.get(path).json()["row"] for _ in range(20)}
    assert len(rows) > 5
    assert rows <= set(range(N))


# -- figure and command ------------------------------------------------------------------------


def test_figure_equals_command_line(
    client: TestClient, config: Config, gallery: Json, tmp_path: Path
) -> None:
    columns = [column(gallery, "alpha", "cls"), column(gallery, "alpha", "pooled")]
    path = f"/api/galleries/{gallery['id']}/rows/7/figure"
    for suffix, kind in (("png", "image/png"), ("pdf", "application/pdf")):
        answer = client.get(path, params={"column": columns, "k": 8, "suffix": suffix})
        assert answer.headers["content-type"] == kind
        work = Workspace(config.workspace)
        stores = work.stores(StoreSelector(), ("alpha",))
        answers = work.search(stores, 7, k=8, representations=("cls", "pooled"))
        assert answer.content == drawn(answers, tmp_path / f"figure.{suffix}")


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        ([("alpha", "cls"), ("alpha", "projected")], 1),
        ([("alpha", "cls"), ("beta", "cls")], 1),
        ([("alpha", "cls"), ("alpha", "pooled"), ("beta", "cls")], 2),
    ],
)
def test_command_repeats_query(
    client: TestClient, config: Config, gallery: Json, columns: list[tuple[str, str]], lines: int
) -> None:
    ids = [column(gallery, *names) for names in columns]
    path = f"/api/galleries/{gallery['id']}/rows/7"
    flags = {"k": 9, "exclude_same_image": True}
    commands = client.get(f"{path}/command", params={"column": ids, **flags}).json()["command"]
    assert len(commands.splitlines()) == lines
    results = [result for line in commands.splitlines() for result in _results_of(config, line)]
    for id in ids:
        answer = client.get(f"{path}/neighbours", params={"column": id, **flags}).json()
        assert answer["result"] in results
    assert len(results) == len(ids)


def _results_of(config: Config, line: str) -> list[Json]:
    """The results of a `pa search` command."""
    done = CliRunner().invoke(cli, [*shlex.split(line)[1:], "--json"])
    assert done.exit_code == 0, done.output
    results: list[Json] = json.loads(done.stdout)["results"]
    return results


# -- what cannot be answered -------------------------------------------------------------------


def test_missing_index_returns_command_and_builds_nothing(
    client: TestClient, config: Config, gallery: Json
) -> None:
    before = sorted(config.workspace.rglob("*"))
    asked = {"column": column(gallery, "beta", "pooled")}
    answer = client.get(f"/api/galleries/{gallery['id']}/rows/7/neighbours", params=asked)
    assert answer.status_code == 409
    (command,) = answer.json()["commands"]
    (info,) = [info for info in gallery["columns"] if not info["indexed"]]
    assert command == info["command"]
    assert sorted(config.workspace.rglob("*")) == before
    assert "--representation pooled" in command
    assert f"--workspace {config.workspace}" in command


def test_command_builds_all_missing_indexes(config: Config, tmp_path: Path) -> None:
    bare = replace(config, workspace=tmp_path)
    (tmp_path / "features").symlink_to(config.features)
    opened, _ = OpenStores(bare).all()
    for unindexed in opened[0].columns.values():
        names = ",".join(vector_names(unindexed.store))
        assert f"--representation {names} --workspace" in OpenStores(bare).index_command(unindexed)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/rows/588", 404, "has rows 0 to 587"),
        ("/rows/588/region", 404, "has rows 0 to 587"),
        ("/rows/588/neighbours?column={cls}", 404, "has rows 0 to 587"),
        ("/rows/7/neighbours?column={cls}&k=588", 404, "Ask for k ≤ 587"),
        ("/rows/7/neighbours?column={cls}&k=0", 422, "greater than or equal to 1"),
        ("/rows/7/neighbours?column={cls}&include_self=1&exclude_same_image=1", 422, "contradict"),
        ("/rows/7/neighbours?column=0123456789abcdef.cls", 404, "unknown column"),
        ("/rows/7/neighbours", 422, "column"),
        ("/rows/-1", 422, "row"),
        ("/rows/99999999999999999999", 422, "row"),
        ("/images/12/thumbnail", 404, "no image 12"),
        ("/rows/7/figure?column={cls}&suffix=exe", 422, "suffix"),
    ],
)
def test_wrong_request_is_explained(
    client: TestClient, gallery: Json, path: str, status: int, words: str
) -> None:
    path = path.replace("{cls}", column(gallery, "alpha", "cls"))
    answer = client.get(f"/api/galleries/{gallery['id']}{path}")
    assert answer.status_code == status
    assert words in answer.json()["message"]


def test_unknown_gallery_is_not_found(client: TestClient) -> None:
    answer = client.get("/api/galleries/photos-all-grid-00000000/rows/1")
    assert answer.status_code == 404
    assert "photos-all-grid" in answer.json()["message"]


def test_server_error_reveals_no_details(
    client: TestClient, gallery: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("pa.explore.browsing.Browser.find", broken)
    answer = client.get(f"/api/galleries/{gallery['id']}/images")
    assert answer.status_code == 500
    assert "secret" not in answer.text
