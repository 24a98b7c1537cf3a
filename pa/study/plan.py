"""Which steps of the study a workspace can run, which are done, and which are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pa.data.store import find
from pa.data.store.find import StoreSelector
from pa.errors import MissingError, StorageError, UnknownNameError, UsageError
from pa.progress import track
from pa.study.limits import region_selector, step_limit, too_small
from pa.study.state import is_done
from pa.study.steps import DATASETS, REPORT, Scale, Step, study_steps
from pa.workspace import EncoderOptions, Workspace

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan
    from pa.study.figures import Missing


@dataclass(frozen=True)
class StudyOptions:
    """What to run; empty selects the encoders and datasets that are configured."""

    encoders: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    protocol: str = "paper"
    scale: Scale = field(default_factory=Scale)
    figures: bool = True


@dataclass(frozen=True)
class SkippedItem:
    """A part of the study that this workspace cannot run, and the setting that would allow it."""

    what: str
    why: str

    @property
    def message(self) -> str:
        return f"skipped: {self.what}: {self.why}"


@dataclass(frozen=True)
class Study:
    """Steps that can run on this machine, names of the completed steps, and skipped items."""

    steps: list[Step]
    done: frozenset[str]
    skipped: list[SkippedItem]

    @property
    def remaining(self) -> list[Step]:
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
            "left_out": [vars(item) for item in self.skipped],
        }


def plan_study(workspace: Workspace, options: StudyOptions) -> Study:
    """Return the steps of the study in this workspace.

    Raises
    ------
    UnknownNameError
        If an encoder or a dataset does not exist.
    MissingError
        If nothing of the study can run here; the message lists what is missing.
    UsageError
        If the workspace holds stores of more images than `options.scale` selects.
    """
    skipped: list[SkippedItem] = []
    encoders = list(_encoders(workspace, options.encoders, skipped))
    splits = dict(_splits(workspace, options.datasets, skipped))
    limit = options.scale.limit
    steps = study_steps(encoders, list(splits), options.protocol, options.scale)
    why_not = dict(_without_split(steps, splits))
    if limit is not None:
        candidates = [step for step in steps if step.name not in why_not]
        why_not |= _too_small(workspace, candidates, limit)
    skipped += dict.fromkeys(why_not.values())  # once for all encoders
    impossible = set(why_not)
    for step in steps:  # in order: each step comes after those it reads from
        if not impossible.isdisjoint(step.after):
            impossible.add(step.name)
    # An extraction is kept only for a step that reads it.
    possible = [step for step in steps if step.name not in impossible]
    inputs = {name for step in possible for name in step.after}
    kept = [step for step in possible if step.name in inputs or not step.is_extraction]
    if not kept:
        listed = "\n".join(f"  {item.what}: {item.why}" for item in skipped)
        raise MissingError(f"nothing of the study can be run in {workspace.path}:\n{listed}")
    if limit is not None:
        _refuse_other_limits(workspace, kept, limit)
    if options.figures:
        figures, missing = _figures(workspace, kept, options.protocol)
        kept += figures
        skipped += [SkippedItem(what, why) for what, why in missing]
    by_name = {step.name: step for step in kept}
    # A step is done only if all it reads from is: a new store makes its scores outdated.
    done: set[str] = set()
    for step in kept:
        if done.issuperset(step.after) and is_done(workspace, step, by_name):
            done.add(step.name)
    return Study([*kept, REPORT], frozenset(done), skipped)


def _encoders(
    workspace: Workspace, names: Sequence[str], skipped: list[SkippedItem]
) -> Iterator[str]:
    """Yield the encoders that have a checkpoint."""
    from pa.extract.encoders import ENCODERS
    from pa.report.cells import encoders

    known = {*encoders(), *ENCODERS, *workspace.settings.encoders}
    for name in names:
        if name not in known and not name.startswith("timm/"):
            raise UnknownNameError("encoder", name, known, "Any other is named timm/ARCHITECTURE.")
    for name in names or encoders():
        checkpoint = workspace.checkpoint(name)
        if name.startswith("timm/") or (checkpoint is not None and checkpoint.is_file()):
            yield name
        elif checkpoint is None:
            why = (
                f'no checkpoint. Set [encoders.{name}] checkpoint = "…" in '
                f"{workspace.config.file}, or: pa encoders fetch {name}"
            )
            skipped.append(SkippedItem(f"encoder {name}", why))
        else:
            why = f"its checkpoint {checkpoint} does not exist"
            skipped.append(SkippedItem(f"encoder {name}", why))


def _splits(
    workspace: Workspace, names: Sequence[str], skipped: list[SkippedItem]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the datasets that have a root folder, and the splits of each."""
    from pa.data.datasets import DATASETS as KINDS

    for name in names:
        if name not in DATASETS:
            raise UnknownNameError("dataset of the study", name, DATASETS)
    for name in names or DATASETS:
        if name not in workspace.settings.datasets:
            why = f'set [datasets.{name}] root = "…" in {workspace.config.file}'
            skipped.append(SkippedItem(f"dataset {name}", why))
            continue
        root = workspace.dataset_root(name).expanduser()
        splits = KINDS[workspace.dataset_kind(name)].splits(root) if root.is_dir() else []
        if splits:
            yield name, splits
        else:
            skipped.append(SkippedItem(f"dataset {name}", f"no split of it in {root}"))


