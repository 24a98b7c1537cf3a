"""Probe results as text for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pa.commands.console import table

if TYPE_CHECKING:
    from pa.evaluate.classification import Score, Scores
    from pa.evaluate.results import ProbeResult, RecordedProtocol
    from pa.probe.knn import KnnResult
    from pa.probe.linear.choice import Choice
    from pa.probe.linear.fewshot import FewShotResult
    from pa.probe.linear.run import LinearResult
    from pa.tasks.probe_predict import Prediction

CANDIDATES_SHOWN = 8
CLASSES_SHOWN = 10
SIDES = {"training": "train", "test": "test"}


def trained(result: LinearResult | FewShotResult) -> str:
    """What `pa probe linear` made, with or without --shots."""
    from pa.probe.linear.fewshot import FewShotResult

    return fewshot(result) if isinstance(result, FewShotResult) else linear(result)


def linear(result: LinearResult) -> str:
    """The scores of a probe with what is needed to judge them."""
    record, runs = result.result, result.runs
    reported = record.protocol.reported
    lines = [*_heading("linear probe", record, result.split.rule)]
    if result.choice is not None:
        lines += _choice(result.choice)
    lines.append(f"  accuracy {_scores(result.scores)}")
    if len(runs) > 1:
        lines.append(_seeds(result))
    if "accuracy_last_epoch" in record.scores:
        last = record.scores["accuracy_last_epoch"].value
        epochs = ", ".join(str(run.epoch) for run in runs)
        lines.append(
            f"  this is the {reported} (epoch {epochs}), chosen by the rows it is scored on and so "
            f"optimistic; the last epoch gives {100 * last:.2f} %"
        )
    for name, (reference, scores) in result.references.items():
        done = "" if reference.model.converged else ", not converged"
        lines.append(
            f"  {name:<8} {_scores(scores, short=True)}, penalty {reference.model.strength:g} "
            f"chosen on held-out training rows{done}"
        )
    trained = sum(float(run.train_accuracy[-1]) for run in runs) / len(runs)
    lines.append(
        f"  train accuracy {100 * trained:.2f} % in the last epoch; {reported}; protocol "
        f"{_protocol(record.protocol)}"
    )
    guessing = math.log(len(result.split.classes))
    loss = max(float(run.train_loss[-1]) for run in runs)
    if loss > guessing:
        lines.append(
            f"  the training loss ends at {loss:.3g}, above the {guessing:.3g} of guessing: the "
            f"learning rate is too large for these features"
        )
    lines.append(f"  {result.result_path}")
    return "\n".join(lines)


def fewshot(result: FewShotResult) -> str:
    """Mean and spread over the draws of each number of shots."""
    record = result.result
    rows = [
        [
            str(n),
            f"{100 * scores.mean.value:.2f}",
            f"{100 * scores.mean.interval.low:.2f} to {100 * scores.mean.interval.high:.2f}",
            "" if scores.std is None else f"{100 * scores.std:.2f}",
            f"{100 * min(one.value for one in scores.each):.2f}",
            f"{100 * max(one.value for one in scores.each):.2f}",
        ]
        for n, scores in result.scores.items()
    ]
    first = next(iter(result.scores.values())).mean
    heads = ["shots", "accuracy %", "95 % interval", "std", "least", "most"]
    lines = [
        *_heading("few-shot linear probe", record, result.split.rule),
        *_indented(table(heads, rows, "rrrrrr")),
        f"  {record.protocol.parameters['draws']} draws of regions for each number; intervals by "
        f"{first.interval.method}; chance {_chance(first)}; protocol "
        f"{_protocol(record.protocol)}",
        f"  {result.result_path}",
    ]
    return "\n".join(lines)


def knn(result: KnnResult) -> str:
    """Accuracy of every k."""
    record = result.result
    rows = [
        [
            str(k),
            f"{100 * scores.mean.value:.2f}",
            f"{100 * scores.mean.interval.low:.2f} to {100 * scores.mean.interval.high:.2f}",
        ]
        for k, scores in result.scores.items()
    ]
    first = next(iter(result.scores.values())).mean
    lines = [
        *_heading("k-NN probe", record, result.split.rule),
        *_indented(table(["k", "accuracy %", "95 % interval"], rows, "rrr")),
        f"  every k is reported, none is chosen; votes weigh exp(cosine / "
        f"{record.protocol.parameters['temperature']:g}); {first.interval.method}; "
        f"chance {_chance(first)}",
        f"  {result.result_path}",
    ]
    return "\n".join(lines)


def prediction(found: Prediction) -> str:
    """The likeliest classes of one box."""
    from pa.data.datasets.imagenet import readable_label

    rows = [
        [readable_label(name), f"{100 * share:.2f}"]
        for name, share in found.classes[:CLASSES_SHOWN]
    ]
    heads = f"mean of {found.n_heads} heads" if found.n_heads > 1 else "one head"
    shown = ",".join(f"{value:g}" for value in found.box)
    return "\n".join(
        [
            table(["class", "probability %"], rows, " r"),
            f"box {shown}; {found.representation}, {heads} trained on {found.store}",
        ]
    )


def _heading(title: str, record: ProbeResult, rule: str) -> list[str]:
    train, test, counts = record.stores.train, record.stores.test, record.counts
    lines = [f"{title} · {record.representation} · {train.title}"]
    if test.title != train.title:
        lines.append(f"  test: {test.title}")
    lines.append(
        f"  rows: {rule}; train {counts.train_rows} rows of {counts.train_images} images, "
        f"test {counts.test_rows} of {counts.test_images}, {counts.classes} classes"
    )
    if left_out := [
        f"{number} {why} {side} rows"
        for side in ("training", "test")
        for why in ("unlabelled", "bad")
        if (number := getattr(counts, f"{SIDES[side]}_left_out_{why}"))
    ]:
        lines.append(f"  left out: {', '.join(left_out)}")
    return lines


def _choice(choice: Choice) -> list[str]:
    by = choice.validation
    settings = choice.settings()
    rows = [
        [
            entry["representation"],
            f"{entry['lr']:g}",
            f"{entry['weight_decay']:g}",
            "diverged" if entry["n_diverged"] else f"{100 * entry['accuracy']:.2f}",
        ]
        for entry in settings.head(CANDIDATES_SHOWN).iter_rows(named=True)
    ]
    more = len(settings) - len(rows)
    lines = [
        f"  chosen by {by.rule}: {len(by.score.rows)} rows of {by.score.n_images} images; then "
        f"trained on all training rows",
        *_indented(table(["representation", "lr", "weight decay", "validation %"], rows, " rrr")),
    ]
    return [*lines, f"  … and {more} more settings, in the result"] if more else lines


def _seeds(result: LinearResult) -> str:
    each = ", ".join(
        f"{100 * one.value:.2f} ({100 * one.interval.low:.2f} to {100 * one.interval.high:.2f})"
        for one in result.scores.each
    )
    first = result.runs[0].candidate.seed
    return f"  seeds {first} to {first + len(result.runs) - 1}: {each}"


def _scores(scores: Scores, *, short: bool = False) -> str:
    if not short:
        return str(scores)
    mean = scores.mean
    low, high = 100 * mean.interval.low, 100 * mean.interval.high
    return f"{100 * mean.value:.2f} % ({low:.2f} to {high:.2f})"


def _chance(score: Score) -> str:
    return f"{100 * score.chance.majority:.2f} %"


def _protocol(protocol: RecordedProtocol) -> str:
    if not protocol.changed:
        return str(protocol.name)
    listed = ", ".join(f"{name}={value}" for name, value in protocol.changed.items())
    return f"{protocol.name} changed: {listed}"


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
