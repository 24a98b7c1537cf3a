"""`pa run paper`: the whole study as its own commands, one after the other."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import (
    EXIT_PARTLY_DONE,
    MissingError,
    PaError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from pa.paper.state import is_done, log_path, options, record
from pa.paper.steps import DATASETS, REPORT, Scale, Step, study
from pa.progress import Progress

if TYPE_CHECKING:
    from pa.commands.plan import Plan

WELL = (0, EXIT_PARTLY_DONE)
SHOWN_LINES = 12


@dataclass(frozen=True)
class StudyRequest:
    """What `pa run paper` was asked; empty = the encoders and datasets that are set up."""

    encoders: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    protocol: str = "paper"
    scale: Scale = field(default_factory=Scale)
    keep_going: bool = False
    figures: bool = True


@dataclass(frozen=True)
class LeftOut:
    """What the study would need and this workspace does not have: and the setting that gives it."""

    what: str
    why: str

    @property
    def said(self) -> str:
        return f"left out: {self.what}: {self.why}"


@dataclass(frozen=True)
class Study:
    """The steps that can run here, in order; which of them are done; and what was left out."""

    steps: list[Step]
    done: frozenset[str]
    left_out: list[LeftOut]

    @property
    def to_do(self) -> list[Step]:
        return [step for step in self.steps if step.name not in self.done]

    def to_json(self) -> dict[str, Any]:
        return {
            "steps": [
                {
                    "name": step.name,
                    "command": step.command,
                    "done": step.name in self.done,
                    "fills": list(step.fills),
                }
                for step in self.steps
            ],
            "left_out": [vars(one) for one in self.left_out],
        }


def read_study(config: Config, request: StudyRequest) -> Study:
    """The steps of the study in this workspace.

    Raises `UnknownNameError` for an encoder or a dataset that there is not, `MissingError` where
    nothing of it can be run here, with what is missing.
    """
    left_out: list[LeftOut] = []
    encoders = list(_encoders(config, request, left_out))
    splits = dict(_datasets(config, request, left_out))
    steps = study(encoders, list(splits), request.protocol, request.scale)
    lacking = _lacking(steps, splits, left_out)
    possible = [step for step in steps if step.name not in lacking]
    read = {name for step in possible for name in step.after}
    kept = [step for step in possible if step.name in read or not step.is_extraction]
    if not kept:
        listed = "\n".join(f"  {one.what}: {one.why}" for one in left_out)
        raise MissingError(f"nothing of the study can be run in {config.workspace}:\n{listed}")
    _refuse_other_limits(config, kept, request.scale.limit)
    if request.figures:
        kept += _figures(config, request, kept, left_out)
    by_name = {step.name: step for step in kept}
    done: set[str] = set()
    for step in kept:  # each stands after those it reads from
        if done.issuperset(step.after) and is_done(config, step, by_name):
            done.add(step.name)
    return Study([*kept, REPORT], frozenset(done), left_out)


def _figures(
    config: Config, request: StudyRequest, steps: Sequence[Step], left_out: list[LeftOut]
) -> list[Step]:
    """The figures of these steps; those that cannot be drawn are left out, with the reason."""
    from pa.paper.figures import figures
    from pa.report.found import read_workspace

    try:
        workspace = read_workspace(config.workspace, config.results, config.features)
    except MissingError:
        workspace = None
    found = figures(steps, request.protocol, workspace)
    left_out += [LeftOut(one.what, one.why) for one in found.not_drawn]
    return found.steps


def _refuse_other_limits(config: Config, steps: Sequence[Step], limit: int | None) -> None:
    """Raise `UsageError` where a workspace holds stores of more images than a scaled-down study
    asks for: scores and probes would read those."""
    from pa.data import stores
    from pa.data.stores import StoreQuery

    if limit is None:
        return
    ours = {(step.dataset, step.encoder) for step in steps if step.is_extraction}
    for store in stores.find(config.features, StoreQuery()):
        other = store.spec.limit
        if (store.spec.dataset, store.encoder) in ours and (other is None or other > limit):
            raise UsageError(
                f"--limit {limit}: {config.workspace} holds {store.title}, of "
                f"{'all' if other is None else other} images, and scores would be of that one. "
                f"Give a scaled-down study a workspace of its own: pa -w DIR run paper …"
            )


def _encoders(config: Config, request: StudyRequest, left_out: list[LeftOut]) -> Iterator[str]:
    from pa.commands.encoders import find_checkpoint
    from pa.extract.encoders import ENCODERS
    from pa.report.cells import encoders

    known = {*encoders(), *ENCODERS, *config.settings.encoders}
    for name in request.encoders:
        if name not in known and not name.startswith("timm/"):
            raise UnknownNameError("encoder", name, known, "Any other is named timm/ARCHITECTURE.")
    for name in request.encoders or encoders():
        found = find_checkpoint(config, name, None)
        if name.startswith("timm/") or (found is not None and found.is_file()):
            yield name
            continue
        why = (
            f'no checkpoint. Set [encoders.{name}] checkpoint = "…" in {config.file}, or: '
            f"pa encoders fetch {name}"
            if found is None
            else f"its checkpoint {found} is not there"
        )
        left_out.append(LeftOut(f"encoder {name}", why))


def _datasets(
    config: Config, request: StudyRequest, left_out: list[LeftOut]
) -> Iterator[tuple[str, list[str]]]:
    """The datasets of the study that lie somewhere, and the splits each has."""
    from pa.commands.choose import dataset_kind, dataset_root
    from pa.data.datasets import DATASETS as KINDS

    for name in request.datasets:
        if name not in DATASETS:
            raise UnknownNameError("dataset of the study", name, DATASETS)
    for name in request.datasets or DATASETS:
        if name not in config.settings.datasets:
            why = f'set [datasets.{name}] root = "…" in {config.file}'
            left_out.append(LeftOut(f"dataset {name}", why))
            continue
        root = dataset_root(config, name, None).expanduser()
        splits = KINDS[dataset_kind(config, name)].splits(root) if root.is_dir() else []
        if splits:
            yield name, splits
        else:
            left_out.append(LeftOut(f"dataset {name}", f"no split of it in {root}"))


def _lacking(
    steps: Sequence[Step], splits: dict[str, list[str]], left_out: list[LeftOut]
) -> set[str]:
    """The steps of splits that are not there, and those that would read what they make."""
    lacking: set[str] = set()
    told: set[tuple[str, str]] = set()
    for step in steps:
        split = options(step).get("split", "")
        if step.is_extraction and step.dataset and split not in splits[step.dataset]:
            lacking.add(step.name)
            if (step.dataset, split) not in told:
                told.add((step.dataset, split))
                there = ", ".join(splits[step.dataset])
                what = f"dataset {step.dataset}, split {split}"
                left_out.append(LeftOut(what, f"it is not there, only {there}"))
        elif any(name in lacking for name in step.after):
            lacking.add(step.name)
    return lacking


# -- plan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyPlan:
    """What the extractions that are left will write; the study around it."""

    study: Study
    plans: dict[str, Plan]

    @property
    def bytes(self) -> int:
        return sum(plan.bytes for plan in self.plans.values())

    @property
    def free(self) -> int | None:
        return next((plan.free for plan in self.plans.values()), None)

    @property
    def seconds(self) -> float | None:
        """Of one process for all extractions; None where the pace of one is not known."""
        each = [plan.seconds for plan in self.plans.values()]
        return None if None in each else sum(value for value in each if value is not None)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.study.to_json(),
            "extractions": {name: plan.to_json() for name, plan in self.plans.items()},
            "bytes": self.bytes,
            "free": self.free,
            "seconds": self.seconds,
        }


def plan_paper(config: Config, request: StudyRequest, progress: Progress) -> StudyPlan:
    """Bytes, files and time of the extractions that are left; every encoder is loaded for it.

    Raises what `read_study` raises.
    """
    from pa.commands.extract import ExtractRequest
    from pa.commands.plan import plan_extract

    found = read_study(config, request)
    extractions = [step for step in found.to_do if step.is_extraction]
    progress.start("planning extractions", len(extractions), "stores")
    plans = {}
    try:
        for step in extractions:
            plans[step.name] = plan_extract(config, _request(ExtractRequest, step), progress)
            progress.advance(1)
    finally:
        progress.stop()
    return StudyPlan(found, plans)


def check_room(plan: StudyPlan) -> None:
    """Raise `StorageError` where the disk does not hold all that the study will write."""
    if plan.free is not None and plan.bytes > plan.free:
        raise StorageError(
            f"the study needs {plan.bytes / 1e9:.2f} GB for features, and the disk has "
            f"{plan.free / 1e9:.2f} GB free. Choose fewer with --encoders or --datasets, or set "
            f'storage = "int8" in pa.toml: half the bytes.'
        )


def _request(kind: type[Any], step: Step) -> Any:
    """The request of an extraction's command line."""
    from pa.commands.encoders import EncoderChoice

    given = options(step)
    layers = tuple(int(layer) for layer in given.get("layers", "").split(",") if layer)
    limit, views = given.get("limit"), given.get("views")
    return kind(
        encoders=(given["encoder"],),
        encoder=EncoderChoice(layers=layers),
        dataset=given["dataset"],
        split=given["split"],
        views=(given["view"],),
        protocol=given.get("protocol"),
        n_views=None if views is None else int(views),
        representations=tuple(filter(None, given.get("features", "").split(","))),
        limit=None if limit is None else int(limit),
        alongside="alongside" in given,
    )


