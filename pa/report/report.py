"""The report as data: cells, measured values, claims and their sources.

The renderers (`pa.report.html`, `markdown`, `latex`, `numbers`) print it and decide nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pa
from pa.progress import Progress, Silent
from pa.report.cells import Cell, Table, published, tables
from pa.report.claims import Claim, KnownIssue, claims, known_issues
from pa.report.collection import DamagedFile, ResultCollection
from pa.report.figures import Figure, figures_in
from pa.report.judging import (
    VERDICTS,
    Judgement,
    Verdict,
    judge_ours,
    judge_published,
    unpaired_note,
)
from pa.report.measured import Measured, measured_in
from pa.report.protocol import Protocol
from pa.report.results import ListedResult, all_results
from pa.report.selection import SelectedResult, select_results


@dataclass(frozen=True)
class Judged:
    """A claim, judged by the numbers of the paper and by ours of each protocol."""

    claim: Claim
    published: Judgement
    ours: tuple[Judgement, ...]
    known_issues: tuple[KnownIssue, ...]

    def by(self, protocol: Protocol | None) -> Judgement:
        """Return the judgement by our numbers of a protocol, or by those of the paper (None)."""
        if protocol is None:
            return self.published
        for item in self.ours:
            if item.protocol == protocol:
                return item
        return judge_ours(self.claim, {}, protocol)  # nothing of it is measured

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.claim.id,
            "says": self.claim.says,
            "where": self.claim.where,
            "reading": self.claim.reading,
            "needed": self.claim.needed,
            "by_the_papers_numbers": self.published.verdict,
            "by_ours": {
                item.protocol.key: {
                    "verdict": item.verdict,
                    "comparisons": len(item.outcomes),
                    "measured": item.measured,
                    "hold": item.count("holds"),
                    "do_not_hold": item.count("does not hold"),
                    "undecided": item.count("undecided"),
                    "not_measured": item.count("not measured"),
                    "intervals": list(item.bases),
                    "without_pairs": item.without_pairs,
                    "not_the_papers_setting": list(item.marks),
                    "outcomes": [outcome.to_json() for outcome in item.outcomes],
                }
                for item in self.ours
                if item.protocol is not None
            },
        }


@dataclass(frozen=True, eq=False)
class Report:
    """The results of a workspace, compared with the paper.

    `selected` is by cell key and protocol; `measured` holds all measured numbers of its cells,
    selected or not; `listed` the scores of every result.
    """

    collection: ResultCollection
    created: datetime
    selected: Mapping[tuple[str, Protocol], SelectedResult]
    measured: tuple[Measured, ...]
    judged: tuple[Judged, ...]
    figures: tuple[Figure, ...]
    listed: tuple[ListedResult, ...]

    @property
    def version(self) -> str:
        return pa.__version__

    @property
    def damaged(self) -> tuple[DamagedFile, ...]:
        return self.collection.damaged

    @property
    def measured_cells(self) -> tuple[Cell, ...]:
        """Cells with a measured number under any protocol."""
        keys = {key for key, _ in self.selected}
        return tuple(cell for cell in published() if cell.key in keys)

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without a measured number."""
        keys = {key for key, _ in self.selected}
        return tuple(cell for cell in published() if cell.key not in keys)

    @property
    def papers_cells(self) -> tuple[Cell, ...]:
        """Cells with a measured number of the paper's model, images and recipe."""
        keys = {key for (key, _), selected in self.selected.items() if selected.ours.is_papers}
        return tuple(cell for cell in published() if cell.key in keys)

    def protocols(self, table: Table) -> tuple[Protocol, ...]:
        """Return the protocols with a number in a table, those of the paper first."""
        keys = {cell.key for cell in table.cells}
        matches = {protocol for key, protocol in self.selected if key in keys}
        return tuple(sorted(matches, key=lambda item: item.order))

    def in_table(self, table: Table, protocol: Protocol) -> Iterator[SelectedResult]:
        """Yield the selected results of a table under a protocol, in the order of its cells."""
        for cell in table.cells:
            if (selected := self.selected.get((cell.key, protocol))) is not None:
                yield selected

    @property
    def unpaired_note(self) -> str:
        """Name the comparisons that would be paired with intact tables; empty without any."""
        return unpaired_note(
            sum(item.without_pairs for judged in self.judged for item in judged.ours)
        )

    def tally(self, protocol: Protocol | None) -> Mapping[Verdict, int]:
        """Count the claims by verdict, by our numbers or (None) by those of the paper."""
        counts = Counter(item.by(protocol).verdict for item in self.judged)
        return {verdict: counts[verdict] for verdict in VERDICTS}

    def to_json(self) -> dict[str, Any]:
        return {
            "workspace": str(self.collection.root),
            "cells": len(published()),
            "measured": len(self.measured_cells),
            "in_the_papers_setting": len(self.papers_cells),
            "numbers": [_number_json(selected) for selected in self.selected.values()],
            "claims": [item.to_json() for item in self.judged],
            "results": len(self.collection.results),
            "all_results": [item.to_json() for item in self.listed],
            "damaged": [item.to_json() for item in self.damaged],
            "missing": [cell.key for cell in self.missing],
        }


