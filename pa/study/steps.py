"""The commands that produce every number of the paper's tables, in the order they run.

A step is one `pa` command. `study_steps` lists all of them for some encoders, datasets and one
protocol; `commands_for` those of a single cell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pa.errors import UnknownNameError, UsageError
from pa.report.cells import Cell, Task, encoders, published

PROTOCOLS = ("paper", "released")  # those that name rules for every task

PROJECTED = ("mocov3", "dino", "ibot")  # Table 3 has no projected column of the others
SEGMENTED = ("ade20k", "ade20k-object", "ade20k-part", "pascal-object", "pascal-part", "lip")
RELEASED_LAYERS = "3,5,7,11"  # blocks from 0 that the released code segments from
# The split that is the retrieval database, and those that train and test classifiers.
PARTS = {"cub": ("all", "train", "test"), "coco": ("train2017", "train2017", "val2017")}
DATASETS = ("imagenet", *PARTS, *SEGMENTED)  # in the order of the steps


@dataclass(frozen=True)
class Scale:
    """The size of a study; the defaults are those of the paper or of the released code.

    `limit` is the number of images of each split, None for all; `epochs` of the probes and
    `iterations` of segmentation are None for those of the protocol. `crops` is the number of cached
    training crops per image, of which the protocols draw a new one each time.
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


WHOLE = Scale()  # nothing is reduced


@dataclass(frozen=True)
class Step:
    """One command of the study: `words` are those after `pa`.

    `name` is unique and names the log; `after` are the names of the steps it reads from; `encoder`
    and `dataset` are None if it needs none or several; `fills` are the keys of the cells that it
    fills; `read` the digests of results from outside the study that it reads.
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
        """The command line."""
        return shlex.join(("pa", *self.words))

    @property
    def is_extraction(self) -> bool:
        return self.words[0] == "extract"

    @property
    def is_figure(self) -> bool:
        return self.words[0] == "figure"


REPORT = Step("report", ("report",))  # takes seconds, so it is never skipped


def study_steps(
    chosen: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    protocol: str = "paper",
    scale: Scale = WHOLE,
) -> list[Step]:
    """Return the steps of the study, each after those it needs.

    None selects all encoders and datasets of the paper; other encoders are allowed. Raise
    `UnknownNameError` for another dataset, `UsageError` for another protocol.
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
    """Return the commands that fill a cell, in order; the last one measures the number."""
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
    """Return the extractions that a number needs, then the step that measures it."""
    if task == "retrieval":
        return _retrieval(encoder, dataset, protocol, scale)
    if task.endswith("segmentation"):
        return _segmentation(encoder, dataset, protocol, scale)
    if task == "image-classification":
        return _image_probe(encoder, probe, scale)
    return _part_probe(encoder, dataset, probe, protocol, scale)


def _retrieval(encoder: str, dataset: str, protocol: str, scale: Scale) -> list[Step]:
    split = PARTS[dataset][0]
    # The retrieval database of COCO is also what its probes train on, patch by patch.
    patch = split == PARTS[dataset][1] and protocol == "paper"
    extraction = _parts(encoder, dataset, split, protocol, scale, patch=patch)
    words = ["evaluate", "retrieval", *_chosen(encoder, dataset, split, protocol)]
    return [extraction, _last(f"retrieval {protocol}", words, encoder, dataset, [extraction])]


def _neighbours(encoder: str, dataset: str, protocol: str, scale: Scale) -> list[Step]:
    extraction, _ = _retrieval(encoder, dataset, protocol, scale)
    split = PARTS[dataset][0]
    words = ["evaluate", "neighbours", *_chosen(encoder, dataset, split, protocol)]
    return [extraction, _last(f"neighbours {protocol}", words, encoder, dataset, [extraction])]


def _part_probe(encoder: str, dataset: str, probe: str, protocol: str, scale: Scale) -> list[Step]:
    """Return the steps of a part probe; the released code cuts training patches by other rules."""
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
    """Return the steps of Table 1, with the recipe of the appendix.

    Both probes share a store: the linear one needs the class token alone, but users would have to
    choose between two stores of the same regions.
    """
    needed = [
        _extract("imagenet", split, encoder, scale, "image", features="cls,patch")
        for split in ("train", "val")
    ]
    words = ["probe", probe, "--encoder", encoder, "--dataset", "imagenet", "--view", "image"]
    words += ["--train-split", "train", "--test-split", "val", "--protocol", "imagenet"]
    words += _training(scale)
    return [*needed, _last(f"probe {probe}", words, encoder, "imagenet", needed)]


def _gallery(encoder: str, scale: Scale) -> list[Step]:
    """Return the steps of the windows of Figures 2, 4, 7 and 8."""
    extraction = _extract("imagenet", "val", encoder, scale, "grid")
    vectors = "pooled,projected" if encoder in PROJECTED else "pooled"
    words = ["index", "build", "--encoder", encoder, "--dataset", "imagenet", "--split", "val"]
    words += ["--view", "grid", "--representation", vectors]
    return [extraction, _last("index", words, encoder, "imagenet", [extraction])]


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


# -- steps ----------------------------------------------------------------------------------------


def _parts(encoder: str, dataset: str, split: str, cut: str, scale: Scale, *, patch: bool) -> Step:
    """Return the extraction of part patches; `patch` adds the tokens that probes need."""
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
    # The stores of both protocols of segmentation differ in their representations alone.
    if view == "windows":
        words.append("--alongside")
    parts = [view, protocol, None if views is None else f"{views} crops", layers and "layers"]
    name = " ".join(["extract", dataset, split, *(str(item) for item in parts if item), encoder])
    return Step(name, tuple(words), encoder, dataset)


def _last(
    what: str, words: Sequence[str], encoder: str, dataset: str, needed: Sequence[Step]
) -> Step:
    """Return the step that measures numbers from what the steps before it wrote."""
    return Step(
        f"{what} {dataset} {encoder}",
        tuple(words),
        encoder,
        dataset,
        tuple(dict.fromkeys(step.name for step in needed)),
        tuple(_filled(words, encoder, dataset)),
    )


def _filled(words: Sequence[str], encoder: str, dataset: str) -> Iterator[str]:
    """Yield the cells that a command fills."""
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
