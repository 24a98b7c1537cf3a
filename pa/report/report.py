"""The report as data: cells, measured values, claims and their sources.

The renderers (`pa.report.html`, `markdown`, `latex`, `numbers`) print it and decide nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pa.data.version import __version__
from pa.progress import Progress, Silent
from pa.report.cells import Cell, Table, published
from pa.report.claims import Claim, claims, known_issues
from pa.report.collection import DamagedFile, ResultCollection
from pa.report.figures import Figure, figures_in
from pa.report.judging import (
    VERDICTS,
    JudgedClaim,
    Verdict,
    judge_ours,
    judge_published,
    unpaired_note,
)
from pa.report.measured import measured_in
from pa.report.protocol import Protocol
from pa.report.results import ListedResult, all_results
from pa.report.selection import SelectedResult, select_results


@dataclass(frozen=True, eq=False)
class Report:
    """The results of a workspace, compared with the paper.

    `selected` is by cell key and protocol; `listed` holds the scores of every result.
    """

    collection: ResultCollection
    created: datetime
    selected: Mapping[tuple[str, Protocol], SelectedResult]
    judged: tuple[JudgedClaim, ...]
    figures: tuple[Figure, ...]
    listed: tuple[ListedResult, ...]

    @property
    def version(self) -> str:
        return __version__

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
        measured = set(self.measured_cells)
        return tuple(cell for cell in published() if cell not in measured)

    @property
    def papers_cells(self) -> tuple[Cell, ...]:
        """Cells with a measured number of the paper's model, images and recipe."""
        keys = {key for (key, _), selected in self.selected.items() if selected.ours.is_papers}
        return tuple(cell for cell in published() if cell.key in keys)

    @property
    def sources(self) -> tuple[Protocol | None, ...]:
        """The numbers that judge claims: the paper's (None), then ours of each protocol."""
        return (None, *self.protocols())

    def protocols(self, table: Table | None = None) -> tuple[Protocol, ...]:
        """Return the protocols with a number in a table or (None) in any, the paper's first."""
        keys = {cell.key for cell in (published() if table is None else table.cells)}
        return _in_order(protocol for key, protocol in self.selected if key in keys)

    @property
    def unpaired_note(self) -> str:
        """Name the comparisons that would be paired with intact tables; empty without any."""
        return unpaired_note(judgement for item in self.judged for judgement in item.ours)

    @property
    def has_marked_claims(self) -> bool:
        """Whether a claim was judged by numbers that are not of the paper's setting."""
        return any(judgement.marks for item in self.judged for judgement in item.ours)

    @property
    def decided(self) -> int:
        """Number of claims that our numbers of any protocol decide."""
        # Claims that only one protocol decides count, too.
        decisive = ("holds", "does not hold")
        return sum(any(by.verdict in decisive for by in item.ours) for item in self.judged)

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
            "numbers": [selected.to_json() for selected in self.selected.values()],
            "claims": [item.to_json() for item in self.judged],
            "results": len(self.collection.results),
            "all_results": [item.to_json() for item in self.listed],
            "damaged": [item.to_json() for item in self.damaged],
            "missing": [cell.key for cell in self.missing],
        }


def source_name(protocol: Protocol | None) -> str:
    """Name the numbers that judge: "paper's numbers", "ours, released"."""
    return "paper's numbers" if protocol is None else f"ours, {protocol.title}"


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
    selected = select_results(published(), measured_in(collection))
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
        judged=tuple(judged),
        figures=figures_in(figures),
        listed=all_results(collection, selected.values()),
    )


def _judge(claim: Claim, selected: Mapping[tuple[str, Protocol], SelectedResult]) -> JudgedClaim:
    keys = {cell.key for pair in claim.comparisons for cell in (pair.first, pair.second)}
    # Protocols without a number of these cells have nothing to judge by.
    protocols = _in_order(protocol for key, protocol in selected if key in keys)
    return JudgedClaim(
        claim,
        judge_published(claim),
        tuple(judge_ours(claim, selected, protocol) for protocol in protocols),
        tuple(issue for issue in known_issues() if claim.id in issue.claims),
    )


def _in_order(protocols: Iterable[Protocol]) -> tuple[Protocol, ...]:
    return tuple(sorted(set(protocols), key=lambda protocol: protocol.order))
