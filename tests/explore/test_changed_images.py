"""An image whose file changed after the extraction is refused; other images are shown."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from pa.data.views import VIEWS
from pa.explore.server import make_app
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from pa.workspace import Workspace
from tests.explore.conftest import photographs
from tests.support.images import noise_image
from tests.support.mean_colour import MeanColour


def test_changed_image_is_refused(tmp_path: Path) -> None:
    images = photographs(tmp_path / "photos", 4)
    extract([MeanColour()], images, VIEWS["grid"], tmp_path / "features", ExtractOptions())
    noise_image(99, (260, 256)).save(tmp_path / "photos" / images.table["path"][1])
    app = make_app(Workspace(tmp_path))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        (gallery,) = client.get("/api/workspace").json()["galleries"]
        base = f"/api/galleries/{gallery['id']}"
        for path in ("images/1/thumbnail", "images/1/canvas", "rows/60/region"):
            answer = client.get(f"{base}/{path}")
            assert (answer.status_code, answer.json()["error"]) == (409, "mismatch"), path
            assert images.table["path"][1] in answer.json()["message"]
            (command,) = answer.json()["commands"]
            assert command.endswith("--replace")
        assert client.get(f"{base}/rows/60").json()["size"] is None
        assert client.get(f"{base}/rows/10/region").status_code == 200
