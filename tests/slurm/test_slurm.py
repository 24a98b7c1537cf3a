"""Job arrays on a real Slurm of two nodes: killed, cancelled, requeued, and equal bit for bit.

The daemons are started by the tests (`daemons.py`); skipped where Slurm is not installed.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pa.data.store import reader as stores
from pa.data.store.reader import Store
from pa.data.store.verify import verify
from tests.slurm.daemons import NODES, Cluster, running, why_not
from tests.support.images import noise_image

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "cluster.md"
IMAGES, TASKS = 40, 4
EXTRACT = ("extract", "--shard-rows", "49")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason is not None:
        if os.environ.get("REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pa.toml of many small photographs and a small real network with seeded weights."""
    import torch
    from safetensors.torch import save_file

    from pa.extract.torchvision_ops import ensure

    ensure()
    import timm

    folder = tmp_path_factory.mktemp("data")
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        noise_image(number).save(folder / "photos" / f"{number:02d}.png")
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), folder / "weights.safetensors")
    return f"""
encoder = "timm/test_vit"
device = "cpu"
[datasets.photos]
kind = "folder"
root = "{folder}/photos"
[encoders."timm/test_vit"]
checkpoint = "{folder}/weights.safetensors"
[cluster]
partition = "cpu"
cpus = 1
time = "10"
[cluster.parameters]
nice = 0
"""


class Workspace:
    """A workspace, and `pa` typed in it on the cluster's login node."""

    def __init__(self, path: Path, settings: str, environment: dict[str, str]) -> None:
        self.path = path
        self.environment = {**environment, "OMP_NUM_THREADS": "1"}
        path.mkdir()
        (path / "pa.toml").write_text(settings)

    def pa(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pa", *words],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, *words: str) -> dict:  # type: ignore[type-arg]
        return json.loads(self.pa("submit", "--json", "--tasks", str(TASKS), *words))  # type: ignore[no-any-return]

    @property
    def store(self) -> Store:
        return Store.open(next(self.path.rglob("spec.json")).parent, incomplete=True)

    @property
    def shards(self) -> int:
        return len(list(self.path.glob("features/**/shard-*.h5")))

    def logs(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.path.glob("jobs/*/*log.out")))


