"""Searches for uploaded images equal those of `pa search --image`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from pa import config as settings
from pa.config import Config
from pa.data.store.checksums import with_checksum
from pa.data.store.find import StoreSelector
from pa.explore.server import make_app
from pa.extract.image_query import ImageQuery
from pa.workspace import RegionSelector, Workspace
from tests.explore.conftest import drawn
from tests.support.images import noise_image

BOX = (20.0, 30.0, 120.0, 110.0)


@pytest.fixture(scope="module")
def real(
    tmp_path_factory: pytest.TempPathFactory,
    weights: dict[str, Path],
) -> Config:
    """Six photographs encoded by a real network, with an index."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "photos").mkdir()
    for number in range(6):
        noise_image(number, (200, 160)).save(folder / "photos" / f"{number}.png")
    (folder / "pa.toml").write_text(
        f"""
encoder = "timm/test_vit"
view = "image"
device = "cpu"
[datasets.photos]
kind = "folder"
root = "photos"
[encoders."timm/test_vit"]
checkpoint = "{weights["test_vit"]}"
"""
    )
    config = settings.load(folder)
    work = Workspace(folder)
    work.extract(work.encoders(), *work.regions(RegionSelector()))
    for name in ("cls", "pooled"):
        work.index(work.store(), name)
    return config


@pytest.fixture(scope="module")
def served(real: Config) -> Iterator[TestClient]:
    with TestClient(make_app(Workspace(real.workspace)), "http://localhost") as opened:
        yield opened


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image outside all stores, with the name that the command line would use."""
    monkeypatch.chdir(tmp_path)
    noise_image(77, (150, 120)).save("mine.png")
    return Path("mine.png")


def asked(client: TestClient) -> tuple[str, dict[str, Any]]:
    (gallery,) = client.get("/api/workspace").json()["galleries"]
    ids = [info["id"] for info in gallery["columns"]]
    query = {"name": "mine.png", "box": ",".join(map(str, BOX)), "column": ids, "k": 4}
    return f"/api/galleries/{gallery['id']}/own", query


def expected(config: Config, image: Path) -> Any:
    work = Workspace(config.workspace)
    query = ImageQuery.read(image, BOX)
    return work.search(work.stores(StoreSelector()), query, k=4, representations=("cls", "pooled"))


def test_neighbours_of_upload_equal_command_line(
    served: TestClient, real: Config, image: Path
) -> None:
    url, query = asked(served)
    response = served.post(f"{url}/neighbours", params=query, content=image.read_bytes())
    assert response.status_code == 200, response.text
    results = [answer["result"] for answer in response.json()]
    searched = [result.to_json() for _, result in expected(real, image)]
    assert [result["neighbours"] for result in results] == [
        [{**near, "box": list(near["box"])} for near in result["neighbours"]] for result in searched
    ]
    assert results[0]["query"] == {"row": None, "path": "mine.png", "box": list(BOX), "label": None}
    assert [answer["shares"] for answer in response.json()] == [[], []]


def test_figure_of_upload_equals_command_line(
    served: TestClient, real: Config, image: Path
) -> None:
    url, query = asked(served)
    answer = served.post(f"{url}/figure", params=query, content=image.read_bytes())
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == drawn(expected(real, image), Path("figure.png"))


def test_command_of_upload_names_image_and_box(served: TestClient, real: Config) -> None:
    url, query = asked(served)
    command = served.get(f"{url}/command", params=query).json()["command"]
    assert command.startswith("pa search --image mine.png --box 20,30,120,110 -k 4 ")
    assert "--representation cls,pooled" in command


def test_upload_without_network_is_reported(
    real: Config,
    image: Path,
    tmp_path: Path,
    weights: dict[str, Path],
) -> None:
    """A store of other weights is not searched with this network."""
    copy = tmp_path / "copy"
    shutil.copytree(real.workspace, copy)
    other = weights["test_efficientnet"]
    (copy / "pa.toml").write_text(f'[encoders."timm/test_vit"]\ncheckpoint = "{other}"\n')
    (spec,) = copy.rglob("spec.json")
    fields = json.loads(spec.read_text())
    fields["source"]["checkpoint"] = str(other)
    spec.write_text(json.dumps(with_checksum(fields)))
    with TestClient(make_app(Workspace(copy)), "http://localhost") as client:
        url, query = asked(client)
        answer = client.post(f"{url}/neighbours", params=query, content=image.read_bytes())
    assert answer.status_code == 409
    assert answer.json()["error"] == "mismatch"
