"""Which steps of the study are done, as recorded in files of the workspace."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pa.data.files import write_json
from pa.data.store import find
from pa.data.store.find import StoreSelector
from pa.data.store.reader import Store
from pa.errors import AmbiguousError, PaError
from pa.study.steps import Step
from pa.workspace import Workspace

FOLDER = "study"  # of the workspace: logs and records of steps
PATH_STARTS = ("/", ".", "results/", "indexes/", "figures/")  # of paths in JSON output


def extracted(workspace: Workspace, step: Step) -> Store | None:
    """Return the complete store of an extraction, or one that holds at least its features.

    Raise `AmbiguousError` if several of one recipe do, such as stores of changed images or labels:
    the commands of later steps could not choose either.
    """
    values = step.options
    selector = StoreSelector(
        dataset=values["dataset"],
        split=values["split"],
        view=values["view"],
        protocol=values.get("protocol"),
        encoder=values["encoder"],
    )
    representations = set(filter(None, values.get("features", "").split(",")))
    fitting = []
    for store in find.find(workspace.config.features, selector):
        spec = store.spec
        views = str(spec.view.get("views", ""))
        layers = ",".join(map(str, spec.encoder.get("options", {}).get("layers", [])))
        if (
            store.is_complete
            and representations <= set(spec.representations)
            and str(spec.limit or "") == values.get("limit", "")
            and values.get("layers", layers) == layers
            and values.get("views", views) == views
        ):
            fitting.append(store)
    first = fitting[0] if fitting else None
    alike = [store for store in fitting if first and store.spec.recipe == first.spec.recipe]
    if len(alike) > 1:
        listed = "\n".join(
            f"  {', '.join([str(store.path), *find.describe_row_differences(store, alike)])}"
            for store in alike
        )
        raise AmbiguousError(
            f"{len(alike)} stores fit {step.name}, and the study uses one. Keep one in this "
            f"workspace:\n{listed}"
        )
    return first


def is_done(workspace: Workspace, step: Step, by_name: Mapping[str, Step]) -> bool:
    """Return whether a step is done.

    An extraction is done if its store is complete; any other step if it ran with this command on
    the stores and results that exist now, and the files that it wrote still exist.
    """
    if step.is_extraction:
        return extracted(workspace, step) is not None
    try:
        fields = json.loads(_record(workspace, step).read_text(encoding="utf-8"))
        return bool(
            fields["command"] == step.command
            and fields["stores"] == _inputs(workspace, step, by_name)
            and all((workspace.path / file).exists() for file in fields["files"])
        )
    except (OSError, ValueError, LookupError, TypeError, PaError):
        return False


def record(workspace: Workspace, step: Step, by_name: Mapping[str, Step], output: str) -> None:
    """Record that a step succeeded, its inputs, and the files that its JSON output names."""
    try:
        files = sorted(set(_files(json.loads(output), workspace.path)))
    except ValueError:
        files = []
    fields = {
        "command": step.command,
        "stores": _inputs(workspace, step, by_name),
        "files": files,
        "fills": list(step.fills),
    }
    write_json(_record(workspace, step), fields)


def log_path(workspace: Workspace, step: Step) -> Path:
    """Return the file of the messages of a step."""
    return workspace.path / FOLDER / f"{_slug(step.name)}.log"


def _record(workspace: Workspace, step: Step) -> Path:
    # The same step at another scale is another command, with another record.
    tag = hashlib.sha256(step.command.encode()).hexdigest()[:8]
    return workspace.path / FOLDER / f"{_slug(step.name)}-{tag}.json"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)


def _inputs(workspace: Workspace, step: Step, by_name: Mapping[str, Step]) -> list[str]:
    """Return what a step reads: fingerprints of stores, and digests of the records of other steps
    and of results from outside the study."""
    inputs = []
    for name in step.after:
        before = by_name[name]
        if before.is_extraction:
            store = extracted(workspace, before)
            inputs.append("" if store is None else store.fingerprint)
            continue
        try:
            inputs.append(hashlib.sha256(_record(workspace, before).read_bytes()).hexdigest())
        except OSError:
            inputs.append("")
    return [*inputs, *step.read]


def _files(value: Any, workspace: Path) -> Iterator[str]:
    """Yield every path in a command's JSON that is a file of the workspace, relative to it."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _files(item, workspace)
    elif isinstance(value, str) and value.startswith(PATH_STARTS):
        path = (workspace / value).resolve()
        if path.is_file() and path.is_relative_to(workspace.resolve()):
            yield path.relative_to(workspace.resolve()).as_posix()
