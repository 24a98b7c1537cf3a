"""Flip bits of every kind of file of a workspace, and look whether any command answers otherwise.

Run as `python -m tests.torture.answers WORKSPACE FLIPS SEED`; prints one JSON object. The workspace
is that of `test_damage.workspace_of_all`. Each flip is one bit of one file in a fresh copy, and one
command in a process of its own. It is "silent" if the command exits with 0, answers otherwise than
in the undamaged workspace, and does not name the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.torture.flipping import outcome

TIMEOUT = 120.0  # seconds for one command
# What differs from run to run: times, versions and rates.
UNLIKE = re.compile(r"(seconds|versions|ended|written|time|_at|per_second|when)$")

# Kind of file → where it is. "state" is what a killed run of the attentive probe leaves.
FILES = {
    "spec": "features/*/*/*/*/*/spec.json",
    "rows": "features/*/*/*/*/*/rows.parquet",
    "manifest": "features/*/*/*/*/*/manifest.json",
    "shard": "features/*/*/*/*/*/shard-*.h5",
    "index": "indexes/*/*/*/index.faiss",
    "index.json": "indexes/*/*/*/index.json",
    "result": "results/*/*.json",
    "table": "results/*/*.parquet",
    "head": "results/*/*.safetensors",
    "state": "results/*/*.state",
}
OF_BIRDS = ("--dataset", "cub", "--encoder", "dino", "--representation", "cls")
OF_PHOTOS = ("--dataset", "folder", "--view", "image")
READERS: dict[str, tuple[str, ...]] = {
    "search": ("search", "--query-id", "3", "-k", "5", *OF_BIRDS, "--json"),
    "search by image": (
        *("search", "--image", "photos/c0/0000.png", "-k", "5", *OF_PHOTOS),
        *("--representation", "pooled", "--json"),
    ),
    "figure": (
        *("search", "--query-id", "3", "-k", "5", *OF_PHOTOS, "--representation", "pooled"),
        *("--figure", "out.png", "--json"),
    ),
    "index build": ("index", "build", *OF_BIRDS, "--json"),
    "retrieval": ("evaluate", "retrieval", *OF_BIRDS, "--json"),
    "neighbours": ("evaluate", "neighbours", *OF_BIRDS, "-k", "5", "--json"),
    "linear": ("probe", "linear", *OF_BIRDS, "--epochs", "2", "--no-references", "--json"),
    "knn": ("probe", "knn", *OF_BIRDS, "--json"),
    "attentive": ("probe", "attentive", *OF_PHOTOS, "--epochs", "2", "--json"),
    "predict": ("probe", "predict", "--image", "photos/c0/0000.png", "--head", "HEAD", "--json"),
    "report": ("report", "--json"),
    "status": ("status", "--json"),
    "verify": ("verify", "--json"),
}


def head_of(workspace: Path) -> str:
    (head,) = workspace.glob("results/probe-attentive/*.safetensors")
    return str(head.relative_to(workspace))


def run(workspace: Path, words: tuple[str, ...]) -> tuple[int | str, str]:
    """Run a command in a child: its exit code, "hung" or "crashed", and all that it printed."""
    from pa.cli import main

    words = tuple(head_of(workspace) if word == "HEAD" else word for word in words)
    out = workspace.parent / "printed"
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.chdir(workspace)
            handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = ["pa", *words]
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:  # noqa: BLE001 - a traceback is an answer, and not a good one
                traceback.print_exc()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            os._exit(code)
    code = outcome(pid, TIMEOUT)
    return code, "" if code == "hung" else out.read_text(errors="replace")


def answer(workspace: Path, printed: str, flipped: Path | None) -> Any:
    """Return the output of a command without times, and its files except the flipped one."""
    start = printed.find("{")
    output: Any = printed
    with contextlib.suppress(ValueError):
        output = json.JSONDecoder().raw_decode(printed[start:])[0]
    left = {}
    for pattern in ("results/*/*", "out.png", "indexes/*/*/*/index.faiss"):
        for path in sorted(workspace.glob(pattern)):
            if path == flipped or path.suffix in (".state", ".parquet"):
                continue
            data = path.read_bytes()
            if path.suffix == ".json":
                with contextlib.suppress(ValueError):
                    data = json.dumps(_alike(json.loads(data))).encode()
            left[str(path.relative_to(workspace))] = hashlib.sha256(data).hexdigest()
    return [_alike(output), left]


def same(answered: Any, expected: Any, flipped: str) -> bool:
    """Whether two answers are equal, but for a file that was flipped and not written again."""
    (output, left), (should, others) = answered, expected
    if flipped not in left:
        others = {name: value for name, value in others.items() if name != flipped}
    return bool(output == should and left == others)


def readers_of(path: Path) -> list[str]:
    """The commands that may read a file: of a store, not those that name the other one."""
    if path.parts[0] != "features":
        return list(READERS)
    other = "folder" if path.parts[1] == "cub" else "cub"
    return [name for name, words in READERS.items() if other not in words]


def _alike(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _alike(values)
            for name, values in value.items()
            if not UNLIKE.search(name) and name not in ("checksum", "files")
        }
    if isinstance(value, list):
        return [_alike(values) for values in value]
    return value


def main() -> None:
    pristine, flips, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    from pa.extract.torchvision_ops import ensure

    ensure()
    import faiss  # noqa: F401 - loaded once, for every child
    import h5py  # noqa: F401
    import timm  # noqa: F401
    import torch

    import pa.cli
    import pa.probe.attentive.run
    import pa.probe.linear.run
    import pa.workspace  # noqa: F401

    torch.set_num_threads(1)
    copy = pristine.parent / "copy"

    def fresh() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(pristine, copy)

    expected = {}
    for name, words in READERS.items():
        fresh()
        code, printed = run(copy, words)
        assert code == 0, (name, code, printed)
        expected[name] = answer(copy, printed, None)
    actual: Counter[str] = Counter()
    table: dict[str, Counter[str]] = {}
    silent = []
    for number in range(flips):
        kind = list(FILES)[number % len(FILES)]
        fresh()
        path = draw.choice(sorted(copy.glob(FILES[kind])))
        reader = draw.choice(readers_of(path.relative_to(copy)))
        data = bytearray(path.read_bytes())
        used = [index for index, byte in enumerate(data) if byte]
        index = draw.choice(used) if draw.random() < 0.75 else draw.randrange(len(data))
        bit = 1 << draw.randrange(8)
        data[index] ^= bit
        path.write_bytes(data)
        code, printed = run(copy, READERS[reader])
        if code in ("hung", "crashed"):
            output = str(code)
        elif code != 0:
            output = "traceback" if "Traceback" in printed else "found"
        elif same(answer(copy, printed, path), expected[reader], str(path.relative_to(copy))):
            output = "harmless"
        else:
            names = (path.name, path.parent.name)
            output = "found" if any(name in printed for name in names) else "silent"
        actual[output] += 1
        table.setdefault(f"{kind} × {reader}", Counter())[output] += 1
        if output in ("silent", "traceback"):
            silent.append([str(path.relative_to(copy)), index, bit, reader, output, printed[-800:]])
    kinds = ("found", "harmless", "hung", "crashed", "traceback", "silent")
    counts = {kind: actual[kind] for kind in kinds}
    print(json.dumps({**counts, "cases": silent, "table": table}))


if __name__ == "__main__":
    main()
