"""What the extractions of a study will write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pa.errors import StorageError
from pa.study.limits import region_selector, step_limit
from pa.study.plan import Study
from pa.study.state import step_options
from pa.workspace import EncoderOptions, Workspace

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan


@dataclass(frozen=True)
class StudyPlan:
    """A study, and what each extraction that is left will write, by the name of its step."""

    study: Study
    plans: dict[str, ExtractPlan]

    @property
    def bytes(self) -> int:
        return sum(plan.bytes for plan in self.plans.values())

    @property
    def free(self) -> int | None:
        """Free bytes of the disk; None if nothing is extracted."""
        return next((plan.free for plan in self.plans.values()), None)

    @property
    def seconds(self) -> float | None:
        """Time of all extractions in one process; None if the throughput of one is not known."""
        each = [plan.seconds for plan in self.plans.values()]
        return None if None in each else sum(value for value in each if value is not None)

    def check_room(self) -> None:
        """Raise `StorageError` if the disk is too small for the features of the study."""
        if self.free is not None and self.bytes > self.free:
            raise StorageError(
                f"the study needs {self.bytes / 1e9:.2f} GB for features, and the disk has "
                f"{self.free / 1e9:.2f} GB free. Choose fewer with --encoders or --datasets, or "
                f'set storage = "int8" in pa.toml: half the bytes.'
            )

    def to_json(self) -> dict[str, Any]:
        return {
            **self.study.to_json(),
            "extractions": {name: plan.to_json() for name, plan in self.plans.items()},
            "bytes": self.bytes,
            "free": self.free,
            "seconds": self.seconds,
        }


def plan_extractions(workspace: Workspace, study: Study) -> StudyPlan:
    """Plan bytes, files and time of the extractions that are left. Loads every encoder."""
    from pa.extract.stores import ExtractOptions

    steps = [step for step in study.remaining if step.is_extraction]
    progress = workspace.progress
    progress.start("planning extractions", len(steps), "stores")
    plans = {}
    try:
        for step in steps:
            values = step_options(step)
            images, views = workspace.regions(region_selector(step))
            layers = tuple(int(layer) for layer in values.get("layers", "").split(",") if layer)
            options = ExtractOptions(
                representations=tuple(filter(None, values.get("features", "").split(","))),
                limit=step_limit(step),
                alongside="alongside" in values,
            )
            encoders = workspace.encoders((values["encoder"],), EncoderOptions(layers=layers))
            plans[step.name] = workspace.plan_extract(encoders, images, views, options)
            progress.advance(1)
    finally:
        progress.stop()
    return StudyPlan(study, plans)
