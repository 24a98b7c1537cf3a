"""`pa submit` and shares of an extraction, without Slurm: plans, local runs, what is sent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from submitit.core.utils import DelayedSubmission

from pa.cluster import local as workers
from pa.cluster import slurm as cluster
from pa.cluster.slurm import Resources, Steps
from pa.cluster.submit import Command, Extraction, choose_resources, parse_then, spread, submit
from pa.commands.extract import result_text
from pa.commands.submit import submission_text
from pa.config import load
from pa.data import datasets
from pa.data.store.reader import Store
from pa.data.views import VIEWS
from pa.errors import MissingError, PaError, StorageError, UsageError
from pa.extract.devices import visible_gpus
from pa.extract.run import RunResult, extract
from pa.extract.share import Share, choose_share
from pa.extract.stores import ExtractOptions
from pa.workspace import EncoderOptions, RegionSelector, Workspace
from tests.support.commands import Run
from tests.support.mean_colour import MeanColour
from tests.support.stores import same_files

Tree = Callable[..., Path]
SMALL = ExtractOptions(shard_rows=50, batch_size=32)


# -- shares -----------------------------------------------------------------------------------


@given(st.integers(0, 200), st.integers(1, 40))
def test_shares_are_contiguous_even_and_together_everything(n: int, count: int) -> None:
    missing = [10 + 3 * i for i in range(n)]
    starts = [Share(index, count).order(missing) for index in range(count)]
    assert all(sorted(order) == missing for order in starts)
    firsts = [missing.index(order[0]) for order in starts] if n else []
    lengths = [b - a for a, b in zip(firsts, [*firsts[1:], n], strict=True)] if n else []
    assert sum(lengths) == n
    assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"ID": "3", "COUNT": "8", "MIN": "0", "MAX": "7", "STEP": "1"}, Share(3, 8)),
        ({"ID": "3", "COUNT": "3", "MIN": "1", "MAX": "3", "STEP": "1"}, Share(2, 3)),
        ({"ID": "9", "COUNT": "3", "MIN": "1", "MAX": "9", "STEP": "4"}, Share(2, 3)),
        ({"ID": "5", "MIN": "2", "MAX": "6"}, Share(3, 5)),
        ({"ID": "7", "COUNT": "3", "MIN": "3", "MAX": "8", "STEP": "1"}, Share(1, 3)),
        ({"ID": "none"}, None),
    ],
)
def test_task_number_is_read_from_slurm(variables: dict[str, str], expected: Share | None) -> None:
    environment = {f"SLURM_ARRAY_TASK_{name}": value for name, value in variables.items()}
    assert choose_share(None, None, environment) == expected
    assert choose_share(0, 1, environment) == Share(0, 1)


def test_impossible_share_is_refused() -> None:
    with pytest.raises(UsageError, match="task 4 of 4"):
        Share(4, 4)
    with pytest.raises(UsageError, match="--task-count"):
        choose_share(1, None, {})


def test_task_starts_with_its_share_and_helps_with_rest(image_tree: Tree, tmp_path: Path) -> None:
    images = datasets.load("photos", "folder", image_tree())
    written: list[str] = []
    original = Store.shard_key

    def spy(self: Store, shard) -> str:  # type: ignore[no-untyped-def]
        written.append(shard.name)
        return original(self, shard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "shard_key", spy)
        result = extract([MeanColour()], images, VIEWS["grid"], tmp_path, SMALL, share=Share(1, 3))
    # The manifest asks for the keys of all shards once more.
    assert [int(name[6:11]) for name in written[:12]] == [*range(4, 12), *range(4)]
    assert result.shards_left == 0
    assert result.reports[0].store.is_complete


def test_task_leaves_locked_shards_to_others(image_tree: Tree, tmp_path: Path) -> None:
    images = datasets.load("photos", "folder", image_tree())
    whole = extract([MeanColour()], images, VIEWS["grid"], tmp_path / "whole", SMALL)
    done = extract([MeanColour()], images, VIEWS["grid"], tmp_path / "f", SMALL)
    store = done.reports[0].store
    (store.path / "manifest.json").unlink()
    for shard in store.plan[3:6]:
        store.shard_path(shard).unlink()
    (store.path / "locks").mkdir()
    ended: list[RunResult] = []

    def task() -> None:
        features = tmp_path / "f"
        run = extract([MeanColour()], images, VIEWS["grid"], features, SMALL, share=Share(0, 2))
        ended.append(run)

    with FileLock(store.path / "locks" / f"{store.plan[4].name}.lock"):  # another task's
        thread = threading.Thread(target=task)
        thread.start()
        thread.join(60)
    assert [(run.shards_left, run.reports[0].rows_encoded, run.bad) for run in ended] == [
        (1, 98, [])
    ]
    assert ended[0].to_json()["stores"][0]["complete"] is False
    assert not store.is_complete
    assert "1 of 12 shards are locked by other tasks" in result_text(ended[0])
    task()  # the job after the array
    assert ended[1].shards_left == 0
    assert same_files(whole.reports[0].store.path, ended[1].reports[0].store.path)


# -- what is planned --------------------------------------------------------------------------


def test_spread_over_values() -> None:
    words = ("probe", "linear", "--encoder", "dino, mae", "--representation=cls,pooled")
    assert spread(words, ["encoder", "--representation"]) == [
        ("probe", "linear", "--encoder", encoder, f"--representation={name}")
        for encoder in ("dino", "mae")
        for name in ("cls", "pooled")
    ]
    assert spread(words, []) == [words]
    with pytest.raises(UsageError, match="has no --dataset"):
        spread(words, ["dataset"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("4:00:00", 240), ("10:30", 11), ("0:00:30", 1), ("2-0", 2880), ("1-2:30", 1590)],
)
def test_time_limits_as_sbatch_reads_them(text: str, expected: int) -> None:
    assert cluster.minutes(text) == expected


@pytest.mark.parametrize("text", ["", "four", "0", "-5", "1:2:3:4", "1.5", "3-"])
def test_time_limits_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="time limit"):
        cluster.minutes(text)


def test_settings_of_the_site_and_flags(in_empty_folder: Path) -> None:
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
    actual = choose_resources(
        load().settings.cluster, partition="debug", gpus=0, mem="4G", array_parallelism=16
    )
    assert (actual.partition, actual.account, actual.gpus, actual.minutes) == (
        "debug",
        "vision",
        0,
        60,
    )
    assert choose_resources(load().settings.cluster, time="5").minutes == 5
    text = cluster.script(in_empty_folder / "jobs", "extract", actual, 64)
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
def test_setting_with_line_break_is_refused(in_empty_folder: Path, line: str) -> None:
    (in_empty_folder / "pa.toml").write_text(f"[cluster]\n{line}\n")
    with pytest.raises(UsageError, match="control character") as caught:
        choose_resources(load().settings.cluster)
    assert line.split(" ")[0] in str(caught.value)
    with pytest.raises(UsageError, match="control character"):
        Resources(qos="high\nlow")


@pytest.fixture
def workspace_folder(workspace: Path) -> Path:
    """A workspace whose extraction has 12 shards."""
    return workspace


def extraction(**options: Any) -> Extraction:
    return Extraction((), RegionSelector(), EncoderOptions(), ExtractOptions(**options))


EXTRACT = Command(("extract", "--shard-rows", "49"), extraction(shard_rows=49))


def test_dry_run_writes_nothing_and_prints_plan(workspace_folder: Path) -> None:
    before = sorted(workspace_folder.rglob("*"))
    actual = submit(Workspace(), (EXTRACT,), tasks=64, dry_run=True)
    [store] = actual.commands[0].stores
    assert (store.shards, store.shards_to_do, store.rows_to_do, actual.tasks) == (12, 12, 588, 12)
    assert store.bytes > 588 * (64 + 64) * 2  # two fp16 vectors of width 64, and headers
    assert (store.throughput, actual.seconds, actual.job) == (None, None, None)
    assert actual.script is not None
    assert "--array=0-11%12" in actual.script
    assert sorted(workspace_folder.rglob("*")) == before


def test_missing_work_alone_is_submitted_with_recorded_time(workspace_folder: Path) -> None:
    work = Workspace()
    work.extract(work.encoders(), *work.regions(RegionSelector()), ExtractOptions(shard_rows=49))
    store = Store.open(next(workspace_folder.rglob("manifest.json")).parent)
    wall = store.runs()[0]["seconds"]["wall"]
    assert submit(Workspace(), (EXTRACT,), tasks=4).nothing_to_do
    for shard in store.plan[:5]:
        store.shard_path(shard).unlink()
    (store.path / "manifest.json").unlink()
    resources = Resources(array_parallelism=2)
    actual = submit(Workspace(), (EXTRACT,), tasks=4, resources=resources, dry_run=True)
    assert actual.commands[0].stores[0].shards_to_do == 5
    assert actual.seconds == pytest.approx(3 * 49 * wall / 588)  # shards are not divided
    assert "5/12" in submission_text(actual, None)


def test_disk_must_hold_output_of_all_commands(
    workspace_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Command(("extract",), extraction(limit=6))
    needed = [
        submit(Workspace(), (item,), dry_run=True).commands[0].plan for item in (EXTRACT, other)
    ]
    assert all(needed)
    enough = max(plan.bytes for plan in needed if plan) + 1
    monkeypatch.setattr("pa.data.files.free_bytes", lambda path: enough)
    for item in (EXTRACT, other):
        assert submit(Workspace(), (item,), dry_run=True).tasks == 1
    with pytest.raises(StorageError, match="the features need"):
        submit(Workspace(), (EXTRACT, other), dry_run=True)


def test_undividable_command_is_refused(workspace_folder: Path) -> None:
    with pytest.raises(UsageError, match="only `extract` can be divided"):
        submit(Workspace(), (Command(("index", "build")),), tasks=2)


def test_missing_slurm_or_submitit_is_reported(
    workspace_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(workspace_folder))
    for tasks in (1, 3):
        with pytest.raises(MissingError, match="sbatch and srun"):
            submit(Workspace(), (EXTRACT,), tasks=tasks)
    monkeypatch.setitem(sys.modules, "submitit.slurm.slurm", None)
    with pytest.raises(MissingError, match=r"part-aware\[cluster\]"):
        submit(Workspace(), (EXTRACT,))


@pytest.fixture
def fake_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that keeps what it is given and numbers jobs 100, 101 …; where it keeps it."""
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


