"""Scores of retrieval as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pa.commands.console import table
from pa.evaluate.intervals import SMALL_SAMPLE, T_IMAGES

if TYPE_CHECKING:
    from pa.evaluate.bootstrap import Mean
    from pa.evaluate.intervals import Interval
    from pa.evaluate.neighbours_table import Shares
    from pa.tasks.evaluate import NeighbourTable, RetrievalTable

PARTS_SHOWN = 6
FILES_SHOWN = 8


def retrieval(found: RetrievalTable, figure: Path | None) -> str:
    """Average precision with chance and intervals, then paired differences, then the files."""
    first = found.scored[0]
    parts = list(first.means.parts)[:PARTS_SHOWN]
    better = {id(entry) for entry in found.better}
    rows = [
        [
            entry.encoder,
            entry.representation + (" *" if id(entry) in better else ""),
            *_score(entry.means.overall),
            _ends(entry.means.overall.fixed_gallery),
            f"{100 * (entry.means.overall.value - entry.means.overall.chance):+.2f}",
            f"{100 * entry.means.over_parts.value:.2f}",
            *(f"{100 * entry.means.parts[part].value:.2f}" for part in parts),
        ]
        for entry in found.scored
    ]
    for name in ("chance", "prior"):
        levels = [first.means.overall, first.means.over_parts]
        overall, over_parts, *of_parts = [
            f"{100 * getattr(mean, name):.2f}"
            for mean in (*levels, *(first.means.parts[part] for part in parts))
        ]
        rows.append([name, "", overall, "", "", "", over_parts, *of_parts])
    heads = [
        "encoder",
        "representation",
        "AP",
        "95 % interval",
        "gallery fixed",
        "above chance",
        "over parts",
        *parts,
    ]
    lines = [_gallery(found), "", table(heads, rows, "  r  rr" + "r" * len(parts))]
    if len(first.means.parts) > len(parts):
        lines.append(f"{len(first.means.parts) - len(parts)} more classes: --json")
    lines += [
        "AP in percent, mean over queries; over parts: mean over their means",
        "chance: expected AP of a random ranking; prior: share of relevant patches",
        *_methods(first.means.overall),
    ]
    if found.better:
        lines.append(
            "* the better of cls and pooled, as the paper reports; chosen on this very score, "
            "which flatters it"
        )
    if found.paired:
        lines += ["", _differences([(entry.name, entry.means.overall) for entry in found.paired])]
    files = [entry.path for entry in found.scored]
    return "\n".join([*lines, "", *_files(files, [figure])])


def _gallery(found: RetrievalTable) -> str:
    entry = found.scored[0]
    counts, protocol, spec = entry.result.counts, entry.result.protocol, entry.store.spec
    changed = "".join(f", {name} {value}" for name, value in protocol["changed"].items())
    query = "among its candidates" if protocol["include_self"] else "left out"
    text = (
        f"part retrieval · {spec.dataset}/{spec.split}/{entry.store.view} · protocol "
        f"{protocol['protocol']}{changed} (the query itself is {query})\n"
        f"{counts['queries']} queries of {counts['images']} images, {counts['classes']} classes"
    )
    left_out = {
        "without another of their class": counts["left_out_without_relevant"],
        "without a label": counts["left_out_unlabelled"],
        "of unreadable images": counts["left_out_bad"],
    }
    told = [f"{n} {reason}" for reason, n in left_out.items() if n]
    stores = dict.fromkeys(f"{e.encoder} {e.store.spec.short[:8]}" for e in found.scored)
    return text + (f"; left out: {', '.join(told)}" if told else "") + f"; {', '.join(stores)}"


def neighbours(found: NeighbourTable, figures: Sequence[Path | None]) -> str:
    """Shares of the neighbours, what projection moves, and hubness."""
    first = found.shares[0]
    spec, counts = first.store.spec, first.result.counts
    lines = [
        f"{first.result.protocol['k']} nearest neighbours · {spec.dataset}/{spec.split}/"
        f"{first.store.view}: {counts['rows']} patches of {counts['images']} images",
    ]
    for entry in found.shares:
        lines += ["", f"{entry.store.encoder} · {entry.representation}", _shares(entry)]
        hubs = entry.hubness
        lines.append(
            f"hubness: skewness {hubs.skewness:.2f} (at random {hubs.chance_skewness:.2f}); "
            f"{100 * hubs.never:.1f} % of the patches are nobody's neighbour; the most frequent, "
            f"row {entry.hub_rows[0]}, is that of {hubs.occurrences.max()}"
        )
    if (interval := next(iter(first.means.values())).interval) is not None:
        lines += ["", f"intervals: for new queries of this gallery, by {interval.method}"]
    for shift in found.shifts:
        title = f"{shift.store.encoder}: {shift.first} − {shift.second}"
        shown = found.shares[0].shown.items()
        lines += ["", _differences([(label, shift.means[name]) for name, label in shown], title)]
    files = [entry.path for entry in found.shares]
    return "\n".join([*lines, "", *_files(files, figures)])


def _shares(entry: Shares) -> str:
    rows = [
        [label, *_score(entry.means[name]), f"{100 * entry.means[name].chance:.2f}"]
        for name, label in entry.shown.items()
    ]
    return table(["neighbours that are", "%", "95 % interval", "at random"], rows, " r r")


def _differences(pairs: Sequence[tuple[str, Mean]], title: str = "difference, paired") -> str:
    rows = [
        [name, f"{100 * mean.value:+.2f}", _interval(mean, "+.2f"), _verdict(mean)]
        for name, mean in pairs
    ]
    return table([title, "points", "95 % interval", ""], rows, " r")


def _methods(mean: Mean) -> list[str]:
    """The methods of the two intervals, and what each is an interval for."""
    wide, narrow = mean.interval, mean.fixed_gallery
    if wide is None or narrow is None:
        return []
    few = f", since there are fewer than {SMALL_SAMPLE} images" if narrow.method == T_IMAGES else ""
    return [
        f"95 % interval: for new images, by {wide.method}",
        f"gallery fixed: for new queries of this gallery, by {narrow.method}{few}",
    ]


def _verdict(mean: Mean) -> str:
    if mean.interval is None:
        return ""
    return "" if mean.low > 0 or mean.high < 0 else "not distinguishable from 0"


def _score(mean: Mean) -> list[str]:
    return [f"{100 * mean.value:.2f}", _interval(mean, ".2f")]


def _interval(mean: Mean, form: str) -> str:
    return "one image only" if mean.interval is None else _ends(mean.interval, form)


def _ends(interval: Interval | None, form: str = ".2f") -> str:
    if interval is None:
        return ""
    return f"{100 * interval.low:{form}} to {100 * interval.high:{form}}"


def _files(results: Sequence[Path], figures: Sequence[Path | None]) -> list[str]:
    """Results, with the values of every query beside them; many are told by their folder."""
    lines = [str(path) for path in results]
    if len(lines) > FILES_SHOWN:
        lines = [f"{len(results)} results, with .parquet of their queries, in {results[0].parent}"]
    return lines + [f"figure: {path}" for path in figures if path]
