"""The claims of the paper, by its own numbers and by ours."""

from __future__ import annotations

from itertools import groupby

from pa.report.claims import GROUPS
from pa.report.html.markup import Child, Markup, prose, scrolled, table, tag
from pa.report.html.words import BADGES, badge, count, ends, signed
from pa.report.judging import Judgement, Outcome, Verdict, unpaired_note
from pa.report.protocol import Protocol
from pa.report.report import Judged, Report, all_protocols
from pa.report.text import identifier


def section(report: Report) -> Markup:
    """Render every claim in full."""
    return tag(
        "section",
        tag("h2", "Claims"),
        tag(
            "p",
            "The paper's statements in other words, each made into comparisons of cells. By its "
            "own numbers a comparison holds as printed; by ours it holds, or does not, where the "
            "whole 95 % interval of the difference says so. Intervals are paired by query where "
            "both results keep their queries' scores, and joined as if independent elsewhere. "
            "Differences of two of our numbers are taken before either is rounded. A claim about "
            "all of its comparisons holds when all are measured and hold, and falls with the "
            "first that does not hold; until then it is undecided.",
            class_="lead",
        ),
        (
            [tag("h3", GROUPS[group]), (_claim(item) for item in members)]
            for group, members in groupby(report.judged, key=lambda item: item.claim.group)
        ),
        id="claims",
    )


def glance(report: Report) -> Markup:
    """Render all claims as squares, with a row for each source of numbers."""
    sources: list[Protocol | None] = [None, *all_protocols(report)]
    groups = [
        (group, list(members))
        for group, members in groupby(report.judged, key=lambda entry: entry.claim.group)
    ]
    head = tag(
        "tr",
        tag("td"),
        (tag("th", GROUPS[group], scope="col") for group, _ in groups),
    )
    rows = [
        tag(
            "tr",
            tag("th", source_title(source), tag("small", _tally(report, source)), scope="row"),
            (tag("td", [_square(entry, source) for entry in members]) for _, members in groups),
        )
        for source in sources
    ]
    return tag(
        "figure",
        scrolled(
            "Claims at a glance",
            tag("table", tag("thead", head), tag("tbody", rows), class_="glance"),
        ),
        tag(
            "figcaption",
            f"The {len(report.judged)} claims at a glance, each a square that leads to it: ",
            (
                [tag("span", sign, class_=f"square {kind}", aria_hidden="true"), f" {words}"]
                for kind, sign, words in BADGES.values()
            ),
            "; dashed: from numbers that are not of the paper's setting.",
        ),
    )


def source_title(source: Protocol | None) -> str:
    return "the paper's numbers" if source is None else f"ours, {source.title}"


def _tally(report: Report, source: Protocol | None) -> str:
    tally = report.tally(source)
    words: dict[Verdict, str] = {
        "holds": "hold",
        "does not hold": "do not",
        "undecided": "undecided",
        "not measured": "not measured",
    }
    counted = [f"{tally[verdict]} {text}" for verdict, text in words.items() if tally[verdict]]
    return ", ".join(counted)


def _square(judged: Judged, source: Protocol | None) -> Markup:
    judgement = judged.by(source)
    kind, sign, words = BADGES[judgement.verdict]
    text = f"{words}, {judgement.summary}: {judged.claim.says}"
    if judgement.marks:
        kind, text = f"{kind} other", f"{text} Not the paper's setting."
    return tag(
        "a",
        tag("span", sign, aria_hidden="true"),
        class_=f"square {kind}",
        href=f"#{identifier('claim-' + judged.claim.id)}",
        title=text,
        aria_label=text,
    )


def _claim(judged: Judged) -> Markup:
    claim = judged.claim
    text = tag(
        "div",
        tag("h4", claim.says),
        tag("p", tag("span", claim.where, class_="where"), f" {claim.reading}", class_="reading"),
        (tag("p", prose(issue.text), class_="known-issue") for issue in judged.known_issues),
        _details(judged),
    )
    verdicts = tag(
        "dl", _verdict("by the paper's numbers", judged.published), _ours(judged), class_="verdicts"
    )
    return tag("article", text, verdicts, id=identifier(f"claim-{claim.id}"), class_="claim")


def _ours(judged: Judged) -> Child:
    if not judged.ours:
        none = f"none of {count(len(judged.claim.comparisons), 'comparison')}"
        return tag(
            "div", tag("dt", "by ours"), tag("dd", badge("not measured"), tag("small", none))
        )
    return [
        _verdict(f"by ours, {judgement.protocol.title}", judgement)
        for judgement in judged.ours
        if judgement.protocol is not None
    ]


def _verdict(who: str, judgement: Judgement) -> Markup:
    note = unpaired_note(judgement.without_pairs)
    return tag(
        "div",
        tag("dt", who),
        tag(
            "dd",
            badge(judgement.verdict),
            tag("small", judgement.summary),
            tag(
                "span",
                "not the paper's setting",
                class_="warning",
                title="; ".join(judgement.marks),
            )
            if judgement.marks
            else None,
            tag("span", note, class_="warning") if note else None,
        ),
    )


def _details(judged: Judged) -> Markup:
    """Render every comparison with the difference by each source of numbers."""
    heads = ["Comparison", "The paper"]
    heads += [source_title(judgement.protocol) for judgement in judged.ours]
    lines = list(
        zip(
            judged.published.outcomes,
            *(judgement.outcomes for judgement in judged.ours),
            strict=True,
        )
    )
    rows = [
        tag(
            "tr",
            tag("th", outcomes[0].comparison.words, scope="row"),
            tag("td", _sign(outcomes[0]), " ", signed(outcomes[0].value or 0), class_="number"),
            (tag("td", _difference(outcome), class_="number") for outcome in outcomes[1:]),
        )
        for outcomes in lines
    ]
    marks = dict.fromkeys(mark for judgement in judged.ours for mark in judgement.marks)
    return tag(
        "details",
        tag("summary", count(len(lines), "comparison")),
        tag("p", "Ours is not of the paper's setting: ", "; ".join(marks), ".", class_="warned")
        if marks
        else None,
        scrolled(f"Comparisons: {judged.claim.says}", table(heads, rows)),
    )


def _difference(outcome: Outcome) -> Child:
    if outcome.value is None:
        return _sign(outcome, "not measured")
    basis = f"{ends(outcome.interval)}, {outcome.basis}" if outcome.interval else outcome.basis
    return [_sign(outcome), f" {signed(outcome.value)} ", tag("small", basis)]


def _sign(outcome: Outcome, shown: str = "") -> Markup:
    kind, sign, _ = BADGES[outcome.verdict]
    return tag("span", shown or sign, class_=f"sign {kind}", title=outcome.verdict)