def _without_split(
    steps: Sequence[Step], splits: dict[str, list[str]]
) -> Iterator[tuple[str, SkippedItem]]:
    """Yield the names of extractions of splits that do not exist, and the reason."""
    for step in steps:
        split = step.options.get("split", "")
        if step.is_extraction and step.dataset and split not in splits[step.dataset]:
            existing = ", ".join(splits[step.dataset])
            what = f"dataset {step.dataset}, split {split}"
            yield step.name, SkippedItem(what, f"the split does not exist, only {existing}")


def _too_small(workspace: Workspace, steps: Sequence[Step], limit: int) -> dict[str, SkippedItem]:
    """Return the steps that need more than the first `limit` images of a split, by name."""
    reasons = too_small(workspace, steps)
    items = {}
    for step in steps:
        if step.name in reasons:
            what = f"{' '.join(step.words[:2])} of {step.dataset}"
            if step.is_extraction:
                options = step.options
                what = f"dataset {step.dataset}, split {options['split']}, view {options['view']}"
            why = f"--limit {limit} is too small: {reasons[step.name]}"
            items[step.name] = SkippedItem(what, why)
    return items


def _refuse_other_limits(workspace: Workspace, steps: Sequence[Step], limit: int) -> None:
    """Raise `UsageError` if stores hold more images than `limit`: later steps would read those."""
    extracted = {(step.dataset, step.encoder) for step in steps if step.is_extraction}
    for store in find.find(workspace.config.features, StoreSelector()):
        other = store.spec.limit
        is_larger = other is None or other > limit
        if (store.spec.dataset, store.encoder) in extracted and is_larger:
            raise UsageError(
                f"--limit {limit}: {workspace.path} holds {store.title}, of "
                f"{'all' if other is None else other} images, and scores would be of that one. "
                f"Use another workspace for a scaled-down study: pa -w DIR run paper …"
            )


def _figures(
    workspace: Workspace, steps: Sequence[Step], protocol: str
) -> tuple[list[Step], list[Missing]]:
    """Return the figures of these steps, and those that cannot be drawn."""
    from pa.report.collection import collect_results
    from pa.study.figures import figure_steps

    config = workspace.config
    try:
        collection = collect_results(config.workspace, config.results, config.features)
    except MissingError:
        collection = None
    return figure_steps(steps, protocol, collection)


# -- what the extractions will write -----------------------------------------------------------


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
    plans = {}
    for step in track(workspace.progress, steps, "planning extractions", len(steps), "stores"):
        values = step.options
        images, views = workspace.regions(region_selector(step))
        layers = tuple(int(layer) for layer in values.get("layers", "").split(",") if layer)
        options = ExtractOptions(
            representations=tuple(filter(None, values.get("features", "").split(","))),
            limit=step_limit(step),
            alongside="alongside" in values,
        )
        encoders = workspace.encoders((values["encoder"],), EncoderOptions(layers=layers))
        plans[step.name] = workspace.plan_extract(encoders, images, views, options)
    return StudyPlan(study, plans)