def test_array_is_followed_by_final_job(
    workspace_folder: Path, fake_sbatch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    then = parse_then(["pa index build --encoder 'timm/test_vit'", "status"])
    actual = submit(Workspace(), (EXTRACT,), then=then, tasks=3)
    assert (actual.job, actual.last) == ("100", "101")
    assert "--array=0-2%3" in (fake_sbatch / "script-100").read_text()
    assert "--dependency=afterany:100" in (fake_sbatch / "script-101").read_text()
    passed = (fake_sbatch / "env-100").read_text().splitlines()
    assert "SLURM_CONF=/etc/slurm.conf" in passed
    assert not any(line.startswith(("SLURM_JOB_ID", "SLURM_ARRAY")) for line in passed)
    assert os.environ["SLURM_ARRAY_TASK_ID"] == "3"
    where = ("--workspace", str(workspace_folder))
    for task in range(3):
        steps = pickled(actual.folder / f"100_{task}_submitted.pkl")
        share = ("--task-id", str(task), "--task-count", "3")
        assert steps.commands == ((*where, *EXTRACT.words, *share),)
        assert steps.checkpoint().function == steps
    assert pickled(actual.folder / "101_submitted.pkl").commands == (
        (*where, *EXTRACT.words),
        (*where, "index", "build", "--encoder", "timm/test_vit"),
        (*where, "status"),
    )
    assert json.loads((actual.folder / "submission.json").read_text())["job"] == "100"


def pickled(path: Path) -> Steps:
    steps: Steps = DelayedSubmission.load(path).function
    return steps


def test_slurm_refuses(workspace_folder: Path, fake_sbatch: Path) -> None:
    (fake_sbatch / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpu' >&2; exit 1\n")
    with pytest.raises(PaError, match="refused the job: invalid partition: gpu"):
        submit(Workspace(), (EXTRACT,))


# -- running ----------------------------------------------------------------------------------


def test_local_processes_share_the_work(
    workspace_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # equal numbers of threads, equal bits
    assert cluster.run_command(EXTRACT.words) == 0
    alone = next((workspace_folder / "features").rglob("manifest.json")).parent
    kept = tmp_path / "alone"
    alone.rename(kept)
    then = parse_then(["index build"])
    actual = submit(Workspace(), (EXTRACT,), then=then, tasks=2, local=True)
    assert [end.code for end in actual.ended] == [0, 0, 0]
    assert actual.ended[-1].words[2:] == ("index", "build")
    assert same_files(kept, alone)
    logs = "".join(path.read_text() for path in actual.folder.glob("*.log"))
    assert "task 0 of 2" in logs
    assert "task 1 of 2" in logs
    assert "done; logs" in submission_text(actual, None)


def test_failed_commands_alone_are_repeated(extracted: Path) -> None:
    words = ("index", "build", "--representation", "cls,nonsense")
    commands = tuple(Command(line) for line in spread(words, ["representation"]))
    with pytest.raises(PaError, match="1 commands failed") as failed:
        submit(Workspace(), commands, local=True)
    assert "--representation nonsense" in str(failed.value)
    actual = submit(Workspace(), commands, local=True, dry_run=True)
    assert [plan.tasks for plan in actual.commands] == [0, 1]
    actual = submit(Workspace(), commands, local=True, dry_run=True, again=True)
    assert [plan.tasks for plan in actual.commands] == [1, 1]


def test_command_with_missing_output_is_repeated(extracted: Path) -> None:
    words = ("evaluate", "retrieval", "--target", "label")
    commands = (Command(("index", "build")), Command(words))
    submit(Workspace(), commands, local=True)
    modes = {"local": True, "dry_run": True}
    assert submit(Workspace(), commands, **modes).nothing_to_do
    result, *_ = (extracted / "results" / "retrieval").glob("*.json")
    result.unlink()  # as a repair does that finds it damaged
    assert [plan.tasks for plan in submit(Workspace(), commands, **modes).commands] == [0, 1]
    shutil.rmtree(extracted / "indexes")
    assert [plan.tasks for plan in submit(Workspace(), commands, **modes).commands] == [1, 1]


def test_places_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = workers.environments(["2", "GPU-f00"], 3)
    assert [folder["CUDA_VISIBLE_DEVICES"] for folder in gpus] == ["2", "GPU-f00", "2"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert workers.environments([], 3) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert workers.environments([], 2) == [{}, {}]


def test_gpus_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-f00")
    assert visible_gpus() == ["3", "GPU-f00"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpus() == []


def test_commands_do_not_hear_the_announcement_of_a_time_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SIGUSR2 kills by default; a process started for a task has it blocked, and only there."""
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.setattr(cluster, "sys", SimpleNamespace(executable=fake_python(tmp_path, code)))
    with (tmp_path / "out").open("wb") as output:
        assert cluster.start_command(("status",), output=output).wait(30) == 0
    assert (tmp_path / "out").read_text() == "3\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & cluster.ANNOUNCEMENTS == set()


def test_ending_a_task_ends_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(cluster, "sys", SimpleNamespace(executable=fake_python(tmp_path, code)))

    def requeued(number: int, frame: object) -> None:
        raise SystemExit(-1)  # what submitit's handler does

    before = signal.signal(signal.SIGALRM, requeued)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(SystemExit):
            cluster.run_command(("status",))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def fake_python(folder: Path, code: str) -> str:
    """A program that runs some code, whatever it is asked."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return str(script)


def test_steps_stop_at_the_first_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    codes = {"one": 0, "two": 6, "three": -9, "four": 0}
    run: list[str] = []
    monkeypatch.setattr(
        cluster, "run_command", lambda words, _: run.append(words[0]) or codes[words[0]]
    )
    markers = tuple(tmp_path / name for name in codes)
    with pytest.raises(PaError, match="pa three: exit code -9"):
        Steps(tuple((name,) for name in codes), markers)()
    assert run == ["one", "two", "three"]
    assert [marker.exists() for marker in markers] == [True, True, False, False]
    marker = cluster.read_marker(markers[1])
    assert marker is not None
    assert (marker["command"], marker["code"]) == ("pa two", 6)
    assert cluster.read_marker(markers[2]) is None


# -- the command line -------------------------------------------------------------------------


def test_options_are_accepted_before_and_after_command(pa: Run, workspace_folder: Path) -> None:
    plans = [
        pa("submit", "--json", *words).json
        for words in (
            ("extract", "--shard-rows", 49, "--tasks", 4, "--dry-run", "--time", "10"),
            ("--tasks", 4, "--time", "10", "--dry-run", "--", "extract", "--shard-rows", 49),
        )
    ]
    assert plans[0]["commands"] == plans[1]["commands"]
    assert plans[0]["tasks"] == 4
    assert "#SBATCH --time=10" in plans[0]["script"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("extract", "--encodr", "dino"), 2, "No such option"),
        (("extract", "--limit", "none"), 2, "not a valid integer"),
        (("index",), 2, "not complete"),
        (("nothing",), 2, "No such command 'nothing'"),
        (("submit", "extract"), 2, "does not run on a cluster"),
        (("extract", "--task-id", "1", "--task-count", "2"), 2, "give --tasks"),
        (("extract", "--then", "index buld"), 2, "No such command 'buld'"),
        (("extract", "--then", "index 'build"), 2, "No closing quotation"),
        (("extract", "--time", "soon"), 2, "time limit 'soon'"),
        (("index", "build", "--each", "encoder"), 2, "has no --encoder"),
    ],
)
def test_mistakes_show_before_anything_is_submitted(
    pa: Run, workspace_folder: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    outcome = pa("submit", *words, "--dry-run")
    assert outcome.code == code
    assert message in outcome.err


def test_extract_as_one_of_several(pa: Run, workspace_folder: Path) -> None:
    outcome = pa("extract", "--shard-rows", 49, "--task-id", 1, "--task-count", 3)
    assert outcome.code == 0
    assert "task 1 of 3" in outcome.err
    assert pa("extract", "--task-id", 1).code == 2
    assert pa("extract", "--task-id", 3, "--task-count", 3).code == 2
