"""Write docs/claims.md with the claims and known issues of the paper; run by `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from pa.report.cells import published
from pa.report.claims import GROUPS, Claim, KnownIssue, claims, known_issues
from pa.report.judging import judge_published
from pa.report.markdown import escape, prose

HEADING = """\
# Claims

This page is generated from `pa/report/claims/*.toml` and `pa/report/known_issues.toml` by
`docs/claims_page.py`.

The claims are statements of the paper in other words. Each is expressed as comparisons of cells of
the paper's tables, and `pa report` judges them as described in [the report](report.md#claims). The
last column judges them by the numbers that the paper prints, and counts the comparisons that hold.
"""

KNOWN_ISSUES = """\
## Known issues of the paper's numbers

These issues were found in the paper and in the authors' released code. The report shows each of
them at the cells and claims that it affects.
"""

AREAS = {  # headings of known issues, by the first table with such a cell
    1: "Image classification, Table 1",
    3: "Part retrieval and part classification, Table 3",
    2: "Segmentation, Tables 2, 4, 5 and 6",
    0: "Claims that the paper's tables do not support",
}


def claims_page() -> str:
    """Return the text of docs/claims.md."""
    heads = ["Claim", "Where", "Read as", "By the paper's numbers"]
    parts = [HEADING]
    for group, members in groupby(claims(), key=lambda claim: claim.group):
        parts.append(f"## {GROUPS[group]}\n\n{grid(heads, [_line(claim) for claim in members])}\n")
    parts.append(KNOWN_ISSUES)
    for area, title in AREAS.items():
        rows = [
            [f"**{escape(issue.title)}**", prose(issue.text), escape(issue.source)]
            for issue in known_issues()
            if _area(issue) == area
        ]
        parts.append(f"### {title}\n\n{grid(['Issue', 'Explanation', 'Source'], rows)}\n")
    return "\n".join(parts)


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown cells."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows))


def _line(claim: Claim) -> list[str]:
    judgement = judge_published(claim)
    verdict = f"{judgement.verdict}, {judgement.count('holds')} of {len(judgement.outcomes)}"
    return [escape(claim.says), claim.where, escape(claim.reading), verdict]


def _area(issue: KnownIssue) -> int:
    table = min((cell.table for cell in published() if issue.is_about(cell)), default=0)
    return 2 if table > 3 else table


if __name__ == "__main__":
    (Path(__file__).parent / "claims.md").write_text(claims_page(), encoding="utf-8")
