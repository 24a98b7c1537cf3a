"""Measure a click in the explorer against the bare library call, alternating in one run.

    python benchmarks/explore.py [--rows 49000] [--width 768] [--rounds 60] [--keep DIR]

Each round searches the 24 nearest rows of a random row twice: with `pa.index.search` on an open
index, and with a request to a running `pa explore` over one open connection, until the last byte
has arrived. A ratio is the median over rounds of a method's time / the bare call's time.

"first" are the first rounds after the start of a server, which verify shards as they read them;
"warm" are the later ones. "start" is the time from the start of the process to its first response,
next to the time of an interpreter that only imports the server's libraries.

The vectors are those of benchmarks/search.py: clustered, as features are.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from search import PER_IMAGE, make_store

from pa.index.build import open_or_build
from pa.index.search import search

K = 24
IMPORTS = "import fastapi, uvicorn, polars, h5py, PIL.Image, pydantic_settings"
Search = Callable[[int], object]


@contextmanager
def serving(workspace: Path) -> Iterator[tuple[http.client.HTTPConnection, float]]:
    """A running `pa explore`, a connection to it, and the seconds until its first answer."""
    words = [sys.executable, "-m", "pa", "explore", "--port", "0", "--json", "-w", str(workspace)]
    words.append("--no-token")
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        printed = ""
        while not printed.endswith("}\n"):
            printed += process.stdout.readline()
        connection = http.client.HTTPConnection(
            json.loads(printed)["url"].split("/")[2], timeout=600
        )
        read(connection, "/")
        yield connection, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def read(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:500]!r}")
    return body


def compare(title: str, methods: dict[str, Search], rows: list[int]) -> None:
    """Time every method on every row, alternating, and print medians, tails and ratios."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for row in rows:
        for name, method in methods.items():
            times[name].append(seconds(lambda method=method, row=row: method(row)))
    bare = next(iter(times.values()))
    print(f"\n{title}, {len(rows)} rows\n  {'':<38} {'median ms':>10} {'p95 ms':>9}   / bare")
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, bare, strict=True))
        median, tail = 1000 * np.percentile(values, [50, 95])
        print(f"  {name:<38} {median:>10.1f} {tail:>9.1f}   {ratio:.2f}")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def started(workspace: Path, rounds: int) -> None:
    """Print the time of a start and that of its imports."""
    pairs = []
    for _ in range(rounds):
        base = seconds(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))
        with serving(workspace) as (_, until):
            pairs.append((until, base))
    start, base = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(until / base for until, base in pairs)
    print(f"\nstart: {start:.2f} s to the first answer, imports alone {base:.2f} s; {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=49_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="Workspace to keep the store in.")
    options = parser.parse_args()
    n = options.rows // PER_IMAGE * PER_IMAGE
    with tempfile.TemporaryDirectory() as folder:
        workspace = options.keep or Path(folder)
        store = make_store(workspace, n, options.width)
        index = open_or_build(store, "pooled", workspace / "indexes").index
        print(
            f"{n:,} × {options.width}, top {K}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()}"
        )
        rows = np.random.default_rng(1).choice(n, 2 * options.rounds, replace=False).tolist()
        with serving(workspace) as (connection, _):
            (gallery,) = json.loads(read(connection, "/api/workspace"))["galleries"]
            column = gallery["columns"][0]["id"]
            base = f"/api/galleries/{gallery['id']}/rows"
            methods: dict[str, Search] = {
                "bare: search() on an open index": lambda row: search(index, [row], K),
                "request to pa explore": lambda row: read(
                    connection, f"{base}/{row}/neighbours?column={column}&k={K}"
                ),
            }
            compare("first", methods, rows[: options.rounds])
            compare("warm", methods, rows[options.rounds :])
        started(workspace, options.starts)


if __name__ == "__main__":
    main()
