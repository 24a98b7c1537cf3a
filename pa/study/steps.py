"""Every number of the paper's tables as the commands that make it, in the order they run.

A step is one `pa` command, typed as a user would. `study` lists all of them for some encoders,
datasets and one protocol; `commands_for` those behind a single cell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pa.errors import UnknownNameError, UsageError
from pa.report.cells import Cell, Task, encoders, published

PROTOCOLS = ("paper", "released")

# Encoders that have a projector (Table 3 prints no projected part of the others).
PROJECTED = ("mocov3", "dino", "ibot")
SEGMENTED = ("ade20k", "ade20k-object", "ade20k-part", "pascal-object", "pascal-part", "lip")
# The blocks, counted from 0, whose raw outputs the released code segments from.
RELEASED_LAYERS = "3,5,7,11"
# The split that is the retrieval database, and those that train and test classifiers.
PARTS = {"cub": ("all", "train", "test"), "coco": ("train2017", "train2017", "val2017")}
DATASETS = ("imagenet", *PARTS, *SEGMENTED)


@dataclass(frozen=True)
class Scale:
    """How much of the study is done; the defaults are the paper's, or the code's.

    limit: images of each split, None = all. epochs and iterations: of the probes and of
    segmentation, None = those of the protocol. crops: cached training crops of each image, where
    the protocols draw a fresh one each time. seeds: of every classifier.
    """

    limit: int | None = None
    epochs: int | None = None
    iterations: int | None = None
    crops: int = 10
    seeds: int = 1

    def __post_init__(self) -> None:
        for name in ("limit", "epochs", "iterations", "crops", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: expected 1 or more.")

    @property
    def is_whole(self) -> bool:
        return (self.limit, self.epochs, self.iterations) == (None, None, None)


WHOLE = Scale()


@dataclass(frozen=True)
class Step:
    """One command of the study: `words` are those after `pa`.

    `name` tells steps apart and names the log; `after` are the names of the steps it reads from;
    `encoder` and `dataset` are what it needs, None where it needs none or several; `fills` the keys
    of the cells that it is the last step of; `read` the digests of results that it reads and no
    step made.
    """

    name: str
    words: tuple[str, ...]
    encoder: str | None = None
    dataset: str | None = None
    after: tuple[str, ...] = ()
    fills: tuple[str, ...] = field(default=(), compare=False)
    read: tuple[str, ...] = field(default=(), compare=False)

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(("pa", *self.words))

    @property
    def is_extraction(self) -> bool:
        return self.words[0] == "extract"

    @property
    def is_figure(self) -> bool:
        return self.words[0] == "figure"


# What is made of all results; it takes seconds, so it is made anew each time.
REPORT = Step("report", ("report",))


def study_steps(
    chosen: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    protocol: str = "paper",
    scale: Scale = WHOLE,
) -> list[Step]:
    """The steps of the study, each after those it needs.

    All encoders and datasets of the paper where none are named; other encoders may be named too.
    Raises `UnknownNameError` for a dataset, `UsageError` for a protocol that the study does not
    have.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r} of the study: {' or '.join(PROTOCOLS)}.")
    for name in datasets or ():
        if name not in DATASETS:
            raise UnknownNameError("dataset of the study", name, DATASETS)
    steps: dict[str, Step] = {}
    for dataset in DATASETS if datasets is None else dict.fromkeys(datasets):
        for encoder in encoders() if chosen is None else dict.fromkeys(chosen):
            for step in _steps(encoder, dataset, protocol, scale):
                steps.setdefault(step.name, step)
    return list(steps.values())


def commands_for(cell: Cell, protocol: str = "paper") -> list[str]:
    """The commands that fill a cell, in order; the last one makes the number."""
    task = _task(cell.encoder, cell.dataset, cell.task, cell.probe, protocol, WHOLE)
    return [step.command for step in task]


# -- tasks ----------------------------------------------------------------------------------------


def _steps(encoder: str, dataset: str, protocol: str, scale: Scale) -> Iterator[Step]:
    if dataset in PARTS:
        yield from _task(encoder, dataset, "retrieval", "none", protocol, scale)
        yield from _neighbours(encoder, dataset, protocol, scale)
        for probe in ("linear", "attentive"):
            yield from _task(encoder, dataset, "part-classification", probe, protocol, scale)
    elif dataset == "imagenet":
        yield from _gallery(encoder, scale)
        for probe in ("linear", "attentive"):
            yield from _task(encoder, dataset, "image-classification", probe, protocol, scale)
    else:
        yield from _task(encoder, dataset, "part-segmentation", "linear", protocol, scale)


def _task(
    encoder: str, dataset: str, task: Task, probe: str, protocol: str, scale: Scale
) -> list[Step]:
    """The extractions a number needs, then the step that makes it."""
    if task == "retrieval":
        return _retrieval(encoder, dataset, protocol, scale)
    if task.endswith("segmentation"):
        return _segmentation(encoder, dataset, protocol, scale)
    if task == "image-classification":
        return _image_probe(encoder, probe, scale)
    return _part_probe(encoder, dataset, probe, protocol, scale)


def _retrieval(encoder: str, dataset: str, protocol: str, scale: Scale) -> list[Step]:
    split = PARTS[dataset][0]
    made = _parts(encoder, dataset, split, protocol, scale, patch=_trains(dataset, split, protocol))
    words = ["evaluate", "retrieval", *_chosen(encoder, dataset, split, protocol)]
    return [made, _last(f"retrieval {protocol}", words, encoder, dataset, [made])]


def _neighbours(encoder: str, dataset: str, protocol: str, scale: Scale) -> list[Step]:
    made, _ = _retrieval(encoder, dataset, protocol, scale)
    split = PARTS[dataset][0]
    words = ["evaluate", "neighbours", *_chosen(encoder, dataset, split, protocol)]
    return [made, _last(f"neighbours {protocol}", words, encoder, dataset, [made])]