# -- run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a step ended: `state` is done, ran, failed or skipped (a step before it failed)."""

    step: Step
    state: str
    seconds: float = 0.0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.step.name,
            "command": self.step.command,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "why": self.why,
        }


class StepError(PaError):
    """A step of the study failed; its exit code is the step's own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_paper(config: Config, request: StudyRequest, progress: Progress) -> Iterator[Ended]:
    """Run the steps that are not done, each as a process of its own, and tell of each.

    As processes: every step begins with the memory of an empty program, can be killed and typed by
    hand, and is exactly what the script shows. A step that failed stops the study with `StepError`,
    or with `keep_going` only the steps that read from it; nothing reads from a figure, so one that
    failed stops nothing. Raises what `read_study` raises.
    """
    found = read_study(config, request)
    by_name = {step.name: step for step in found.steps}
    failed: set[str] = set()
    for one in found.left_out:
        progress.note(one.said)
    number = 0
    for step in found.steps:
        if step.name in found.done:
            yield Ended(step, "done")
            continue
        number += 1
        if broken := [name for name in step.after if name in failed]:
            failed.add(step.name)
            yield Ended(step, "skipped", why=f"{broken[0]} failed")
            continue
        progress.note(f"[{number}/{len(found.to_do)}] {step.command}")
        began = time.perf_counter()
        code, tail = _run(config, step, by_name)
        seconds = time.perf_counter() - began
        if code in WELL:
            yield Ended(step, "ran", seconds)
            continue
        failed.add(step.name)
        last = tail.splitlines()[-1] if tail else ""
        yield Ended(step, "failed", seconds, f"exit code {code}, {log_path(config, step)}: {last}")
        if not request.keep_going and not step.is_figure:
            raise StepError(
                f"{step.command}\nended with exit code {code}:\n{tail}\nIts output: "
                f"{log_path(config, step)}. The same command goes on from here; --keep-going runs "
                f"the steps that do not need this one.",
                code if code > 0 else 1,
            )


def _run(config: Config, step: Step, by_name: dict[str, Step]) -> tuple[int, str]:
    """Run one step; its exit code and its last lines. stdout is its JSON, stderr its log."""
    log = log_path(config, step)
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pa", "--workspace", str(config.workspace), *step.words]
    with log.open("w", encoding="utf-8") as errors:
        errors.write(f"$ {step.command}\n")
        errors.flush()
        process = subprocess.Popen(
            [*words, "--json"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            printed, _ = process.communicate()
        except KeyboardInterrupt:
            process.wait()  # the interrupt reached it too, and it cleans up
            raise
    if process.returncode in WELL:
        record(config, step, by_name, printed)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    return process.returncode, "\n".join(lines[-SHOWN_LINES:])


# -- as text --------------------------------------------------------------------------------------


def script(config: Config, study: Study) -> str:
    """The steps that are left as a plain shell script, a block for each encoder and dataset."""
    from pa.paper.script import Line, shell_script
    from pa.report.cells import cell

    lines = [
        Line(step.command, step.encoder, step.dataset, tuple(cell(key) for key in step.fills))
        for step in study.to_do
    ]
    return shell_script(
        ["The steps of the study that are left, in order."], config.workspace, lines
    )


def submissions(study: Study, tasks: int) -> list[str]:
    """The steps that are left as `pa submit` lines that depend on nothing outside themselves.

    One line per encoder and dataset: its first extraction is the job array, and the job after the
    array does all that follows, in order. Figures and the report are of many such lines together:
    they are left to `pa run paper` once those have ended.
    """
    import shlex

    groups: dict[tuple[str | None, str | None], list[Step]] = {}
    for step in (one for one in study.to_do if one is not REPORT and not one.is_figure):
        groups.setdefault((step.encoder, step.dataset), []).append(step)
    lines = []
    for steps in groups.values():
        first, *rest = sorted(steps, key=lambda step: not step.is_extraction)
        words = ["pa", "submit", *first.words]
        if first.is_extraction:
            words += ["--tasks", str(tasks)]
        for step in rest:
            words += ["--then", shlex.join(step.words)]
        lines.append(shlex.join(words))
    return lines


def submit_study(config: Config, study: Study, tasks: int, progress: Progress) -> None:
    """Submit what is left, line by line; see `submissions`. Raises `StepError` for a refusal."""
    import shlex

    for line in submissions(study, tasks):
        progress.note(line)
        words = shlex.split(line)[1:]
        command = [sys.executable, "-m", "pa", "--workspace", str(config.workspace), *words]
        if code := subprocess.run(command, check=False).returncode:
            raise StepError(
                f"{line}\nended with exit code {code}. What was submitted before stays; the same "
                f"command submits what is left.",
                code,
            )
