"""`pa status`: show the progress of every store."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options

if TYPE_CHECKING:
    from pa.data.store.find import StoreSelector
    from pa.data.store.reader import Store
    from pa.maintenance.status import StoreStatus
    from pa.workspace import Workspace

WATCH_SECONDS = 5.0  # rare enough to be no load on a file server
HEADS = ("store", "encoder", "fingerprint", "rows", "state", "bad images", "rows/s", "ETA", "size")


@click.command()
@options.stores
@click.option(
    "--watch",
    is_flag=False,
    flag_value=WATCH_SECONDS,
    type=options.Finite(0.1),
    metavar="[SECONDS]",
    help="Repeat until all stores are complete, every 5 seconds by default.",
)
@options.as_json
@options.workspace
def status(
    workspace: Workspace, selector: StoreSelector, watch: float | None, as_json: bool
) -> None:
    """Show the progress, speed, size and number of bad images of every store.

    All values are read from files, so work of other machines is included. The ETA is unknown
    without an active writer.

    \b
    pa status
    pa status --watch                     live in a terminal, lines elsewhere
    pa status --watch 60 --json           one JSON object per line and minute
    """
    from pa.maintenance.status import status

    def look() -> list[StoreStatus]:
        return status(workspace, selector, required=watch is None)

    def fields(entries: list[StoreStatus]) -> dict[str, Any]:
        stores = [entry.to_json() for entry in entries]
        return {"workspace": str(workspace.path), "stores": stores}

    def text(entries: list[StoreStatus]) -> str:
        return status_text(entries) or empty_text(workspace)

    if watch is not None:
        console.watch(
            look,
            seconds=watch,
            live=None if as_json else text,
            line=(lambda entries: json.dumps(fields(entries), ensure_ascii=False))
            if as_json
            else status_lines,
            until=lambda entries: bool(entries) and all(entry.is_complete for entry in entries),
        )
    elif as_json:
        options.emit(fields(look()))
    else:
        console.out(text(look()))


def empty_text(workspace: Workspace) -> str:
    """Return what to do in a workspace without stores."""
    from pa.data.store.find import StoreSelector

    command = workspace.extract_command(StoreSelector())
    text = f"no store in {workspace.path} yet. Create one with:\n  {command}"
    return "\n".join(filter(None, [text, workspace.config.without_file]))


def status_text(entries: Sequence[StoreStatus]) -> str:
    """Return the stores as a table, followed by the problems of unreadable ones."""
    rows = []
    for entry in entries:
        if (store := entry.store) is not None:
            done = f"{entry.rows_done}/{store.n_rows}"
            bad = "?" if entry.bad_images is None else str(entry.bad_images)
            words = [describe_regions(store), store.encoder, store.spec.short[:8], done]
            words += [_state(entry), bad, _speed(entry), _eta(entry), console.size(entry.bytes)]
            rows.append(words)
    lines = [console.table(HEADS, rows, "   r rr r")] if rows else []
    lines += [f"{entry.path}: {entry.problem}" for entry in entries if entry.problem]
    return "\n".join(lines)


def status_lines(entries: Sequence[StoreStatus]) -> str:
    """Return one line per store, for a log."""
    clock = time.strftime("%H:%M:%S")
    lines = []
    for entry in entries:
        if (store := entry.store) is None:
            lines.append(f"{clock} {entry.path}: cannot be read")
            continue
        words = [f"{entry.rows_done}/{store.n_rows} rows", _state(entry)]
        words.append(f"{entry.bad_images} bad images")
        words += [] if entry.is_complete else [f"{_speed(entry)} rows/s", f"ETA {_eta(entry)}"]
        lines.append(f"{clock} {describe_regions(store)} · {store.encoder}: {', '.join(words)}")
    return "\n".join(lines) or f"{clock} no store yet"


def _state(entry: StoreStatus) -> str:
    if entry.is_complete and entry.shards_done == entry.shards:
        return "complete"
    active = f"{entry.shards_in_work} in work" if entry.shards_in_work else "no active writer"
    return f"{entry.shards_done}/{entry.shards} shards, {active}"


def _speed(entry: StoreStatus) -> str:
    return f"{entry.throughput.rows_per_second:.1f}" if entry.throughput else "unknown"


def _eta(entry: StoreStatus) -> str:
    if entry.is_complete:
        return "done"
    left = entry.seconds_left
    return "unknown" if left is None else f"in {console.duration(left)}"


def describe_regions(store: Store) -> str:
    """Return dataset, split and view, and what distinguishes stores of them: the protocol of parts,
    the number of crops, --limit, an unusual --storage."""
    from pa.data.store.find import protocol

    spec = store.spec
    notes = [protocol(store)]  # None for views other than parts
    if store.view == "windows":
        views = spec.view.get("views")
        notes.append(f"{views} crops per image" if views else "sliding")
    notes.append(f"first {spec.limit}" if spec.limit else None)
    storage = spec.precision["storage"]
    notes.append(storage if storage != "fp16" else None)
    text = ", ".join(note for note in notes if note)
    return f"{spec.dataset}/{spec.split}/{store.view}" + (f" ({text})" if text else "")
