"""What `pa plan` reckoned, as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.extract.plan import ExtractPlan, StorePlan


def extraction(made: ExtractPlan) -> str:
    """What an extraction will write, how long it takes, and whether there is room."""
    heads = ["store", "encoder", "rows", "to do", "shards", "files", "to write", "time"]
    rows = [
        [
            entry.where,
            entry.encoder,
            str(entry.rows),
            str(entry.rows_to_do),
            f"{entry.shards_to_do}/{entry.shards}",
            str(entry.files),
            size(entry.bytes),
            _time(entry),
        ]
        for entry in made.stores
    ]
    lines = [table(heads, rows, "  rrrrr")]
    for entry in made.stores:
        if entry.pace is not None:
            speed = f"{entry.pace.rows_per_second:.1f} rows/s"
            lines.append(f"  {entry.where} · {entry.encoder}: {speed}, {entry.pace.source}")
        if reused := entry.rows_adopted + entry.rows_copied:
            saved = entry.seconds_saved
            saving = "" if saved is None else f", {duration(saved)} of encoding saved"
            lines.append(
                f"  {entry.where} · {entry.encoder}: {reused} rows are in other stores ("
                f"{entry.rows_adopted} linked, {entry.rows_copied} copied){saving}"
            )
    total = "unknown: no earlier run" if made.seconds is None else duration(made.seconds)
    lines.append(f"in all {size(made.bytes)}, one process: {total}")
    verdict = "enough" if made.fits else "TOO LITTLE"
    lines.append(f"free on the disk of {made.place}: {size(made.free)}, {verdict}")
    return "\n".join(lines)


def _time(entry: StorePlan) -> str:
    return "unknown" if entry.seconds is None else duration(entry.seconds)