def _part_probe(encoder: str, dataset: str, probe: str, protocol: str, scale: Scale) -> list[Step]:
    """The released code trains on patches that are cut another way than those it tests on."""
    _, train, test = PARTS[dataset]
    cut = "released-train" if protocol == "released" else protocol
    needed = [
        _parts(encoder, dataset, train, cut, scale, patch=True),
        _parts(encoder, dataset, test, protocol, scale, patch=True),
    ]
    words = ["probe", probe, "--encoder", encoder, "--dataset", dataset]
    words += ["--train-split", train, "--test-split", test, "--protocol", protocol]
    words += _training(scale)
    return [*needed, _last(f"probe {probe} {protocol}", words, encoder, dataset, needed)]


def _image_probe(encoder: str, probe: str, scale: Scale) -> list[Step]:
    """Table 1 by the numbers of the appendix. One store for both probes: the linear one needs the
    class token alone, but two stores of one place would have to be told apart by hand."""
    needed = [
        _extract("imagenet", split, encoder, scale, "image", features="cls,patch")
        for split in ("train", "val")
    ]
    words = ["probe", probe, "--encoder", encoder, "--dataset", "imagenet", "--view", "image"]
    words += ["--train-split", "train", "--test-split", "val", "--protocol", "imagenet"]
    words += _training(scale)
    return [*needed, _last(f"probe {probe}", words, encoder, "imagenet", needed)]


def _gallery(encoder: str, scale: Scale) -> list[Step]:
    """The windows of Figures 2, 4, 7 and 8."""
    made = _extract("imagenet", "val", encoder, scale, "grid")
    vectors = "pooled,projected" if encoder in PROJECTED else "pooled"
    words = ["index", "build", "--encoder", encoder, "--dataset", "imagenet", "--split", "val"]
    words += ["--view", "grid", "--representation", vectors]
    return [made, _last("index", words, encoder, "imagenet", [made])]


def _segmentation(encoder: str, dataset: str, protocol: str, scale: Scale) -> list[Step]:
    released = protocol == "released"
    kept = {"features": "layers", "layers": RELEASED_LAYERS} if released else {"features": "patch"}
    needed = [
        _extract(dataset, split, encoder, scale, "windows", views=views, **kept)
        for split, views in (("train", scale.crops), ("val", 0))
    ]
    words = ["probe", "segmentation", "--encoder", encoder, "--dataset", dataset]
    words += ["--train-split", "train", "--test-split", "val", "--protocol", protocol]
    if scale.iterations is not None:
        words += ["--iterations", str(scale.iterations)]
    return [*needed, _last(f"segmentation {protocol}", words, encoder, dataset, needed)]


def _trains(dataset: str, split: str, protocol: str) -> bool:
    """Whether the retrieval database is also what classifiers train on, patch by patch."""
    return split == PARTS[dataset][1] and protocol == "paper"


# -- steps ----------------------------------------------------------------------------------------


def _parts(encoder: str, dataset: str, split: str, cut: str, scale: Scale, *, patch: bool) -> Step:
    """The part patches of a split, cut by a protocol; with their tokens where probes need them."""
    vectors = ["cls", "pooled", *(["projected"] if encoder in PROJECTED else [])]
    features = ",".join([*vectors, "patch"] if patch else vectors)
    return _extract(dataset, split, encoder, scale, "parts", protocol=cut, features=features)


def _extract(
    dataset: str,
    split: str,
    encoder: str,
    scale: Scale,
    view: str,
    *,
    protocol: str | None = None,
    features: str | None = None,
    layers: str | None = None,
    views: int | None = None,
) -> Step:
    words = ["extract", "--encoder", encoder, "--dataset", dataset, "--split", split]
    words += ["--view", view]
    for flag, value in (
        ("--protocol", protocol),
        ("--views", views),
        ("--layers", layers),
        ("--features", features),
        ("--limit", scale.limit),
    ):
        if value is not None:
            words += [flag, str(value)]
    # Both protocols of segmentation keep stores of one place, told apart by what they keep.
    if view == "windows":
        words.append("--alongside")
    told = [view, protocol, None if views is None else f"{views} crops", layers and "layers"]
    name = " ".join(["extract", dataset, split, *(str(one) for one in told if one), encoder])
    return Step(name, tuple(words), encoder, dataset)


def _last(
    what: str, words: Sequence[str], encoder: str, dataset: str, needed: Sequence[Step]
) -> Step:
    """The step that makes numbers of what the steps before it left."""
    return Step(
        f"{what} {dataset} {encoder}",
        tuple(words),
        encoder,
        dataset,
        tuple(dict.fromkeys(step.name for step in needed)),
        tuple(_filled(words, encoder, dataset)),
    )


def _filled(words: Sequence[str], encoder: str, dataset: str) -> Iterator[str]:
    """The cells whose number a command makes."""
    kind = words[1]
    for cell in published():
        if (cell.encoder, cell.dataset) != (encoder, dataset):
            continue
        if (
            (kind == "retrieval" and cell.task == "retrieval")
            or (kind == "segmentation" and cell.task.endswith("segmentation"))
            or (kind == cell.probe and cell.task.endswith("classification"))
        ):
            yield cell.key


def _chosen(encoder: str, dataset: str, split: str, protocol: str) -> list[str]:
    words = ["--encoder", encoder, "--dataset", dataset, "--split", split]
    return [*words, "--view", "parts", "--protocol", protocol]


def _training(scale: Scale) -> list[str]:
    words = [] if scale.epochs is None else ["--epochs", str(scale.epochs)]
    return words if scale.seeds == 1 else [*words, "--seeds", str(scale.seeds)]
