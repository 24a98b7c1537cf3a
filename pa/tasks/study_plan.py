"""`pa run paper --plan`: what the extractions of the study that are left will write and take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import StorageError
from pa.progress import Progress
from pa.tasks.study import Study, StudyRequest, read_study
from pa.tasks.study_rows import extract_request

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan


@dataclass(frozen=True)
class StudyPlan:
    """What the extractions that are left will write; the study around it."""

    study: Study
    plans: dict[str, ExtractPlan]

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
    from pa.tasks.extract import plan as plan_extract

    found = read_study(config, request)
    extractions = [step for step in found.to_do if step.is_extraction]
    progress.start("planning extractions", len(extractions), "stores")
    plans = {}
    try:
        for step in extractions:
            plans[step.name] = plan_extract(config, extract_request(step), progress)
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
