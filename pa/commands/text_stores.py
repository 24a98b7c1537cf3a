"""What `pa status`, `verify` and `gc` found, as text for the terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.tasks.gc import Garbage
    from pa.tasks.stores import StoreStatus
    from pa.tasks.verify import Checked, Looked, Removed
    from pa.tasks.verify_images import CheckedImages

GARBAGE_SHOWN = 50
IMAGES_SHOWN = 10


def status(workspace: Path, found: Sequence[StoreStatus], first_step: str = "") -> str:
    """Every store of the workspace as a table; `first_step` is what to do where there is none."""
    if not found:
        return f"no store in {workspace} yet. {first_step}".rstrip()
    rows = []
    for entry in found:
        store = entry.store
        if store is None:
            continue
        rows.append(
            [
                where(store),
                store.encoder,
                store.spec.short[:8],
                f"{entry.rows_done}/{store.n_rows}",
                _state(entry),
                "?" if entry.bad_images is None else str(entry.bad_images),
                _speed(entry),
                _end(entry),
                size(entry.bytes),
            ]
        )
    heads = ["store", "encoder", "made by", "rows", "state", "bad images", "rows/s", "ends", "size"]
    lines = [table(heads, rows, "   r rr r")] if rows else []
    lines += [f"{entry.path}: {entry.problem}" for entry in found if entry.problem]
    return "\n".join(lines)


def status_lines(found: Sequence[StoreStatus]) -> str:
    """One line per store, for a log that is written while the work goes on."""
    clock = time.strftime("%H:%M:%S")
    lines = []
    for entry in found:
        if entry.store is None:
            lines.append(f"{clock} {entry.path}: cannot be read")
            continue
        words = [f"{entry.rows_done}/{entry.store.n_rows} rows", _state(entry)]
        words.append(f"{entry.bad_images} bad images")
        words += [f"{_speed(entry)} rows/s", f"ends {_end(entry)}"] if not entry.is_complete else []
        lines.append(f"{clock} {where(entry.store)} · {entry.store.encoder}: {', '.join(words)}")
    return "\n".join(lines) or f"{clock} no store yet"


def _state(entry: StoreStatus) -> str:
    if entry.is_complete and entry.shards_done == entry.shards:
        return "complete"
    state = f"{entry.shards_done}/{entry.shards} shards"
    if entry.shards_in_work:
        return f"{state}, {entry.shards_in_work} in work"
    return f"{state}, nobody at work"


def _speed(entry: StoreStatus) -> str:
    return f"{entry.pace.rows_per_second:.1f}" if entry.pace else "unknown"


def _end(entry: StoreStatus) -> str:
    if entry.is_complete:
        return "done"
    left = entry.seconds_left
    return "unknown" if left is None else f"in {duration(left)}"


def where(store: Store) -> str:
    """A store's dataset, split and view, and what else tells stores of one place apart: the
    protocol that cut its parts, crops of each image, --limit, an unusual --storage."""
    from pa.data.store.find import protocol

    spec = store.spec
    told = [protocol(store)]
    if store.view == "windows":
        views = spec.view.get("views")
        told.append(f"{views} crops of each" if views else "sliding")
    told.append(f"first {spec.limit}" if spec.limit else None)
    storage = spec.precision["storage"]
    told.append(storage if storage != "fp16" else None)
    notes = ", ".join(note for note in told if note)
    return f"{spec.dataset}/{spec.split}/{store.view}" + (f" ({notes})" if notes else "")


def checks(
    checked: Sequence[Checked],
    indexes: Sequence[Looked],
    results: Sequence[Looked],
    *,
    hint: bool,
) -> str:
    """What `pa verify` found; with `hint`, how to repair it. Good results are only counted."""
    from pa.data.store.reader import SPEC_AGAIN
    from pa.tasks.verify import is_damaged, newer_paths

    if not checked and not indexes and not results:
        return "nothing to verify."
    lines = []
    for entry in checked:
        store, damage = entry.store, entry.damage
        count = "1 problem" if len(damage) == 1 else f"{len(damage)} problems"
        wrong = count if damage else "newer" if entry.newer else "good"
        if store is None:
            lines.append(f"{entry.path}: {wrong}")
        else:
            missing = Counter(problem.what for problem in entry.problems)["missing"]
            state = "complete" if store.is_complete else f"{missing} shards to do"
            lines.append(f"{store.title}: {wrong} ({state}, {store.n_rows} rows)")
        lines += [f"  {problem}" for problem in (*damage, *entry.newer)]
        if entry.lacks_spec:
            lines.append(f"  {SPEC_AGAIN}\n  As far as the folders say it: {entry.command}")
        elif entry.problems and not damage and not entry.newer:
            lines.append(f"  make what is missing with: {entry.command}")
    lines += [f"index {directory}: {problem or 'good'}" for directory, problem in indexes]
    if results:
        bad = [found for _, found in results if found is not None]
        newer = sum(found.newer for found in bad)
        counts = f"results: {len(results) - len(bad)} good, {len(bad) - newer} damaged"
        lines.append(counts + (f", {newer} newer" if newer else ""))
        lines += [f"  {path}: {found}" for path, found in results if found is not None]
    others = [*indexes, *results]
    if left := newer_paths(checked, others):
        lines += ["\nwritten by a newer version of pa, and left as it is:"]
        lines += [f"  {path}" for path in left]
    if hint and is_damaged([entry for entry in checked if not entry.lacks_spec], others):
        lines.append("\nremove what is bad, and only that, with: pa verify --repair")
    return "\n".join(lines)


def images(checked: Sequence[CheckedImages]) -> str:
    """What `pa verify --images` found: the images that changed, and how to encode them again."""
    lines = []
    for entry in checked:
        n, changed = entry.store.spec.rows["n_images"], entry.changed
        state = f"{len(changed)} of {n} changed or not readable" if changed else f"all {n} good"
        lines.append(f"images of {entry.store.title} under {entry.root}: {state}")
        lines += [f"  {image}" for image in changed[:IMAGES_SHOWN]]
        if len(changed) > IMAGES_SHOWN:
            lines.append(f"  … and {len(changed) - IMAGES_SHOWN} more; all with --json")
        if changed:
            lines.append(f"  encode what changed with: {entry.store.command} --replace")
    return "\n".join(lines)


def removed(found: Sequence[Removed]) -> str:
    """What `pa verify --repair` removed, and how to make it again."""
    if not found:
        return "nothing was removed: no file was found to be bad."
    lines = [f"removed {entry.path}: {entry.why}" for entry in found]
    lines.append("\nmake it again with the commands that made it, such as:")
    lines += [f"  {command}" for command in dict.fromkeys(entry.command for entry in found)]
    return "\n".join(lines)


def garbage(found: Sequence[Garbage], gone: Sequence[Garbage] | None) -> str:
    """What nothing refers to, with sizes; `gone` is what was deleted, None if only listed."""
    if not found:
        return "nothing to delete."
    rows = [[size(entry.bytes), entry.kind, str(entry.path), entry.why] for entry in found]
    lines = [table(["size", "what", "path", "why"], rows[:GARBAGE_SHOWN], "r")]
    if len(rows) > GARBAGE_SHOWN:
        lines.append(f"… and {len(rows) - GARBAGE_SHOWN} more; --json lists all")
    going = [entry for entry in found if entry.deletable] if gone is None else gone
    total = f"{len(going)} of {len(found)}, {size(sum(entry.bytes for entry in going))}"
    lines.append(f"\n--delete deletes {total}." if gone is None else f"\ndeleted {total}.")
    return "\n".join(lines)
