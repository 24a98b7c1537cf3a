"""The claims and the known_issues as a page of documentation: docs/claims.md is this text."""

from __future__ import annotations

from itertools import groupby

from pa.report.claims import Claim, claims, known_issues
from pa.report.judging import judge_published
from pa.report.markdown import escape, grid, prose

HEADING = """\
# Claims

This page is generated from `pa/report/claims/*.toml` and `pa/report/known_issues.toml`
(`pa.report.listing.claims_page`).

What the paper says, in other words, as comparisons of the cells of its tables. How `pa report`
judges them: [report](report.md#claims). The last column judges them from the paper's own printed
numbers: how many comparisons hold, of how many.
"""

ODDITIES = """\
## What to know of the paper's numbers

Found by reading the paper and the authors' released code. The report says each of them at the cells
and claims that it is about.
"""

GROUPS = {
    "object": "Recognising objects",
    "retrieval": "Retrieving parts",
    "classification": "Classifying parts",
    "segmentation": "Segmenting parts",
}


def claims_page() -> str:
    """docs/claims.md."""
    heads = ["Claim", "Where", "Read as", "By the paper's numbers"]
    parts = [HEADING]
    for group, members in groupby(claims(), key=lambda one: one.group):
        parts.append(f"## {GROUPS[group]}\n\n{grid(heads, [_line(one) for one in members])}\n")
    said = "\n".join(f"- {prose(one.text)} *{escape(one.source)}*" for one in known_issues())
    return "\n".join([*parts, ODDITIES, said]) + "\n"


def _line(claim: Claim) -> list[str]:
    made = judge_published(claim)
    verdict = f"{made.verdict}, {made.count('holds')} of {len(made.outcomes)}"
    return [escape(claim.says), claim.where, escape(claim.reading), verdict]
