"""Results as text for the terminal. Each function takes what a command returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.extract.run import RunResult
    from pa.extract.slots import Report
    from pa.index.search import SearchResult

BAD_SHOWN = 10


def run(result: RunResult) -> str:
    """What an extraction made, where the time went, and which images were bad."""
    lines = []
    for report in result.reports:
        store = report.store
        shapes = store.spec.representations.items()
        kept = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes)
        lines.append(f"{store.title}")
        lines.append(f"  {store.n_rows} rows of {store.spec.rows['n_images']} images: {kept}")
        left = len(store.missing())
        lines.append(f"  {_done(report, left)}; {store.path}")
        if left:
            lines.append(f"  {left} of {len(store.plan)} shards are in the hands of other tasks")
    if any(report.rows_encoded for report in result.reports):
        lines.append(f"  {_time(result)}")
    if result.bad:
        lines.append(f"  {len(result.bad)} images could not be read; their rows are not used:")
        lines += [f"    {bad.path}: {bad.reason}" for bad in result.bad[:BAD_SHOWN]]
        if len(result.bad) > BAD_SHOWN:
            lines.append(f"    … and {len(result.bad) - BAD_SHOWN} more, in manifest.json")
    return "\n".join(lines)


def _done(report: Report, left: int) -> str:
    adopted, copied = report.shards_adopted, report.rows_copied
    if not report.rows_encoded and not adopted and not copied and not left:
        return "nothing to do: it was complete"
    words = [f"{report.rows_encoded} rows encoded now"]
    if adopted:
        words.append(f"{adopted} shards taken over from another store")
    if copied:
        donors = " and ".join(report.copied_from)
        words.append(f"{copied} rows ({size(report.bytes_copied)}) copied from {donors}")
    if report.seconds_saved is not None:
        words.append(f"{duration(report.seconds_saved)} of encoding saved")
    return ", ".join(words)


def _time(result: RunResult) -> str:
    stages = result.stages
    split = ", ".join(f"{name} {duration(value)}" for name, value in stages.seconds.items())
    rows = max(report.rows_encoded for report in result.reports)
    return (
        f"{duration(stages.wall)}, {rows / max(stages.wall, 1e-9):.1f} rows/s; work: {split}; "
        f"limited by {stages.limit}"
    )


def search(result: SearchResult) -> str:
    """The query and its neighbours as a table."""
    query = result.query
    what = f"row {query.row}" if query.row is not None else "own image"
    label = f" {_label(query.label)}" if query.label else ""
    cut_by = f", protocol {result.protocol}" if result.protocol else ""
    head = (
        f"{result.encoder} · {result.representation} · cosine, {result.quality} · {result.store}"
        f"{cut_by}\n"
        f"query: {what}, {query.path} {_box(query.box)}{label}"
    )
    rows = [
        [str(n.rank), str(n.row), f"{n.cosine:.4f}", n.path, _box(n.box), _label(n.label)]
        for n in result.neighbours
    ]
    return f"{head}\n" + table(["rank", "id", "cosine", "image", "box", "label"], rows, "rrr")


def _label(label: str | None) -> str:
    """A label, with the name of the class where it is a wnid: "tench (n01440764)"."""
    from pa.data.datasets.imagenet import readable_label

    name = readable_label(label or "")
    return name if name == (label or "") else f"{name} ({label})"


def _box(box: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in box) if box else ""
