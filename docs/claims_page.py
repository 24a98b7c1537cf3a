"""Write docs/claims.md, the claims and the known issues of the paper: `make docs`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from pa.report.claims import GROUPS, Claim, claims, known_issues
from pa.report.judging import judge_published
from pa.report.markdown import escape, grid, prose

HEADING = """\
# Claims

This page is generated from `pa/report/claims/*.toml` and `pa/report/known_issues.toml` by
`docs/claims_page.py`.

What the paper says, in other words, as comparisons of the cells of its tables. How `pa report`
judges them: [report](report.md#claims). The last column judges them from the paper's own printed
numbers: how many comparisons hold, of how many.
"""

KNOWN_ISSUES = """\
## What to know of the paper's numbers

Found by reading the paper and the authors' released code. The report says each of them at the cells
and claims that it is about.
"""


def claims_page() -> str:
    """Return the text of docs/claims.md."""
    heads = ["Claim", "Where", "Read as", "By the paper's numbers"]
    parts = [HEADING]
    for group, members in groupby(claims(), key=lambda one: one.group):
        parts.append(f"## {GROUPS[group]}\n\n{grid(heads, [_line(one) for one in members])}\n")
    issues = "\n".join(f"- {prose(one.text)} *{escape(one.source)}*" for one in known_issues())
    return "\n".join([*parts, KNOWN_ISSUES, issues]) + "\n"


def _line(claim: Claim) -> list[str]:
    judgement = judge_published(claim)
    verdict = f"{judgement.verdict}, {judgement.count('holds')} of {len(judgement.outcomes)}"
    return [escape(claim.says), claim.where, escape(claim.reading), verdict]


if __name__ == "__main__":
    (Path(__file__).parent / "claims.md").write_text(claims_page(), encoding="utf-8")
