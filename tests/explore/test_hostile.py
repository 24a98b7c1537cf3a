"""A server process under clients that hold connections, leave early, or do not know the token."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from click.testing import CliRunner

from pa.cli import cli
from pa.config import Config
from pa.explore.server import Address, make_app
from pa.workspace import Workspace
from tests.explore.conftest import column, visitor

DESCRIPTORS = 128
HALF_A_HEADER = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
RUN = "import pa.explore.server as server, sys\nserver.IDLE_SECONDS = {idle}\n" + (
    "from pa.cli import main\nsys.argv[1:] = {words}\nmain()"
)


@dataclass(frozen=True)
class Server:
    url: str
    printed: dict[str, Any]
    process: subprocess.Popen[str]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", urlsplit(self.url).port), timeout=20)

    def stop(self) -> str:
        """Stop the server and return what it wrote to stderr."""
        self.process.send_signal(signal.SIGINT)
        _, complained = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return complained


@contextmanager
def limited(
    workspace: Path, *words: str, idle: float = 600, **environment: str
) -> Iterator[Server]:
    """`pa explore` with few file descriptors, closing idle connections after `idle` seconds."""
    command = ["explore", "--port", "0", "--json", "-w", str(workspace), *words]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(idle=idle, words=command)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS,) * 2),
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or lines[-1].rstrip() != "}":
            line = process.stdout.readline()
            assert line, "it ended before it printed its address"
            lines.append(line)
        printed = json.loads("".join(lines))
        yield Server(printed["url"], printed, process)
    finally:
        process.kill()
        process.communicate()


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("sent", [b"", HALF_A_HEADER], ids=["nothing", "half a header"])
def test_visitors_are_served_beyond_descriptor_limit(workspace: Path, sent: bytes) -> None:
    with limited(workspace) as server:
        held = []
        for _ in range(2 * DESCRIPTORS):
            held.append(server.connect())
            held[-1].sendall(sent)
        with visitor(server.url) as client:
            assert client.get("/api/workspace").status_code == 200
        assert 0 < sum(map(is_open, held)) <= DESCRIPTORS // 4
        assert server.stop() == ""
        for connection in held:
            connection.close()


@pytest.mark.parametrize("first", [b"", HALF_A_HEADER + b"\r\n"], ids=["new", "used before"])
def test_endless_header_is_cut_off(workspace: Path, first: bytes) -> None:
    with limited(workspace, idle=0.5) as server, server.connect() as client:
        client.sendall(first)
        client.settimeout(0.05)
        for _ in range(400):
            try:
                client.sendall(b"G")
                if client.recv(1 << 16) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection was still open")
        assert server.stop() == ""


def test_clients_that_leave_or_send_nonsense_leave_no_trace(
    workspace: Path, gallery: dict[str, Any]
) -> None:
    with limited(workspace) as server:
        query = f"name=a&box=0,0,9,9&column={column(gallery, 'alpha', 'cls')}"
        upload = (
            f"POST /api/galleries/{gallery['id']}/own/neighbours?{query} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: Bearer {server.printed['token']}\r\n"
            f"Content-Length: 9999\r\n\r\nhalf an image"
        ).encode()
        for request in (upload, b"\x16\x03\x01\r\n\r\n", HALF_A_HEADER):
            for _ in range(5):
                with server.connect() as client:
                    client.sendall(request)
        with visitor(server.url) as client:
            assert client.get("/api/workspace").status_code == 200
        assert server.stop() == ""


def test_images_are_received_only_when_it_is_their_turn(
    config: Config, gallery: dict[str, Any]
) -> None:
    """Of many uploads at once few are in memory; the rest stay with their senders."""
    in_memory, most = 0, 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal in_memory, most
        in_memory += 1
        most = max(most, in_memory)
        for _ in range(50):
            yield b"x"
            await asyncio.sleep(0)

    async def send(client: httpx.AsyncClient) -> int:
        nonlocal in_memory
        query = {"name": "a", "box": "0,0,9,9", "column": column(gallery, "alpha", "cls")}
        url = f"/api/galleries/{gallery['id']}/own/neighbours"
        answer = await client.post(url, params=query, content=parts())
        in_memory -= answer.status_code != 503
        return answer.status_code

    async def send_many() -> list[int]:
        transport = httpx.ASGITransport(make_app(Workspace(config.workspace)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await asyncio.gather(*(send(client) for _ in range(60)))

    statuses = asyncio.run(send_many())
    assert set(statuses) == {422, 503}, "no image, or too many at once"
    assert statuses.count(422) >= 8
    assert 1 < most <= 8


# -- the token ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_token_is_in_printed_address_only(workspace: Path, host: str) -> None:
    with limited(workspace, "--host", host) as server:
        token = server.printed["token"]
        assert len(token) >= 22
        assert server.url.endswith(f"/?token={token}")
        port = urlsplit(server.url).port
        bare = f"http://127.0.0.1:{port}/"
        assert httpx.get(bare).status_code == 401
        with httpx.Client(follow_redirects=True) as browser:
            entered = browser.get(f"{bare}?token={token}")
            assert (entered.status_code, str(entered.url)) == (200, bare)
            assert browser.get(f"{bare}api/workspace").status_code == 200
        assert token not in server.stop()


def test_token_can_be_set_or_disabled(workspace: Path) -> None:
    with limited(workspace, PA_EXPLORE_TOKEN="one-of-sixteen-or-more") as server:
        assert server.printed["token"] == "one-of-sixteen-or-more"
        assert server.url.endswith("/?token=one-of-sixteen-or-more")
    with limited(workspace, "--no-token") as server:
        assert server.printed["token"] is None
        assert httpx.get(f"{server.url}api/workspace").status_code == 200
        assert "token" in server.stop()


@pytest.mark.parametrize(
    "words",
    [
        ["--token", ""],
        ["--token", "short"],
        ["--token", "with a space in it"],
        ["--token", "long-enough-to-be-one", "--no-token"],
    ],
)
def test_short_or_unquotable_token_is_refused(workspace: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "pa", "explore", "--port", "0", "-w", str(workspace), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--token" in done.stderr


def test_browser_command_has_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users can read the command line of a browser, but not the file that it opens."""
    address = Address("http://127.0.0.1:8642/?token=a&b", "a&b", public=False)
    opened: list[tuple[str, str, int]] = []

    def launch(target: str) -> None:
        file = Path(target)
        opened.append((target, file.read_text(), file.parent.stat().st_mode & 0o777))

    monkeypatch.setattr("click.launch", launch)
    monkeypatch.setattr("pa.explore.server.explore", lambda _, ready, **__: ready(address))
    done = CliRunner().invoke(cli, ["explore", "--open", "--workspace", str(tmp_path)])
    assert done.exit_code == 0, done.output
    ((target, page, mode),) = opened
    assert "token" not in target
    assert "url=http://127.0.0.1:8642/?token=a&amp;b" in page
    assert mode == 0o700
    assert not Path(target).exists()
