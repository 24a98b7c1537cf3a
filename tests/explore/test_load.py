"""Many concurrent requests are answered or refused; large libraries are imported late."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from pa.config import Config
from pa.data.crops import Crops
from pa.data.store.find import StoreSelector
from pa.errors import BusyError, UsageError
from pa.explore.limits import ConcurrencyLimiter
from pa.explore.pictures import Pictures
from pa.explore.safety import new_token
from pa.explore.server import listen
from pa.workspace import Workspace
from tests.explore.conftest import N, neighbours_of, serving, visitor

Json = dict[str, Any]


def test_limiter_runs_few_queues_some_and_refuses_rest() -> None:
    running, most, done, lock = 0, 0, 0, threading.Lock()

    def work() -> int:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
            done += 1
        return done

    async def many() -> list[Any]:
        limiter = ConcurrencyLimiter("test", 2, 10)
        tasks = [asyncio.create_task(limiter.run(work)) for _ in range(30)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(many())
    types = Counter(type(answer) for answer in answers)
    assert types == {int: 12, BusyError: 18}
    assert most == 2


def test_limiter_wait_times_out_and_turn_is_released() -> None:
    async def wait() -> list[Any]:
        limiter = ConcurrencyLimiter("test", 1, 10, timeout=0.05)
        first = asyncio.create_task(limiter.run(lambda: time.sleep(0.4)))
        await asyncio.sleep(0.01)
        second = await asyncio.gather(limiter.run(lambda: 2), return_exceptions=True)
        await first
        return [*second, await limiter.run(lambda: 3)]

    second, third = asyncio.run(wait())
    assert isinstance(second, BusyError)
    assert third == 3


def test_limiter_runs_cancelled_work_to_its_end() -> None:
    order: list[str] = []

    async def leave() -> None:
        limiter = ConcurrencyLimiter("test", 1, 10)
        first = asyncio.create_task(
            limiter.run(lambda: (time.sleep(0.2), order.append("first"))[0])
        )
        await asyncio.sleep(0.02)
        first.cancel()
        await limiter.run(lambda: order.append("second"))

    asyncio.run(leave())
    assert order == ["first", "second"]


def test_limiter_raises_errors_of_the_work() -> None:
    def fail() -> None:
        raise UsageError("wrong")

    with pytest.raises(UsageError, match="wrong"):
        asyncio.run(ConcurrencyLimiter("test", 1, 1).run(fail))


def test_cache_of_pictures_stays_within_its_size(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Workspace(config.workspace).store(StoreSelector(encoder="alpha"))
    cut: Counter[int] = Counter()
    region = Crops.region

    def counted(crops: Crops, row: int, side: int) -> Image.Image:
        cut[row] += 1
        return region(crops, row, side)

    monkeypatch.setattr(Crops, "region", counted)
    n_bytes = len(Pictures(config).region(store, 0))
    pictures = Pictures(config, cache_bytes=4 * n_bytes)
    cut.clear()
    for row in range(1, 21):
        pictures.region(store, row)
        pictures.region(store, 0)
    assert cut[0] == 1, "a picture that is used often stays"
    pictures.region(store, 1)
    assert cut[1] == 2, "one that was not used for long does not"
    assert Pictures(config, cache_bytes=10).region(store, 0) == pictures.region(store, 0)


def test_concurrent_queries_are_answered(workspace: Path, config: Config) -> None:
    """Each response is right, or names a time to retry; the server survives."""
    with serving(workspace) as url, visitor(url) as client:
        (gallery,) = client.get("/api/workspace").json()["galleries"]
        column = gallery["columns"][0]["id"]

        def ask(row: int) -> tuple[int, Any]:
            url = f"/api/galleries/{gallery['id']}/rows/{row}/neighbours?column={column}"
            answer = client.get(url)
            if answer.status_code == 200:
                return 200, answer.json()["result"]["neighbours"]
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"] == "busy"
            return answer.status_code, None

        rows = [5 * at for at in range(100)]
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, rows))
        expected = neighbours_of(config, rows)
        codes = Counter(code for code, _ in answers)
        assert set(codes) <= {200, 503}
        assert codes[200] >= 50
        for row, (code, neighbours) in zip(rows, answers, strict=True):
            assert code != 200 or neighbours == expected[row]
        assert ask(N - 1)[0] == 200


# -- starting ----------------------------------------------------------------------------------


def test_torch_is_not_imported_before_an_image_is_encoded(workspace: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from starlette.testclient import TestClient
from pa import config
from pa.explore.server import make_app
import pa.explore.server
from pa.workspace import Workspace
with TestClient(make_app(Workspace({str(workspace)!r})), "http://localhost") as client:
    first = client.get("/api/workspace").json()["galleries"][0]
    base = f"/api/galleries/{{first['id']}}/rows/3"
    asked = {{"column": first["columns"][0]["id"]}}
    for path in ("/neighbours", "/figure", "/command", "", "/region"):
        assert client.get(base + path, params=asked).status_code == 200, path
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "faiss" in loaded
    assert not loaded & {"torch", "timm", "torchvision", "sklearn", "scipy"}


def test_port_in_use_is_reported_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(BusyError, match=f"port {port}.*--port"):
            listen("127.0.0.1", port)
        monkeypatch.setattr("pa.explore.server.DEFAULT_PORT", port)
        with listen("127.0.0.1", None) as second:
            assert second.getsockname()[1] != port


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_foreign_host_is_reported(host: str) -> None:
    with pytest.raises(UsageError, match="host"):
        listen(host, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_listens_locally_and_stops_on_signal(
    workspace: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "pa", "explore", "--port", "0", "-w", str(workspace)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    assert url.startswith("http://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", urlsplit(url).port)):
        process.send_signal(number)
        _, complained = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in complained


def test_server_stops_during_searches(workspace: Path) -> None:
    command = [sys.executable, "-m", "pa", "explore", "--port", "0", "-w", str(workspace)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    with visitor(url) as client:
        gallery = client.get("/api/workspace").json()["galleries"][0]
    column = gallery["columns"][0]["id"]
    drawn = f"/api/galleries/{gallery['id']}/rows/1/figure"

    def ask(row: int) -> int:
        return client.get(drawn, params={"column": column, "k": 20 + row}).status_code

    with visitor(url) as client, ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, row) for row in range(60)]
        next(as_completed(asked))
        process.send_signal(signal.SIGINT)
        _, complained = process.communicate(timeout=60)
        statuses = {task.result() for task in asked if task.exception() is None}
    assert process.returncode == 0
    assert "Traceback" not in complained
    assert statuses <= {200, 503}


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(100)}) == 100
