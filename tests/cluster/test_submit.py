"""Plans, submitted arrays and local runs, without Slurm."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

from pa.cluster import slurm
from pa.cluster.slurm import Resources, Steps
from pa.cluster.submit import (
    Command,
    Extraction,
    choose_resources,
    parse_then,
    spread,
    submit,
)
from pa.commands.submit import submission_text
from pa.config import load
from pa.data.store.reader import Store
from pa.errors import MissingError, PaError, StorageError, UsageError
from pa.extract.stores import ExtractOptions
from pa.workspace import EncoderOptions, RegionSelector, Workspace
from tests.support.stores import same_files


def extraction(**options: Any) -> Extraction:
    return Extraction((), RegionSelector(), EncoderOptions(), ExtractOptions(**options))


EXTRACT = Command(("extract", "--shard-rows", "49"), extraction(shard_rows=49))


def test_spread_makes_one_command_per_value() -> None:
    words = ("probe", "linear", "--encoder", "dino, mae", "--representation=cls,pooled")
    assert spread(words, ["encoder", "--representation"]) == [
        ("probe", "linear", "--encoder", encoder, f"--representation={name}")
        for encoder in ("dino", "mae")
        for name in ("cls", "pooled")
    ]
    assert spread(words, []) == [words]
    with pytest.raises(UsageError, match="has no --dataset"):
        spread(words, ["dataset"])


def test_choose_resources_prefers_options_to_settings(in_empty_folder: Path) -> None:
    (in_empty_folder / "pa.toml").write_text(
        """
