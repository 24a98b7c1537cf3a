"""What `pa submit` planned and did, as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pa.cluster.slurm import command_line
from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.tasks.submit import Submission, SubmitRequest
    from pa.tasks.submit_plan import CommandPlan


def submission(result: Submission, request: SubmitRequest) -> str:
    """The plan, the jobs, and where to look."""
    lines = [line for plan in result.commands for line in _command(plan)]
    lines += [f"then {command_line(words)}" for words in result.then]
    if result.nothing_to_do:
        return "\n".join([*lines, "nothing to submit"])
    lines.append(_totals(result, request))
    if result.script is not None:
        lines += ["", result.script.rstrip()]
    if result.job is not None:
        lines.append(f"job {result.job}: {_tasks(result.tasks)}")
    if result.last is not None:
        after = f", when job {result.job} has ended" if result.job else ""
        lines.append(f"job {result.last}: finishes{after}")
    if result.job or result.last:
        jobs = ",".join(filter(None, (result.job, result.last)))
        lines.append(f"logs: {result.folder}; queue: squeue -j {jobs}; progress: pa status")
    if result.ended:
        lines.append(f"done; logs: {result.folder}")
    return "\n".join(lines)


def _command(plan: CommandPlan) -> list[str]:
    line = command_line(plan.command.words)
    if plan.done and not plan.stores:
        return [f"{line}\n  ended well on {plan.done}: not submitted without --again"]
    lines = [line]
    if plan.stores:
        rows = [
            [
                f"  {store.where}",
                store.encoder,
                f"{store.shards_to_do}/{store.shards}",
                str(store.rows_to_do),
                size(store.bytes),
                f"{store.pace.rows_per_second:.1f}" if store.pace else "unknown",
            ]
            for store in plan.stores
        ]
        heads = ["  store", "encoder", "shards to do", "rows", "bytes", "rows/s of one task"]
        lines += table(heads, rows, "  rrrr").splitlines()
    if plan.done:
        lines.append("  nothing to do: complete")
    return lines


def _totals(result: Submission, request: SubmitRequest) -> str:
    """Tasks, what each gets, and how long it takes."""
    asked = request.resources
    n_bytes = sum(store.bytes for plan in result.commands for store in plan.stores)
    parts = [_tasks(result.tasks)]
    if n_bytes:
        parts.append(f"{size(n_bytes)} to write")
    if any(plan.stores and not plan.done for plan in result.commands):
        seconds = result.seconds
        expected = (
            f"about {duration(seconds)} of encoding once all run"
            if seconds is not None
            else "unknown: no earlier run of this encoder and view here"
        )
        parts.append(f"expected time {expected}")
    if not request.local:
        gpus = f", {asked.gpus} GPU" if asked.gpus else ""
        parts.append(f"limit {duration(60 * asked.minutes)} each{gpus}")
    return "; ".join(parts)


def _tasks(n: int) -> str:
    return f"{n} task" if n == 1 else f"{n} tasks"
