"""Which steps of the study a workspace can run, which are done, and which are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pa.data.store import find
from pa.data.store.find import StoreSelector
from pa.errors import MissingError, UnknownNameError, UsageError
from pa.study.limits import too_small
from pa.study.state import is_done, step_options
from pa.study.steps import DATASETS, REPORT, Scale, Step, study_steps
from pa.workspace import Workspace


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
        return f"left out: {self.what}: {self.why}"


@dataclass(frozen=True)
class Study:
    """The steps that can run here, in order; the names of those that are done; what is skipped."""

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
    impossible = _without_split(steps, splits, skipped)
    if limit is not None:
        candidates = [step for step in steps if step.name not in impossible]
        impossible |= _too_small(workspace, candidates, limit, skipped)
    for step in steps:  # in order: each step comes after those it reads from
        if not impossible.isdisjoint(step.after):
            impossible.add(step.name)
    possible = [step for step in steps if step.name not in impossible]
    inputs = {name for step in possible for name in step.after}
    kept = [step for step in possible if step.name in inputs or not step.is_extraction]
    if not kept:
        listed = "\n".join(f"  {item.what}: {item.why}" for item in skipped)
        raise MissingError(f"nothing of the study can be run in {workspace.path}:\n{listed}")
    if limit is not None:
        _refuse_other_limits(workspace, kept, limit)
    if options.figures:
        kept += _figures(workspace, kept, options.protocol, skipped)
    by_name = {step.name: step for step in kept}
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
    steps: Sequence[Step], splits: dict[str, list[str]], skipped: list[SkippedItem]
) -> set[str]:
    """Return the names of extractions of splits that do not exist."""
    missing: set[str] = set()
    for step in steps:
        split = step_options(step).get("split", "")
        if step.is_extraction and step.dataset and split not in splits[step.dataset]:
            missing.add(step.name)
            existing = ", ".join(splits[step.dataset])
            what = f"dataset {step.dataset}, split {split}"
            item = SkippedItem(what, f"the split does not exist, only {existing}")
            if item not in skipped:  # once for all encoders
                skipped.append(item)
    return missing


def _too_small(
    workspace: Workspace, steps: Sequence[Step], limit: int, skipped: list[SkippedItem]
) -> set[str]:
    """Return the names of steps that need more than the first `limit` images of a split."""
    reasons = too_small(workspace, steps)
    for step in steps:
        if step.name in reasons:
            values = step_options(step)
            what = (
                f"dataset {step.dataset}, split {values['split']}, view {values['view']}"
                if step.is_extraction
                else f"{' '.join(step.words[:2])} of {step.dataset}"
            )
            item = SkippedItem(what, f"--limit {limit} is too small: {reasons[step.name]}")
            if item not in skipped:  # once for all encoders
                skipped.append(item)
    return set(reasons)


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
    workspace: Workspace, steps: Sequence[Step], protocol: str, skipped: list[SkippedItem]
) -> list[Step]:
    """Return the figures of these steps, and list those that cannot be drawn as skipped."""
    from pa.report.collection import collect_results
    from pa.study.figures import figure_steps

    config = workspace.config
    try:
        collection = collect_results(config.workspace, config.results, config.features)
    except MissingError:
        collection = None
    figures, missing = figure_steps(steps, protocol, collection)
    skipped += [SkippedItem(what, why) for what, why in missing]
    return figures
