"""Probe results as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pa.probe.linear import LinearResult


def linear(result: LinearResult) -> str:
    """The score of a probe with what is needed to judge it."""
    record = result.result
    train, test = record.stores["train"], record.stores["test"]
    counts = record.counts
    changed = record.protocol["changed"]
    recipe = record.protocol["protocol"] + (
        " changed: " + ", ".join(f"{k}={v}" for k, v in changed.items()) if changed else ""
    )
    lines = [
        f"linear probe · {record.representation} · {train['title']}",
        f"  rows: {result.split.rule}; train {counts['train_rows']} rows of "
        f"{counts['train_images']} images, test {counts['test_rows']} of {counts['test_images']}, "
        f"{len(result.split.classes)} classes",
        f"  accuracy {result.score}",
        f"  train accuracy {100 * result.run.train_accuracy:.2f} %; last epoch; protocol {recipe}",
        f"  {result.result_path}",
    ]
    if test["title"] != train["title"]:
        lines.insert(1, f"  test: {test['title']}")
    return "\n".join(lines)
