"""Write docs/claims.md with the claims and known issues of the paper; run by `make docs`."""

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

Statements of the paper, reworded and expressed as comparisons of cells of its tables. `pa report`
judges them as described in [the report](report.md#claims). The last column judges them by the
paper's printed numbers: how many of the comparisons hold.
"""

KNOWN_ISSUES = """\
## Known issues of the paper's numbers

These issues were found in the paper and in the authors' released code. The report shows each of
them at the cells and claims that it affects.
"""


def claims_page() -> str:
    """Return the text of docs/claims.md."""
    heads = ["Claim", "Where", "Read as", "By the paper's numbers"]
    parts = [HEADING]
    for group, members in groupby(claims(), key=lambda claim: claim.group):
        parts.append(f"## {GROUPS[group]}\n\n{grid(heads, [_line(claim) for claim in members])}\n")
    issues = "\n".join(
        f"- {prose(issue.text)} *{escape(issue.source)}*" for issue in known_issues()
    )
    return "\n".join([*parts, KNOWN_ISSUES, issues]) + "\n"


def _line(claim: Claim) -> list[str]:
    judgement = judge_published(claim)
    verdict = f"{judgement.verdict}, {judgement.count('holds')} of {len(judgement.outcomes)}"
    return [escape(claim.says), claim.where, escape(claim.reading), verdict]


if __name__ == "__main__":
    (Path(__file__).parent / "claims.md").write_text(claims_page(), encoding="utf-8")
