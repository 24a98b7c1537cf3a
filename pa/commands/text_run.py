"""A study and its steps as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.tasks.run import Ended
    from pa.tasks.study import Study
    from pa.tasks.study_plan import StudyPlan


def left_out(study: Study) -> list[str]:
    """What this workspace lacks for the whole study, one line each."""
    return [one.said for one in study.left_out]


def steps(study: Study) -> str:
    """Every step in order, and whether it is done."""
    rows = [
        [str(place), "done" if step.name in study.done else "", step.command]
        for place, step in enumerate(study.steps, 1)
    ]
    return "\n".join([table(["step", "state", "command"], rows, "r"), _count(study)])


def plan(found: StudyPlan) -> str:
    """The steps in order, with what the extractions write and take."""
    rows = []
    for place, step in enumerate(found.study.steps, 1):
        made = found.plans.get(step.name)
        rows.append(
            [
                str(place),
                "done" if step.name in found.study.done else "",
                step.name,
                f"{sum(store.rows_to_do for store in made.stores):,}" if made else "",
                size(made.bytes) if made else "",
                _time(made.seconds) if made else "",
            ]
        )
    lines = [
        *left_out(found.study),
        table(["step", "state", "what", "rows", "bytes", "time"], rows, "r  rrr"),
        _count(found.study),
    ]
    free = "" if found.free is None else f"; free on the disk: {size(found.free)}"
    lines.append(
        f"features: {size(found.bytes)}, {_time(found.seconds)} for one process at the pace of "
        f"earlier runs here{free}"
    )
    lines.append("probes and scores: their time shows with the first of each kind")
    return "\n".join(lines)


def ended(one: Ended) -> str:
    """One line when a step ends."""
    took = f" in {duration(one.seconds)}" if one.seconds else ""
    why = f": {one.why}" if one.why else ""
    return f"{one.state:<8} {one.step.name}{took}{why}"


def _count(study: Study) -> str:
    return f"{len(study.steps)} steps, {len(study.done)} done, {len(study.to_do)} to do"


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else duration(seconds)