[cluster]
partition = "gpu"
account = "vision"
gpus = 1
time = "1:00:00"
setup = ["module load cuda"]
python = "apptainer exec pa.sif python"
parameters = {mail-type = "FAIL"}
"""
    )
    requested = {
        "partition": "debug",
        "gpus": 0,
        "mem": "4G",
        "array_parallelism": 16,
        "time": None,
    }
    resources = choose_resources(load().settings.cluster, requested)
    assert (resources.partition, resources.account, resources.gpus, resources.minutes) == (
        "debug",
        "vision",
        0,
        60,
    )
    assert choose_resources(load().settings.cluster, {"time": "5"}).minutes == 5
    text = slurm.script(in_empty_folder / "jobs", "extract", resources, 64)
    for line in (
        "#SBATCH --array=0-63%16",
        "#SBATCH --partition=debug",
        "#SBATCH --account=vision",
        "#SBATCH --mem=4G",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --time=60",
        "#SBATCH --signal=USR2@90",
        "module load cuda",
    ):
        assert line in text.splitlines()
    assert "--gpus-per-node" not in text
    assert " apptainer exec pa.sif python -u -m submitit" in text


@pytest.mark.parametrize(
    "line",
    [
        'partition = "gpu\\n#SBATCH --account=other"',
        'account = "vision\\r"',
        'mem = "4G\\u2028"',
        'python = "python\\nrm -r x"',
        'setup = ["module load cuda", "cd x\\n#SBATCH --nice=0"]',
        'parameters = {comment = "a\\u001b[31mb"}',
        'parameters = {"nice=0\\n#SBATCH --qos" = "high"}',
    ],
)
def test_resources_refuse_control_characters(in_empty_folder: Path, line: str) -> None:
    (in_empty_folder / "pa.toml").write_text(f"[cluster]\n{line}\n")
    with pytest.raises(UsageError, match="control character") as caught:
        choose_resources(load().settings.cluster, {})
    assert line.split(" ")[0] in str(caught.value)
    with pytest.raises(UsageError, match="control character"):
        Resources(qos="high\nlow")


def test_dry_run_returns_plan_and_writes_nothing(workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    submission = submit(Workspace(), (EXTRACT,), tasks=64, dry_run=True)
    [store] = submission.commands[0].stores
    assert (store.shards, store.shards_to_do, store.rows_to_do, submission.tasks) == (
        12,
        12,
        588,
        12,
    )
    assert store.bytes > 588 * (64 + 64) * 2  # two fp16 vectors of width 64, and headers
    assert (store.throughput, submission.seconds, submission.job) == (None, None, None)
    assert submission.script is not None
    assert "--array=0-11%12" in submission.script
    assert sorted(workspace.rglob("*")) == before


def test_submit_plans_missing_shards_with_recorded_time(workspace: Path) -> None:
    work = Workspace()
    work.extract(work.encoders(), *work.regions(RegionSelector()), ExtractOptions(shard_rows=49))
    store = Store.open(next(workspace.rglob("manifest.json")).parent)
    wall = store.runs()[0]["seconds"]["wall"]
    assert submit(Workspace(), (EXTRACT,), tasks=4).nothing_to_do
    for shard in store.plan[:5]:
        store.shard_path(shard).unlink()
    (store.path / "manifest.json").unlink()
    resources = Resources(array_parallelism=2)
    submission = submit(Workspace(), (EXTRACT,), tasks=4, resources=resources, dry_run=True)
    assert submission.commands[0].stores[0].shards_to_do == 5
    assert submission.seconds == pytest.approx(3 * 49 * wall / 588)  # shards are not divided
    assert "5/12" in submission_text(submission, None)


def test_submit_requires_space_for_all_commands(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Command(("extract",), extraction(limit=6))
    needed = [
        submit(Workspace(), (command,), dry_run=True).commands[0].plan
        for command in (EXTRACT, other)
    ]
    assert all(needed)
    enough = max(plan.bytes for plan in needed if plan) + 1
    monkeypatch.setattr("pa.data.files.free_bytes", lambda folder: enough)
    for command in (EXTRACT, other):
        assert submit(Workspace(), (command,), dry_run=True).tasks == 1
    with pytest.raises(StorageError, match="the features need"):
        submit(Workspace(), (EXTRACT, other), dry_run=True)


def test_submit_refuses_to_divide_other_commands(workspace: Path) -> None:
    with pytest.raises(UsageError, match="only `extract` can be divided"):
        submit(Workspace(), (Command(("index", "build")),), tasks=2)


def test_submit_reports_missing_slurm_or_submitit(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workspace))
    for tasks in (1, 3):
        with pytest.raises(MissingError, match="sbatch and srun"):
            submit(Workspace(), (EXTRACT,), tasks=tasks)
    monkeypatch.setitem(sys.modules, "submitit.slurm.slurm", None)
    with pytest.raises(MissingError, match=r"part-aware\[cluster\]"):
        submit(Workspace(), (EXTRACT,))


@pytest.fixture
def fake_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a fake sbatch stores its input; it numbers jobs 100, 101 …"""
    kept = tmp_path / "sbatch"
    kept.mkdir()
    program = kept / "sbatch"
    program.write_text(
        f"""#!/bin/sh
n=$((100 + $(ls {kept} | grep -c script)))
env > {kept}/env-$n; cp "$1" {kept}/script-$n; echo "Submitted batch job $n"
"""
    )
    program.chmod(0o755)
    # submitit looks for srun before it submits, and only the job would run it.
    (kept / "srun").write_text("#!/bin/sh\nexit 1\n")
    (kept / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{kept}:{os.environ['PATH']}")
    return kept


def pickled(path: Path) -> Steps:
    steps: Steps = DelayedSubmission.load(path).function
    return steps


def test_submit_adds_final_job_after_array(
    workspace: Path, fake_sbatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    then = parse_then(["pa index build --encoder 'timm/test_vit'", "status"])
    submission = submit(Workspace(), (EXTRACT,), then=then, tasks=3)
    assert (submission.job, submission.last) == ("100", "101")
    assert "--array=0-2%3" in (fake_sbatch / "script-100").read_text()
    assert "--dependency=afterany:100" in (fake_sbatch / "script-101").read_text()
    passed = (fake_sbatch / "env-100").read_text().splitlines()
    assert "SLURM_CONF=/etc/slurm.conf" in passed
    assert not any(line.startswith(("SLURM_JOB_ID", "SLURM_ARRAY")) for line in passed)
    assert os.environ["SLURM_ARRAY_TASK_ID"] == "3"
    where = ("--workspace", str(workspace))
    for task in range(3):
        steps = pickled(submission.folder / f"100_{task}_submitted.pkl")
        share = ("--task-id", str(task), "--task-count", "3")
        assert steps.commands == ((*where, *EXTRACT.words, *share),)
        assert steps.checkpoint().function == steps
    assert pickled(submission.folder / "101_submitted.pkl").commands == (
        (*where, *EXTRACT.words),
        (*where, "index", "build", "--encoder", "timm/test_vit"),
        (*where, "status"),
    )
    assert json.loads((submission.folder / "submission.json").read_text())["job"] == "100"


def test_submit_reports_refusal_of_slurm(workspace: Path, fake_sbatch: Path) -> None:
    (fake_sbatch / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpu' >&2; exit 1\n")
    with pytest.raises(PaError, match="refused the job: invalid partition: gpu"):
        submit(Workspace(), (EXTRACT,))


def test_local_tasks_write_the_same_store(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # equal numbers of threads, equal bits
    assert slurm.run_command(EXTRACT.words) == 0
    alone = next((workspace / "features").rglob("manifest.json")).parent
    kept = tmp_path / "alone"
    alone.rename(kept)
    then = parse_then(["index build"])
    submission = submit(Workspace(), (EXTRACT,), then=then, tasks=2, local=True)
    assert [end.code for end in submission.ended] == [0, 0, 0]
    assert submission.ended[-1].words[2:] == ("index", "build")
    assert same_files(kept, alone)
    logs = "".join(path.read_text() for path in submission.folder.glob("*.log"))
    assert "task 0 of 2" in logs
    assert "task 1 of 2" in logs
    assert "done; logs" in submission_text(submission, None)


def test_submit_repeats_only_failed_commands(extracted: Path) -> None:
    words = ("index", "build", "--representation", "cls,nonsense")
    commands = tuple(Command(line) for line in spread(words, ["representation"]))
    with pytest.raises(PaError, match="1 commands failed") as failed:
        submit(Workspace(), commands, local=True)
    assert "--representation nonsense" in str(failed.value)
    submission = submit(Workspace(), commands, local=True, dry_run=True)
    assert [plan.tasks for plan in submission.commands] == [0, 1]
    submission = submit(Workspace(), commands, local=True, dry_run=True, again=True)
    assert [plan.tasks for plan in submission.commands] == [1, 1]


def test_submit_repeats_command_with_missing_output(extracted: Path) -> None:
    words = ("evaluate", "retrieval", "--target", "label")
    commands = (Command(("index", "build")), Command(words))
    submit(Workspace(), commands, local=True)
    modes = {"local": True, "dry_run": True}
    assert submit(Workspace(), commands, **modes).nothing_to_do
    result, *_ = (extracted / "results" / "retrieval").glob("*.json")
    result.unlink()  # as `pa verify --repair` does if it is damaged
    assert [plan.tasks for plan in submit(Workspace(), commands, **modes).commands] == [0, 1]
    shutil.rmtree(extracted / "indexes")
    assert [plan.tasks for plan in submit(Workspace(), commands, **modes).commands] == [1, 1]