@pytest.fixture(scope="module")
def alone(settings: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store that one process writes."""
    workspace = Workspace(tmp_path_factory.mktemp("alone") / "work", settings, dict(os.environ))
    workspace.pa(*EXTRACT)
    return workspace.store


@pytest.fixture
def workspace(slurm: Cluster, settings: str, tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work", settings, slurm.environment)


def assert_equal(store: Store, expected: Store) -> None:
    """Assert that both have the same files, byte for byte, except the log of runs."""
    names = sorted(
        p.name for p in expected.path.iterdir() if p.name not in (stores.RUNS, stores.IMAGES)
    )
    assert (
        sorted(p.name for p in store.path.iterdir() if p.name not in (stores.RUNS, stores.IMAGES))
        == names
    )
    assert filecmp.cmpfiles(store.path, expected.path, names, shallow=False)[0] == names
    assert not list(verify(store))


def over(slurm: Cluster, *jobs: str) -> Callable[[], bool]:
    return lambda: not any(job.partition("_")[0] in jobs for job, _, _ in slurm.queue())


def commands_of(workspace: Workspace, flag: str) -> list[int]:
    """Return the processes of this workspace whose command line contains `flag`."""
    numbers = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if " -m pa " in words and f"{workspace.path} " in words and flag in words:
            numbers.append(int(entry.name))
    return numbers


def test_final_job_completes_shards_of_killed_task(
    slurm: Cluster, workspace: Workspace, alone: Store
) -> None:
    lines = ("index build", "pa status", "evaluate retrieval --target x0", "report --format md")
    then = [word for line in lines for word in ("--then", line)]
    submission = workspace.submit(*EXTRACT, *then)
    assert submission["tasks"] == TASKS
    assert submission["commands"][0]["stores"][0]["shards_to_do"] == IMAGES
    nodes: set[str] = set()

    def in_the_middle() -> bool:
        nodes.update(node for _, state, node in slurm.queue() if state == "RUNNING")
        log = "".join(
            p.read_text() for p in workspace.path.glob(f"jobs/*/{submission['job']}_2_*log.out")
        )
        return workspace.shards >= 2 and " to write in " in log

    slurm.wait(in_the_middle)
    assert workspace.shards < IMAGES
    [victim] = commands_of(workspace, "--task-id 2 ")
    os.kill(victim, signal.SIGKILL)
    slurm.wait(over(slurm, submission["job"], submission["last_job"]))
    assert nodes == set(NODES)
    assert_equal(workspace.store, alone)
    logs = workspace.logs()
    assert "--task-id 2 --task-count 4: exit code -9" in logs
    assert logs.count("Job completed successfully") == TASKS  # three tasks and the last job
    assert len(list(workspace.path.glob("indexes/**/index.faiss"))) == 1
    assert len(list(workspace.path.glob("reports/*.md"))) == 1
    assert sorted(re.findall(r"task (\d) of 4", logs)) == ["0", "1", "2", "3"]


def test_cancelled_then_submitted_again(slurm: Cluster, workspace: Workspace, alone: Store) -> None:
    submission = workspace.submit(*EXTRACT)
    slurm.wait(lambda: workspace.shards >= 3)
    slurm.ask("scancel", submission["last_job"], submission["job"])
    slurm.wait(over(slurm, submission["job"], submission["last_job"]))
    done = workspace.shards
    assert 3 <= done < IMAGES
    assert not workspace.store.is_complete

    again = workspace.submit(*EXTRACT)
    assert again["commands"][0]["stores"][0]["shards_to_do"] == IMAGES - done
    assert again["expected_seconds"] is None or again["expected_seconds"] > 0
    slurm.wait(over(slurm, again["job"], again["last_job"]))
    assert_equal(workspace.store, alone)
    nothing = workspace.submit(*EXTRACT)
    assert (nothing["job"], nothing["last_job"], nothing["tasks"]) == (None, None, 0)


def test_task_near_time_limit_is_requeued_and_continues(
    slurm: Cluster, workspace: Workspace, alone: Store
) -> None:
    submission = workspace.submit(*EXTRACT)
    slurm.wait(lambda: workspace.shards >= 1)
    running_now = [j for j, state, _ in slurm.queue() if state == "RUNNING"]
    task = next(job for job in running_now if job.startswith(f"{submission['job']}_"))
    slurm.ask("scancel", "--signal=USR2", task)  # as Slurm does before a time limit
    slurm.wait(over(slurm, submission["job"], submission["last_job"]), 240)
    logs = workspace.logs()
    assert f"Requeued job {task}" in logs
    log = next(workspace.path.glob(f"jobs/*/{task}_0_log.out")).read_text()
    assert log.count("Starting with") == 2
    assert "interrupted. Finished work is kept" in log
    assert logs.count("Job completed successfully") == TASKS + 1
    assert_equal(workspace.store, alone)


def test_documented_array_script_runs(
    slurm: Cluster, workspace: Workspace, alone: Store, tmp_path: Path
) -> None:
    """The hand-written script as printed, with the workspace's own command and time."""
    script = re.search(r"```sh\n(#!/bin/bash\n.*?)```", DOCS.read_text(), re.S)
    assert script is not None
    text = script.group(1)
    assert "#SBATCH --array=0-63" in text
    assert "pa extract --encoder mocov3 --split val" in text
    text = re.sub(r"#SBATCH --(partition|gpus|time|cpus-per-task)\S*\n", "", text)
    text = text.replace("--array=0-63", "--array=0-3")
    ours = f"{sys.executable} -m pa -w {workspace.path} {' '.join(EXTRACT)}"
    text = text.replace("pa extract --encoder mocov3 --split val", ours)
    (tmp_path / "array.sh").write_text(text)
    slurm.environment["OMP_NUM_THREADS"] = "1"
    job = slurm.ask(
        "sbatch", f"--output={tmp_path}/%a.txt", "--chdir", tmp_path, tmp_path / "array.sh"
    ).split()[-1]
    slurm.wait(over(slurm, job))
    logs = "".join((tmp_path / f"{task}.txt").read_text() for task in range(TASKS))
    assert [f"task {task} of {TASKS}\n" in logs for task in range(TASKS)] == [True] * TASKS
    assert_equal(workspace.store, alone)


def test_each_creates_one_task_per_encoder(slurm: Cluster, workspace: Workspace) -> None:
    """Other commands run as one task per value, and are not repeated once they succeed."""
    workspace.pa(*EXTRACT, "--limit", "4")
    words = ("index", "build", "--representation", "cls,nonsense", "--each", "representation")
    submission = json.loads(workspace.pa("submit", "--json", *words))
    assert (submission["tasks"], submission["last_job"]) == (2, None)
    slurm.wait(over(slurm, submission["job"]))
    assert len(list(workspace.path.glob("indexes/*/cls/*/index.faiss"))) == 1
    again = json.loads(workspace.pa("submit", "--json", *words, "--dry-run"))
    assert [command["tasks"] for command in again["commands"]] == [0, 1]


def test_evaluations_and_probes_as_arrays(slurm: Cluster, workspace: Workspace) -> None:
    """A task per representation; the array is over before the job that was asked for after it."""
    workspace.pa(*EXTRACT, "--limit", "6")
    each = ("--representation", "cls,pooled", "--each", "representation")
    for words, then, results in (
        (("index", "build", "--index", "IVF4,Flat", "--pieces", "2"), "index info", 2),
        (("evaluate", "retrieval", "--target", "x0"), "report --format md", 2),
        (("probe", "knn", "--target", "x0"), "report --format md", 2),
    ):
        before = len(list(workspace.path.glob("jobs/done/*.json")))
        submission = json.loads(workspace.pa("submit", "--json", *words, *each, "--then", then))
        assert submission["tasks"] == 2
        slurm.wait(over(slurm, submission["job"], submission["last_job"]))
        assert len(list(workspace.path.glob("jobs/done/*.json"))) == before + results, (
            workspace.logs()
        )
    assert len(list(workspace.path.glob("indexes/**/index.ivfdata"))) == 2
    assert len(list(workspace.path.glob("reports/*.md"))) == 1