def build(
    collection: ResultCollection,
    figures: Path,
    *,
    created: datetime | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare the results of a workspace with the paper.

    `figures` is the folder of its figures, `created` the time of the report (default: now).
    """
    progress = progress or Silent()
    measured = measured_in(collection)
    selected = select_results(published(), measured)
    judged = []
    progress.start("judging the claims", len(claims()), "claims")
    try:
        for claim in claims():
            judged.append(_judge(claim, selected))
            progress.advance(1)
    finally:
        progress.stop()
    return Report(
        collection=collection,
        created=created or datetime.now(UTC),
        selected=selected,
        measured=tuple(measured),
        judged=tuple(judged),
        figures=figures_in(figures),
        listed=all_results(collection, selected.values()),
    )


def _judge(claim: Claim, selected: Mapping[tuple[str, Protocol], SelectedResult]) -> Judged:
    keys = {cell.key for pair in claim.comparisons for cell in (pair.first, pair.second)}
    protocols = sorted(
        {p for key, p in selected if key in keys}, key=lambda protocol: protocol.order
    )
    return Judged(
        claim,
        judge_published(claim),
        tuple(judge_ours(claim, selected, protocol) for protocol in protocols),
        tuple(issue for issue in known_issues() if claim.id in issue.claims),
    )


def known_issues_of(table: Table) -> list[tuple[KnownIssue, tuple[Cell, ...]]]:
    """Return the known issues of a table, and the cells that each concerns."""
    matches = []
    for item in known_issues():
        about = tuple(cell for cell in table.cells if item.is_about(cell))
        if about:
            matches.append((item, about))
    return matches


def all_protocols(report: Report) -> tuple[Protocol, ...]:
    """Return every protocol with a number in any table."""
    matches = {protocol for table in tables() for protocol in report.protocols(table)}
    return tuple(sorted(matches, key=lambda protocol: protocol.order))


def _number_json(selected: SelectedResult) -> dict[str, Any]:
    ours = selected.ours
    return {
        **selected.cell.to_json(),
        "protocol": ours.protocol.key,
        "value": ours.value,
        "interval": ours.interval,
        "delta": selected.delta,
        "n": ours.n,
        "n_images": ours.n_images,
        "model": ours.model,
        "in_the_papers_setting": ours.is_papers,
        "marks": [mark.text for mark in ours.marks],
        "notes": [note.text for note in ours.notes],
        "why": selected.why,
        "others": [other.file for other in selected.others],
        "file": ours.file,
        "stores": {store.role: store.fingerprint for store in ours.stores},
        "command": ours.command,
    }
