"""Flip bits of a shard one by one, and look whether anything takes it for good.

Run as `python -m tests.torture.flipping STORE PRISTINE FLIPS SEED`, where PRISTINE is a copy of the
store; prints one JSON object. Each flip is read in a separate process, because HDF5 may hang
or crash on invalid headers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pa.data.store.reader import Store
from pa.data.store.verify import verify

TIMEOUT = 4.0  # seconds; a look takes a tenth of one at most
VERDICTS = ("found", "harmless", "silent")

Features = dict[str, npt.NDArray[Any]]


def verdict(folder: Path, expected: Features) -> str:
    """Whether `verify` finds the damage; if not, whether what is read is what was written."""
    if list(verify(Store.open(folder))):
        return "found"
    store = Store.open(folder)
    same = all(np.array_equal(store.read(name), values) for name, values in expected.items())
    return "harmless" if same else "silent"


def verdict_of_child(folder: Path, expected: Features) -> str:
    """The same in a child, which may also be "hung" or "crashed"."""
    pid = os.fork()
    if not pid:
        code = len(VERDICTS)
        try:
            code = VERDICTS.index(verdict(folder, expected))
        finally:
            os._exit(code)
    code = outcome(pid, TIMEOUT)
    if isinstance(code, str):
        return code
    return VERDICTS[code] if code < len(VERDICTS) else "crashed"


def outcome(pid: int, seconds: float) -> int | str:
    """Wait for a child: its exit code, "crashed" for a signal, "hung" after `seconds`, and killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else "crashed"
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hung"


def features_of(pristine: Path) -> Features:
    """Everything a store holds; read in a child: polars does not survive a fork of its threads."""
    names = Store.open(pristine).spec.representations
    pid = os.fork()
    if not pid:
        try:
            for name in names:
                np.save(pristine / f"{name}.npy", Store.open(pristine).read(name))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return {name: np.load(pristine / f"{name}.npy") for name in names}


def main() -> None:
    folder, pristine, flips = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(int(sys.argv[4]))
    expected = features_of(pristine)
    path = folder / "shard-00001.h5"
    whole = path.read_bytes()
    # Most of a small HDF5 file is padding: three flips in four are of bytes that are not zero.
    used = [index for index, byte in enumerate(whole) if byte]
    actual: Counter[str] = Counter()
    silent = []
    for _ in range(flips):
        index = draw.choice(used) if draw.random() < 0.75 else draw.randrange(len(whole))
        data, bit = bytearray(whole), 1 << draw.randrange(8)
        data[index] ^= bit
        path.write_bytes(data)
        message = verdict_of_child(folder, expected)
        actual[message] += 1
        if message == "silent":
            silent.append([index, bit])
    path.write_bytes(whole)
    output = {kind: actual[kind] for kind in ("found", "harmless", "hung", "crashed")}
    print(json.dumps({**output, "silent": silent}))


if __name__ == "__main__":
    main()
