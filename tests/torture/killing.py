"""Kill an extraction by two workers at random moments, resume it, and compare, again and again.

Run as `python -m tests.torture.killing IMAGES FOLDER KILLS SEED`; prints one JSON object. The
libraries are loaded once and the workers are forked, so that a round takes a second and not ten.

A store lives through one to three kills. Then it is completed by a worker that is not killed and
compared with one that was never disturbed; a store that was finished before the kill came is
compared at once.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from pa.data import datasets
from pa.data.store.reader import MANIFEST, SPEC
from pa.data.views import VIEWS
from pa.extract.run import extract
from pa.extract.stores import ExtractOptions
from tests.support.mean_colour import MeanColour

OPTIONS = ExtractOptions(representations=("pooled", "patch"), shard_rows=4, batch_size=3, workers=1)
WORKERS = 2


def work(images: Path, features: Path) -> Path:
    """One extraction, as a user's command does it; the folder of the store."""
    loaded = datasets.load("photos", "folder", images)
    result = extract([MeanColour()], loaded, VIEWS["image"], features, OPTIONS)
    return result.reports[0].store.path


def fork_worker(images: Path, features: Path) -> int:
    """Start a worker; its process id. It exits with 0 when the store is whole."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        work(images, features)
        code = 0
    except BaseException:  # noqa: BLE001 - the child must not continue as the parent
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a worker; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> bool:
    """Kill a worker with -9. Return whether it was still running."""
    os.kill(pid, signal.SIGKILL)  # a worker that has ended is a zombie until it is waited for
    code = ended(pid)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a worker failed by itself with exit code {code}")
    return code != 0


def found_at(features: Path) -> str:
    """In which part of its work an extraction was stopped, by what it left."""
    specs = list(features.rglob(SPEC))
    if not specs:
        return "before the spec"
    if (specs[0].parent / MANIFEST).exists():
        return "after the manifest"
    if not list(specs[0].parent.glob("shard-*.h5")):
        return "before the first shard"
    left = list(specs[0].parent.glob("shard-*.partial"))
    return "inside a shard" if left else "between shards"


def differences(store: Path, undisturbed: Path) -> list[str]:
    """Files that are not the same in two stores, logs apart; what was left counts too."""
    names = {p.name for folder in (store, undisturbed) for p in folder.iterdir()} - {
        "runs.jsonl",
        "images.jsonl",
    }
    same = [
        name
        for name in names
        if (store / name).is_file()
        and (undisturbed / name).is_file()
        and filecmp.cmp(store / name, undisturbed / name, shallow=False)
    ]
    return sorted(names - set(same))


class Torture:
    """The rounds, and what came of them."""

    def __init__(self, images: Path, folder: Path, seed: int) -> None:
        self.images = images
        self.folder = folder
        self.draw = random.Random(seed)
        self.features = folder / "features"
        self.stopped: Counter[str] = Counter()
        self.kills = self.too_late = self.compared = 0
        self.wrong: list[list[str]] = []
        features = folder / "undisturbed"
        self._finish(features)
        self.undisturbed = next(features.rglob(SPEC)).parent
        self.seconds = statistics.median(self._time_of_two(n) for n in range(3))

    def run(self, kills: int) -> dict[str, Any]:
        """Continue until `kills` workers were killed while running."""
        while self.kills < kills:
            for _ in range(self.draw.randint(1, 3)):
                if self._round():
                    break
            self._finish(self.features)
            self._compare()
        return {
            "seconds_undisturbed": round(self.seconds, 3),
            "kills": self.kills,
            "too_late": self.too_late,
            "stopped": dict(self.stopped),
            "compared": self.compared,
            "wrong": self.wrong,
        }

    def _round(self) -> bool:
        """Start two workers and kill one or both; whether the store is whole already."""
        workers = [fork_worker(self.images, self.features) for _ in range(WORKERS)]
        time.sleep(self.draw.uniform(0, self.seconds))
        victims = workers if self.draw.random() < 0.7 else workers[:1]
        hit = sum([kill(pid) for pid in victims])
        self.kills += hit
        self.too_late += len(victims) - hit
        if hit:
            self.stopped[found_at(self.features)] += 1
        survivors = [ended(pid) for pid in workers if pid not in victims]
        if any(survivors):
            raise RuntimeError(f"a worker failed after the other was killed: {survivors}")
        return bool(survivors) or hit < len(victims)

    def _time_of_two(self, number: int) -> float:
        features = self.folder / f"timed{number}"
        began = time.perf_counter()
        for pid in [fork_worker(self.images, features) for _ in range(WORKERS)]:
            if ended(pid):
                raise RuntimeError("a worker failed undisturbed")
        seconds = time.perf_counter() - began
        self._must_be_equal(features)
        return seconds

    def _finish(self, features: Path) -> None:
        if code := ended(fork_worker(self.images, features)):
            raise RuntimeError(f"the resumed extraction failed with exit code {code}")

    def _compare(self) -> None:
        self.compared += 1
        self._must_be_equal(self.features)

    def _must_be_equal(self, features: Path) -> None:
        wrong = differences(next(features.rglob(SPEC)).parent, self.undisturbed)
        wrong += [str(p) for p in features.rglob("*") if p.name.endswith((".partial", ".lock"))]
        if wrong:
            self.wrong.append(wrong)
        shutil.rmtree(features)


def main() -> None:
    images, folder, kills, seed = sys.argv[1:]
    print(json.dumps(Torture(Path(images), Path(folder), int(seed)).run(int(kills))))


if __name__ == "__main__":
    main()
