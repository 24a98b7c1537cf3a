"""Pages that the kernel must clear again, counted by the kernel, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pa.extract import heap

SCRIPT = """
import resource, sys
import numpy as np
from pa.extract.heap import freed_memory_kept

BLOCK = 40 * 2**20

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        np.ones(BLOCK, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

outside = faults()
with freed_memory_kept():
    np.ones(BLOCK, np.uint8)
    inside, held = faults(), resident()
print(outside, inside, held - resident(), faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Linux's page faults")
def test_blocks_are_not_cleared_again() -> None:
    if heap._glibc() is None:
        pytest.skip("the C library is not glibc")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outside, inside, returned, after = map(int, done.stdout.split())
    assert inside * 20 < outside
    assert returned > 30 * 2**20  # the block is the kernel's again
    assert after * 2 > outside


def test_other_c_libraries_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def __getattr__(self, name: str) -> object:
            raise AttributeError(name)

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: Musl())
    with heap.freed_memory_kept():
        assert bytes(10) == b"\0" * 10
