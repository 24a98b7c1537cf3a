"""A workspace with two encoders over the windows of twelve small images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from starlette.testclient import TestClient

from pa import config as settings
from pa.config import Config
from pa.data.schema import Images
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.explore.server import make_app
from pa.extract.image_query import ImageQuery
from pa.index.search import SearchResult
from pa.workspace import Workspace
from tests.support.images import noise_image
from tests.support.vectors import write_store

N_IMAGES = 12
PER_IMAGE = 49
N = N_IMAGES * PER_IMAGE

Vectors = npt.NDArray[np.float32]
Serve = Callable[[Path], Any]


def clustered(seed: int, width: int, n: int = N) -> Vectors:
    """Vectors in a few clusters, with exact duplicates, so that some cosines are equal."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(8, width))
    vectors = centres[generator.integers(0, 8, n)] + 0.4 * generator.normal(size=(n, width))
    vectors[100:110] = vectors[7]
    return vectors.astype(np.float32)


def photographs(root: Path, n: int = N_IMAGES, *, write: bool = True) -> Images:
    """Return a dataset of noise images; without `write`, its files do not exist."""
    paths = [f"class{number % 3}/{number:03d}.png" for number in range(n)]
    for number, path in enumerate(paths if write else []):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        noise_image(number, (260, 256)).save(root / path, compress_level=1)
    table = pl.DataFrame(
        {
            "image": range(n),
            "path": paths,
            "label": [f"class{number % 3}" for number in range(n)],
            "label_id": [number % 3 for number in range(n)],
            "file_bytes": [1] * n,
        }
    )
    return Images("photos", "all", root, table)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores `alpha` (three representations) and `beta` (two, of which `pooled` has no index)."""
    folder = tmp_path_factory.mktemp("explore")
    (folder / "pa.toml").write_text('view = "grid"\n[datasets.photos]\nroot = "photos"\n')
    images = photographs(folder / "photos")
    alpha = {
        name: clustered(at, width)
        for at, (name, width) in enumerate([("cls", 16), ("pooled", 16), ("projected", 8)])
    }
    beta = {"cls": clustered(7, 12), "pooled": clustered(8, 12)}
    write_store(folder / "features", images, VIEWS["grid"], alpha, "alpha")
    write_store(folder / "features", images, VIEWS["grid"], beta, "beta")
    work = Workspace(folder)
    for encoder, names in (("alpha", ("cls", "pooled", "projected")), ("beta", ("cls",))):
        for name in names:
            work.index(work.store(StoreSelector(encoder=encoder)), name)
    return folder


@pytest.fixture(scope="module")
def config(workspace: Path) -> Config:
    return settings.load(workspace)


@pytest.fixture(scope="module")
def client(config: Config) -> Iterator[TestClient]:
    with TestClient(
        make_app(Workspace(config.workspace)), "http://127.0.0.1", raise_server_exceptions=False
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def gallery(client: TestClient) -> dict[str, Any]:
    """The only gallery of the workspace, as the server describes it."""
    described: dict[str, Any]
    (described,) = client.get("/api/workspace").json()["galleries"]
    return described


def column(gallery: dict[str, Any], encoder: str, representation: str) -> str:
    """Return the id of a column."""
    (id,) = [
        info["id"]
        for info in gallery["columns"]
        if (info["encoder"], info["representation"]) == (encoder, representation)
    ]
    return str(id)


def searched(config: Config, query: int | ImageQuery, **asked: Any) -> list[dict[str, Any]]:
    """Return the `results` of `pa search --json`."""
    work = Workspace(config.workspace)
    stores = work.stores(StoreSelector(), asked.pop("encoders", ()))
    results = work.search(stores, query, **asked)
    return [result.to_json() for _, result in results]


def drawn(answers: list[tuple[Store, SearchResult]], path: Path) -> bytes:
    """Return the figure of `pa search --figure`."""
    from pa.figures.neighbours import draw, panels_of
    from pa.figures.style import Target

    draw(panels_of(answers, None), Target([path]))
    return path.read_bytes()


def neighbours_of(config: Config, rows: list[int]) -> dict[int, list[dict[str, Any]]]:
    """Return the neighbours of rows in the first column, as JSON."""
    from pa.index.search import search as run
    from pa.index.stored import open_index

    store = next(stores.find(config.features))
    index = open_index(store, "cls", config.indexes)
    results = run(index, rows, 24)
    return {
        row: json.loads(json.dumps(result.to_json()))["neighbours"]
        for row, result in zip(rows, results, strict=True)
    }


@contextmanager
def serving(workspace: Path, *words: str) -> Iterator[str]:
    """Run `pa explore` in a process, and yield the address that it prints, with its token."""
    command = [sys.executable, "-m", "pa", "explore", "--port", "0", "--json", *words]
    process = subprocess.Popen(
        command,
        cwd=workspace,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or lines[-1].rstrip() != "}":
            line = process.stdout.readline()
            assert line, "it ended before it printed its address"
            lines.append(line)
        yield json.loads("".join(lines))["url"]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.stdout.close()


def visitor(url: str) -> httpx.Client:
    """A client of a served workspace that sends the token of the printed address."""
    address = urlsplit(url)
    (token,) = parse_qs(address.query)["token"]
    return httpx.Client(
        base_url=f"http://{address.netloc}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
        limits=httpx.Limits(max_connections=None),
    )
