"""The commands that produce every number of the paper's tables, in the order they run.

A step is one `pa` command. `study_steps` lists all of them for some encoders, datasets and one
protocol; `steps_for` those of a single cell. The command lines are data: `steps.toml`.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

from pa.errors import UnknownNameError, UsageError
from pa.report.cells import Cell, encoders, published

PROTOCOLS = ("paper", "released")  # those that name rules for every task
PROJECTED = ("mocov3", "dino", "ibot")  # Table 3 has no projected column of the others
RELEASED_LAYERS = "3,5,7,11"  # blocks from 0 that the released code segments from

_TEXT = resources.files("pa.study").joinpath("steps.toml").read_text(encoding="utf-8")
STUDY: dict[str, Any] = tomllib.loads(_TEXT)
DATASETS: dict[str, dict[str, str]] = STUDY["datasets"]  # in the order of the steps
PARTS = [name for name, entry in DATASETS.items() if entry["kind"] == "parts"]


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
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value}: expected 1 or more.")


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

    @cached_property
    def options(self) -> dict[str, str]:
        """The options of the command and their values; "" for a flag."""
        pairs = zip(self.words, (*self.words[1:], "--"), strict=True)
        return {
            word[2:]: "" if following.startswith("--") else following
            for word, following in pairs
            if word.startswith("--")
        }

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
    scale: Scale | None = None,
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
            values = _values(encoder, dataset, protocol, scale or Scale())
            for entry in STUDY["steps"]:
                if entry["kind"] == DATASETS[dataset]["kind"]:
                    for step in _steps(entry, values):
                        steps.setdefault(step.name, step)  # several steps share an extraction
    return list(steps.values())


def steps_for(cell: Cell, protocol: str = "paper") -> list[Step]:
    """Return the steps that fill a cell, in order; the last one measures the number."""
    kind = DATASETS[cell.dataset]["kind"]
    (entry,) = (item for item in STUDY["steps"] if item["kind"] == kind and _fills(item, cell))
    return _steps(entry, _values(cell.encoder, cell.dataset, protocol, Scale()))


def _fills(entry: Mapping[str, Any], cell: Cell) -> bool:
    task, probe = entry.get("fills"), entry.get("probe", cell.probe)
    return task is not None and cell.task.endswith(task) and cell.probe == probe


def _values(encoder: str, dataset: str, protocol: str, scale: Scale) -> dict[str, Any]:
    """Return what the words in braces of `steps.toml` stand for; None leaves their option out."""
    splits, is_released = DATASETS[dataset], protocol == "released"
    projected = ",projected" if encoder in PROJECTED else ""
    vectors = f"cls,pooled{projected}"
    # The retrieval database of COCO is also what its probes train on, patch by patch.
    is_shared = splits.get("database") == splits.get("train") and protocol == "paper"
    return {
        **splits,
        **vars(scale),
        "seeds": None if scale.seeds == 1 else scale.seeds,
        "encoder": encoder,
        "dataset": dataset,
        "protocol": protocol,
        "train_protocol": "released-train" if is_released else protocol,
        "database_features": f"{vectors},patch" if is_shared else vectors,
        "probe_features": f"{vectors},patch",
        "pixel_features": "layers" if is_released else "patch",
        "layers": RELEASED_LAYERS if is_released else None,
        "indexed": f"pooled{projected}",
    }


def _steps(entry: Mapping[str, Any], values: Mapping[str, Any]) -> list[Step]:
    """Return the extractions that an entry of `steps.toml` reads from, then its step."""
    encoder, dataset = values["encoder"], values["dataset"]
    needed = []
    for name in entry["reads"]:
        extraction = Step("", _fill(STUDY["extractions"][name], values), encoder, dataset)
        chosen = extraction.options
        crops = f"{chosen['views']} crops" if "views" in chosen else None
        layers = "layers" if "layers" in chosen else None
        words = [chosen["split"], chosen["view"], chosen.get("protocol"), crops, layers]
        title = " ".join(["extract", dataset, *filter(None, words), encoder])
        needed.append(Step(title, extraction.words, encoder, dataset))
    cells = (cell for cell in published() if (cell.encoder, cell.dataset) == (encoder, dataset))
    measuring = Step(
        f"{entry['name'].format_map(values)} {dataset} {encoder}",
        _fill(entry["command"], values),
        encoder,
        dataset,
        tuple(step.name for step in needed),
        tuple(cell.key for cell in cells if _fills(entry, cell)),
    )
    return [*needed, measuring]


def _fill(line: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    words: list[str] = []
    for word in line.split():
        value = values[word[1:-1]] if word.startswith("{") else word
        if value is None:
            words.pop()  # the option, which is the word before
        else:
            words.append(str(value))
    return tuple(words)
