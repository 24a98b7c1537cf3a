"""What of the study is there already, asked from files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pa.config import Config
from pa.data.files import write_json
from pa.data.store import find as stores
from pa.data.store.find import StoreSelector
from pa.data.store.reader import Store
from pa.errors import AmbiguousError, PaError
from pa.study.steps import Step

FOLDER = "study"


def options(step: Step) -> dict[str, str]:
    """The flags of a step's command and their values; "" for one without."""
    found: dict[str, str] = {}
    words = list(step.words)
    for place, word in enumerate(words):
        if word.startswith("--"):
            following = words[place + 1] if place + 1 < len(words) else "--"
            found[word[2:]] = "" if following.startswith("--") else following
    return found


def extracted(config: Config, step: Step) -> Store | None:
    """The complete store that an extraction would make, or one that holds as much.

    Raises `AmbiguousError` where several of one recipe do, such as stores of changed images or
    labels: the commands of later steps could not choose either.
    """
    given = options(step)
    query = StoreSelector(
        dataset=given["dataset"],
        split=given["split"],
        view=given["view"],
        protocol=given.get("protocol"),
        encoder=given["encoder"],
    )
    wanted = set(filter(None, given.get("features", "").split(",")))
    fitting = []
    for store in stores.find(config.features, query):
        spec = store.spec
        views = str(spec.view.get("views", ""))
        layers = ",".join(map(str, spec.encoder.get("options", {}).get("layers", [])))
        if (
            store.is_complete
            and wanted <= set(spec.representations)
            and str(spec.limit or "") == given.get("limit", "")
            and given.get("layers", layers) == layers
            and given.get("views", views) == views
        ):
            fitting.append(store)
    first = fitting[0] if fitting else None
    alike = [store for store in fitting if first and store.spec.recipe == first.spec.recipe]
    if len(alike) > 1:
        listed = "\n".join(
            f"  {', '.join([str(store.path), *stores.describe_row_differences(store, alike)])}"
            for store in alike
        )
        raise AmbiguousError(
            f"{len(alike)} stores fit {step.name}, and the study uses one. Keep one in this "
            f"workspace:\n{listed}"
        )
    return first


def is_done(config: Config, step: Step, by_name: Mapping[str, Step]) -> bool:
    """Whether a step need not run: its store is complete; or it ran with this command on the very
    stores and results that are there now, and the files that it wrote still are.

    Of the steps it comes after only what they left is asked, not whether they must run again.
    """
    if step.is_extraction:
        return extracted(config, step) is not None
    try:
        fields = json.loads(_record(config, step).read_text(encoding="utf-8"))
        return bool(
            fields["command"] == step.command
            and fields["stores"] == _inputs(config, step, by_name)
            and all((config.workspace / file).exists() for file in fields["files"])
        )
    except (OSError, ValueError, LookupError, TypeError, PaError):
        return False


def record(config: Config, step: Step, by_name: Mapping[str, Step], printed: str) -> None:
    """Note that a step ended well, on which stores, and which files its JSON names."""
    try:
        files = sorted(set(_files(json.loads(printed), config.workspace)))
    except ValueError:
        files = []
    fields = {
        "command": step.command,
        "stores": _inputs(config, step, by_name),
        "files": files,
        "fills": list(step.fills),
    }
    write_json(_record(config, step), fields)


def log_path(config: Config, step: Step) -> Path:
    """Where a step's output goes."""
    return config.workspace / FOLDER / f"{_slug(step.name)}.log"


def _record(config: Config, step: Step) -> Path:
    # Another scale is another command of the same name, and must not take its record's place.
    tag = hashlib.sha256(step.command.encode()).hexdigest()[:8]
    return config.workspace / FOLDER / f"{_slug(step.name)}-{tag}.json"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _inputs(config: Config, step: Step, by_name: Mapping[str, Step]) -> list[str]:
    """What a step reads: fingerprints of stores, digests of the records of other steps and of
    results that no step made."""
    found = []
    for name in step.after:
        before = by_name[name]
        if before.is_extraction:
            store = extracted(config, before)
            found.append("" if store is None else store.fingerprint)
            continue
        try:
            found.append(hashlib.sha256(_record(config, before).read_bytes()).hexdigest())
        except OSError:
            found.append("")
    return [*found, *step.read]


def _files(value: Any, workspace: Path) -> Iterator[str]:
    """Every path in a command's JSON that is a file of the workspace, relative to it."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _files(inner, workspace)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner, workspace)
    elif (isinstance(value, str) and value.startswith(("/", "."))) or _looks_written(value):
        path = workspace / str(value)
        if path.is_file() and path.resolve().is_relative_to(workspace.resolve()):
            yield path.resolve().relative_to(workspace.resolve()).as_posix()


def _looks_written(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("results/", "indexes/", "figures/"))
