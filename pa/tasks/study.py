"""Which steps of the study a workspace can do, which are done, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pa.config import Config
from pa.errors import MissingError, UnknownNameError, UsageError
from pa.study.state import is_done, options
from pa.study.steps import DATASETS, REPORT, Scale, Step, study


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
    if request.scale.limit is not None:
        there = [step for step in steps if step.name not in lacking]
        lacking |= _too_small(config, there, request.scale.limit, left_out)
    for step in steps:  # each stands after those it reads from
        if not lacking.isdisjoint(step.after):
            lacking.add(step.name)
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
    from pa.report.collection import collect_results
    from pa.study.figures import figures

    try:
        workspace = collect_results(config.workspace, config.results, config.features)
    except MissingError:
        workspace = None
    found = figures(steps, request.protocol, workspace)
    left_out += [LeftOut(one.what, one.why) for one in found.not_drawn]
    return found.steps


def _refuse_other_limits(config: Config, steps: Sequence[Step], limit: int | None) -> None:
    """Raise `UsageError` where a workspace holds stores of more images than a scaled-down study
    asks for: scores and probes would read those."""
    from pa.data.store import find as stores
    from pa.data.store.find import StoreSelector

    if limit is None:
        return
    ours = {(step.dataset, step.encoder) for step in steps if step.is_extraction}
    for store in stores.find(config.features, StoreSelector()):
        other = store.spec.limit
        if (store.spec.dataset, store.encoder) in ours and (other is None or other > limit):
            raise UsageError(
                f"--limit {limit}: {config.workspace} holds {store.title}, of "
                f"{'all' if other is None else other} images, and scores would be of that one. "
                f"Give a scaled-down study a workspace of its own: pa -w DIR run paper …"
            )


def _encoders(config: Config, request: StudyRequest, left_out: list[LeftOut]) -> Iterator[str]:
    from pa.extract.encoders import ENCODERS
    from pa.report.cells import encoders
    from pa.tasks.encoders import find_checkpoint

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
    from pa.data.datasets import DATASETS as KINDS
    from pa.tasks.choose import dataset_kind, dataset_root

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
    """The extractions of splits that are not there."""
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
    return lacking


def _too_small(
    config: Config, steps: Sequence[Step], limit: int, left_out: list[LeftOut]
) -> set[str]:
    """The steps that the first `limit` images of a split are too few for."""
    from pa.tasks.study_rows import too_small

    reasons = too_small(config, steps)
    for step in steps:
        if step.name in reasons:
            given = options(step)
            what = (
                f"dataset {step.dataset}, split {given['split']}, view {given['view']}"
                if step.is_extraction
                else f"{' '.join(step.words[:2])} of {step.dataset}"
            )
            item = LeftOut(what, f"--limit {limit} is too small: {reasons[step.name]}")
            if item not in left_out:  # of another encoder, for the same reason
                left_out.append(item)
    return set(reasons)
