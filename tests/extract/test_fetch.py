"""Downloads against a real server on this machine: whole, resumed, cut off, wrong, unreachable."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pa.errors import CheckpointError, MissingError, UnknownNameError
from pa.extract.encoders import ENCODERS
from pa.extract.encoders.family import CheckpointSource
from pa.extract.fetch import choose_source, fetch
from pa.progress import Silent

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several blocks


class Server(BaseHTTPRequestHandler):
    """Serve CONTENT with byte ranges; /cut breaks off in the middle, /gone does not exist."""

    asked: list[str | None]

    def do_GET(self) -> None:
        begin = self.headers.get("Range")
        type(self).asked.append(begin)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = int(begin.removeprefix("bytes=").rstrip("-")) if begin else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        body = CONTENT[start:]
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Server.asked = []
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_complete_download_is_not_repeated(address: str, tmp_path: Path) -> None:
    sha = hashlib.sha256(CONTENT).hexdigest()
    source = CheckpointSource("w.pth", f"{address}/w.pth", sha256_prefix=sha[:8])
    path = fetch(source, tmp_path, Silent())
    assert path.read_bytes() == CONTENT
    assert fetch(source, tmp_path, Silent()) == path
    assert Server.asked == [None]
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_interrupted_download_is_resumed(address: str, tmp_path: Path) -> None:
    cut = CheckpointSource("w.pth", f"{address}/cut")
    with pytest.raises(MissingError, match="the connection ended early"):
        fetch(cut, tmp_path, Silent())
    assert not (tmp_path / "w.pth").exists()
    path = fetch(CheckpointSource("w.pth", f"{address}/w.pth"), tmp_path, Silent())
    assert path.read_bytes() == CONTENT
    assert Server.asked == [None, f"bytes={len(CONTENT) // 2}-"]


def test_download_killed_at_its_end_is_accepted(address: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth.download").write_bytes(CONTENT)
    path = fetch(CheckpointSource("w.pth", f"{address}/w.pth"), tmp_path, Silent())
    assert path.read_bytes() == CONTENT


def test_wrong_hash_is_refused(address: str, tmp_path: Path) -> None:
    source = CheckpointSource("w.pth", f"{address}/w.pth", sha256_prefix="00000000")
    with pytest.raises(CheckpointError, match="expected one that begins with 00000000"):
        fetch(source, tmp_path, Silent())
    assert list(tmp_path.iterdir()) == []


def test_missing_remote_file_is_reported(address: str, tmp_path: Path) -> None:
    source = CheckpointSource("w.pth", f"{address}/gone")
    with pytest.raises(MissingError, match=r"answers 404 Not Found") as caught:
        fetch(source, tmp_path, Silent())
    assert str(tmp_path / "w.pth") in str(caught.value)


def test_fetch_without_network_names_file_and_folder(tmp_path: Path) -> None:
    source = CheckpointSource("w.pth", "http://127.0.0.1:9/w.pth")
    with pytest.raises(MissingError, match=r"cannot reach http://127\.0\.0\.1:9/w\.pth") as caught:
        fetch(source, tmp_path, Silent())
    assert str(tmp_path / "w.pth") in str(caught.value)


def test_file_without_address_is_reported(tmp_path: Path) -> None:
    source = choose_source(ENCODERS["cae"].card, None)
    with pytest.raises(MissingError, match="Google Drive"):
        fetch(source, tmp_path, Silent())


def test_choosing_a_file() -> None:
    card = ENCODERS["dino"].card
    assert choose_source(card, None).projector
    assert choose_source(card, "dino_vitbase16_pretrain.pth").url.endswith("_pretrain.pth")
    with pytest.raises(UnknownNameError, match="unknown file of encoder dino"):
        choose_source(card, "x.pth")
