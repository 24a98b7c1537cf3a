"""Kill an extraction at every step it takes in the file system, one after the other.

Run as `python -m tests.torture.stepping IMAGES FOLDER EVERY`; prints one JSON object. Python calls
an audit hook for every file that is opened, linked, renamed or removed and every folder that is made
or removed. A worker is killed just before step n, for every EVERY-th n and the last six; each time
the store is finished by another worker and compared with an undisturbed one. Random moments hardly
ever meet the last steps, after the manifest; these do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pa.data.store.reader import SPEC
from tests.torture.killing import differences, ended, fork_worker, work

STEPS = ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
LAST = 6


def in_child(images: Path, features: Path, at_step: Callable[[int], None]) -> int:
    """Extract in a child that calls `at_step` before each step below `features`; its exit code."""
    pid = os.fork()
    if pid:
        return ended(pid)
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in STEPS and str(features) in str(args[0]):
            at_step(seen)
            seen += 1

    code = 1
    try:
        sys.addaudithook(hook)
        work(images, features)
        code = 0
    finally:
        os._exit(code)


def count_steps(images: Path, folder: Path) -> int:
    """Extract once, undisturbed, and count."""
    output = folder / "steps.txt"
    folder.mkdir(parents=True)
    with output.open("w") as file:
        handle = file.fileno()
        if in_child(images, folder / "undisturbed", lambda n: os.truncate(handle, n + 1)):
            raise RuntimeError("the undisturbed extraction failed")
    return output.stat().st_size


def main() -> None:
    images, folder, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    total = count_steps(images, folder)
    undisturbed = next((folder / "undisturbed").rglob(SPEC)).parent
    features, killed, wrong = folder / "features", 0, {}
    for step in sorted({*range(0, total, every), *range(total - LAST, total)}):

        def kill_here(n: int, step: int = step) -> None:
            if n == step:
                os.kill(os.getpid(), signal.SIGKILL)

        killed += in_child(images, features, kill_here) == -signal.SIGKILL
        if ended(fork_worker(images, features)):
            raise RuntimeError(f"the extraction killed before step {step} could not be resumed")
        store = next(features.rglob(SPEC)).parent
        left = [str(p) for p in features.rglob("*") if p.name.endswith((".partial", ".lock"))]
        if actual := differences(store, undisturbed) + left:
            wrong[step] = actual
        shutil.rmtree(features)
    print(json.dumps({"steps": total, "killed": killed, "wrong": wrong}))


if __name__ == "__main__":
    main()
