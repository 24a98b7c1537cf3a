"""Attack a running `pa explore`: connections, memory, stderr, access.

    python benchmarks/explore_limits.py [--connections 1100] [--uploads 40] [--megabytes 31]

Each attack runs against a new server process on 127.0.0.1 with 1,024 file descriptors and prints
one line: peak use of the server, bytes on stderr, and the responses to a well-behaved visitor.
Runs on Linux (reads /proc) and takes two to three minutes.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from search import make_store

from pa.index.build import open_or_build

DESCRIPTORS = 1024
HOLD_SECONDS = 10  # attacks that hold something hold it for this long


@dataclass
class Server:
    """A running `pa explore`, its port and token, and its use of the machine."""

    process: subprocess.Popen[str]
    port: int
    token: str | None
    errors: Path

    @property
    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int | str, bytes]:
        """Return status and body, or the name of the error that came instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.credentials, **headers})
            response = connection.getresponse()
            return response.status, response.read()
        except OSError as error:
            return type(error).__name__, b""
        finally:
            connection.close()

    def sockets(self) -> int:
        """Return the number of sockets that the server has open."""
        links = map(_link, Path(f"/proc/{self.process.pid}/fd").iterdir())
        return sum(link.startswith("socket:") for link in links)

    def peak_memory(self) -> int:
        """Return the peak of the resident memory since the start, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match
        return int(match[1]) >> 10

    def error_bytes(self) -> int:
        return self.errors.stat().st_size

    def upload_path(self) -> str:
        """Return the path and query that an image is sent to."""
        (gallery,) = json.loads(self.request("GET", "/api/workspace")[1])["galleries"]
        column = gallery["columns"][0]["id"]
        query = f"name=image&box=0,0,9,9&column={column}"
        return f"/api/galleries/{gallery['id']}/own/neighbours?{query}"


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""


@contextmanager
def serving(workspace: Path) -> Iterator[Server]:
    """Run `pa explore` with few file descriptors, its stderr in a file."""
    words = [sys.executable, "-m", "pa", "explore", "--port", "0", "--json", "-w", str(workspace)]
    errors = workspace / "stderr"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS,) * 2),
        )
    assert process.stdout is not None
    try:
        printed = ""
        while not printed.endswith("}\n"):
            printed += process.stdout.readline()
        address = json.loads(printed)
        port = urlsplit(address["url"]).port
        assert port is not None
        yield Server(process, port, address.get("token"), errors)
    finally:
        process.terminate()
        process.wait()


def half_open(server: Server, connections: int, header: bytes) -> str:
    """Open connections that begin a request and never finish its header."""
    opened = []
    for _ in range(connections):
        client = socket.socket()
        client.settimeout(2)
        try:
            client.connect(("127.0.0.1", server.port))
            client.sendall(header)
            opened.append(client)
        except OSError:
            client.close()
    visits, peak, until = [], 0, time.monotonic() + HOLD_SECONDS
    while time.monotonic() < until:
        began = time.monotonic()
        status, _ = _within(5, lambda: server.request("GET", "/api/workspace"))
        visits.append((status, time.monotonic() - began))
        peak = max(peak, server.sockets())
        time.sleep(0.2)
    time.sleep(35)
    held = server.sockets()
    for client in opened:
        client.close()
    answered = sum(status == 200 for status, _ in visits)
    slowest = max(seconds for _, seconds in visits)
    return (
        f"{connections} opened: peak {peak} sockets, {held} after 45 s; "
        f"visitor: {answered} of {len(visits)} answered, slowest {slowest:.2f} s"
    )


def _within(seconds: float, call: Callable[[], tuple[int | str, bytes]]) -> tuple[int | str, bytes]:
    """Return what a call returns, or "timeout"; the call continues in its thread."""
    results: list[tuple[int | str, bytes]] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else ("timeout", b"")


def uploads(server: Server, number: int, size: int) -> str:
    """Send large bodies at once; the last bytes of each are held back for a while."""
    path, before = server.upload_path(), server.peak_memory()
    statuses: collections.Counter[int | str] = collections.Counter()
    body = bytes(1 << 20)

    def send(_: int) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in server.credentials.items())
        request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: {size << 20}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            try:
                client.sendall(request.encode())
                for _ in range(size - 1):
                    client.sendall(body)
                time.sleep(HOLD_SECONDS)
                client.sendall(body)
            except OSError:  # refused, or not read: the answer says which
                pass
            try:
                statuses[int(client.recv(64).split()[1])] += 1
            except (OSError, IndexError):
                statuses["closed"] += 1

    with ThreadPoolExecutor(number) as pool:
        list(pool.map(send, range(number)))
    grown = server.peak_memory() - before
    return f"{number} × {size} MB: memory grew by {grown} MB; answers {dict(statuses)}"


def origins(server: Server) -> str:
    """Send Origin headers that are not URLs."""
    values = [
        "http://[",
        "http://[::1",
        "http://]",
        "\x7f",
        "null",
        "http://a b",
        "//",
        "http://[x]:y",
    ]
    statuses = collections.Counter(
        server.request("GET", "/api/workspace", Origin=value)[0] for value in values
    )
    return f"{len(values)} malformed Origin headers: {dict(statuses)}"


def disconnects(server: Server, number: int) -> str:
    """Send half an image and leave."""
    path = server.upload_path()
    head = "".join(f"{name}: {value}\r\n" for name, value in server.credentials.items())
    request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}Content-Length: 100000\r\n\r\n"
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request.encode() + bytes(50_000))
            time.sleep(0.02)
    time.sleep(1)
    alive, _ = server.request("GET", "/api/workspace")
    return f"{number} left in the middle of an upload; then a visitor gets {alive}"


def malformed(server: Server, number: int) -> str:
    """Send what is not HTTP."""
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
    alive, _ = server.request("GET", "/api/workspace")
    return f"{number} requests that are not HTTP; then a visitor gets {alive}"


def strangers(server: Server) -> str:
    """Send requests as another user of the machine, who does not know the token."""
    server.token = None
    paths = ["/", "/api/workspace", "/api/openapi.json", "/page/main.js"]
    statuses = collections.Counter(server.request("GET", path)[0] for path in paths)
    return f"{len(paths)} requests of another user: {dict(statuses)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=1100)
    parser.add_argument("--uploads", type=int, default=40)
    parser.add_argument("--megabytes", type=int, default=31)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacks: dict[str, Callable[[Server], str]] = {
        "half a header": lambda server: half_open(
            server, options.connections, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        ),
        "no byte": lambda server: half_open(server, options.connections, b""),
        "uploads": lambda server: uploads(server, options.uploads, options.megabytes),
        "origins": origins,
        "disconnects": lambda server: disconnects(server, 50),
        "not HTTP": lambda server: malformed(server, 500),
        "strangers": strangers,
    }
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        store = make_store(workspace, 4900, 32)
        open_or_build(store, "pooled", workspace / "indexes")
        for name, attack in attacks.items():
            with serving(workspace) as server:
                outcome = attack(server)
                print(f"{name}: {outcome}; stderr {server.error_bytes():,} bytes", flush=True)


if __name__ == "__main__":
    main()
