"""Results as text for the terminal. Each function takes what a command returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pa.commands.console import duration, size, table

if TYPE_CHECKING:
    from pa.extract.encoders import LoadReport
    from pa.extract.precision import Agreement
    from pa.extract.run import RunResult
    from pa.extract.slots import Report
    from pa.index.search import SearchResult
    from pa.tasks.encoders import Listed

BAD_SHOWN = 10
KEYS_SHOWN = 20


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


def encoders(found: Sequence[Listed]) -> str:
    """The registry as a table, and where each file is to be had."""
    rows = [
        [
            entry.card.name,
            entry.card.method,
            f"{entry.card.transform.resize} {entry.card.transform.interpolation}",
            "yes" if any(source.projector for source in entry.card.sources) else "no",
            entry.card.licence,
            str(entry.checkpoint) if entry.checkpoint else "not here",
        ]
        for entry in found
    ]
    lines = [table(["encoder", "method", "resize", "projector", "licence", "checkpoint"], rows)]
    lines.append("\nfiles (pa encoders fetch NAME downloads the first):")
    for entry in found:
        for source in entry.card.sources:
            lines.append(f"  {entry.card.name:<7} {source.file}: {source.url or source.note}")
    lines.append("\nand timm/<model>: any timm network. Cards: docs/encoders.md")
    return "\n".join(lines)


def load_report(report: LoadReport) -> str:
    """Where every key of a checkpoint went."""
    lines = [f"{report.checkpoint} as {report.name}: {'fits' if report.ok else 'DOES NOT FIT'}"]
    if report.sha256:
        lines.append(f"  sha256 {report.sha256}" + (f", {report.known}" if report.known else ""))
    if report.problem:
        return "\n".join([*lines, f"  {report.problem}"])
    made = ", ".join(f"{name} {value}" for name, value in report.architecture.items())
    lines.append(f"  read from it: {made}")
    renamed = dict(report.renamed)
    reasons = Counter(reason for _, reason in report.ignored)
    lines.append(f"  matched {len(report.matched)} keys of {report.container}")
    lines.append(f"  renamed {len(renamed)} of these{_example(report.renamed)}")
    lines.append(f"  ignored by rule {len(report.ignored)}")
    lines += [f"    {count} × {reason}" for reason, count in reasons.items()]
    for title, keys in report.misfits():
        lines.append(f"  {title} {len(keys)}")
        lines += [f"    {key}" for key in keys[:KEYS_SHOWN]]
        if len(keys) > KEYS_SHOWN:
            lines.append(f"    … and {len(keys) - KEYS_SHOWN} more; --json lists all")
    if report.accepted:
        lines.append("  accepted with --accept: it shows no sign of this encoder")
    if report.looks_like and (report.accepted or not report.ok):
        lines.append(f"  {report.looks_like}")
    if report.norms:
        norms = ", ".join(f"{name} {value:.4f}" for name, value in report.norms.items())
        lines.append(f"  mean norms on the fixed synthetic image: {norms}")
    return "\n".join(lines)


def _example(pairs: Sequence[tuple[str, str]]) -> str:
    return f", such as {pairs[0][0]} → {pairs[0][1]}" if pairs else ""


def agreements(compared: Sequence[Agreement]) -> str:
    """Half precisions against fp32."""
    rows = [
        [a.dtype, a.representation, f"{a.cosine_min:.6f}", f"{a.cosine_mean:.6f}", f"{a.top_k:.3f}"]
        for a in compared
    ]
    k, n = compared[0].k, compared[0].n
    heads = ["precision", "representation", "cosine, min", "cosine, mean", f"same top {k}"]
    return f"against fp32 on {n} images:\n" + table(heads, rows, "  rrr")
