"""Results of the attentive probe as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pa.commands.console import size, table

if TYPE_CHECKING:
    from pa.probe.attentive.run import AttentiveResult

CLASSES_SHOWN = 10


def attentive(result: AttentiveResult) -> str:
    """The scores of a probe with what is needed to judge them."""
    record, recipe, counts = result.result, result.recipe, result.result.counts
    train, test = record.stores.train, record.stores.test
    lines = [f"attentive probe · {record.representation} · {train.title}"]
    if test.title != train.title:
        lines.append(f"  test: {test.title}")
    lines.append(
        f"  rows: {result.split.rule}; train {counts.train_rows} rows of "
        f"{counts.train_images} images, test {counts.test_rows} of {counts.test_images}, "
        f"{len(result.split.classes)} classes"
    )
    lines += _choice(result)
    lines.append(f"  accuracy {result.scores}")
    if len(result.heads) > 1:
        each = ", ".join(f"{100 * one.value:.2f}" for one in result.scores.each)
        lines.append(f"  seeds {recipe.seed} to {recipe.seed + len(result.heads) - 1}: {each} %")
    if "accuracy_last_epoch" in record.scores:
        last = record.scores["accuracy_last_epoch"].value
        epochs = ", ".join(map(str, result.trained.epoch.tolist()))
        lines.append(
            f"  this is the {recipe.reported} (epoch {epochs}), chosen by the rows it is scored on "
            f"and so optimistic; the last epoch gives {100 * last:.2f} %"
        )
    if recipe.bn_eval == "batch":
        lines.append(
            f"  the BatchNorm used the statistics of each {recipe.eval_batch} test rows: a row's "
            f"class depends on its neighbours in the file"
        )
    lines += _classes(result)
    trained = float(result.trained.accuracy[-1].mean())
    lines.append(
        f"  train accuracy {100 * trained:.2f} % in the last epoch; protocol {_protocol(result)}"
    )
    lines.append(f"  {_course(result)}")
    lines.append(f"  {result.result_path}")
    return "\n".join(lines)


def _choice(result: AttentiveResult) -> list[str]:
    if result.sweep is None:
        return []
    chosen = result.result.details["chosen"]
    rows = []
    for (lr,), group in result.sweep.group_by("lr", maintain_order=True):
        mean, lost = group["accuracy"].mean(), group["diverged"].count()
        said = f"{lost} of {len(group)} diverged" if lost else ""
        mark = "chosen" if group["chosen"].all() else said
        rows.append([f"{lr:g}", "" if mean is None else f"{100 * float(str(mean)):.2f}", mark])
    head = (
        f"  learning rate by {chosen['rule']}, {chosen['rows']} rows of {chosen['images']} images"
    )
    return [
        head,
        *(f"  {line}" for line in table(["lr", "accuracy %", ""], rows, "rr ").split("\n")),
    ]


def _classes(result: AttentiveResult) -> list[str]:
    by_class = result.result.details["per_class"]
    if len(by_class) > CLASSES_SHOWN:
        return []
    shown = ", ".join(
        f"{one['class']} " + ("–" if one["accuracy"] is None else f"{100 * one['accuracy']:.1f}")
        for one in by_class
    )
    return [f"  by class: {shown} %"]


def _protocol(result: AttentiveResult) -> str:
    changed = result.result.protocol.changed
    recipe = result.recipe
    rate = f"lr {recipe.peak(recipe.lr):g}"
    words = ", ".join(f"{name}={value}" for name, value in changed.items())
    return f"{recipe.protocol}, {rate}" + (f", changed: {words}" if words else "")


def _course(result: AttentiveResult) -> str:
    seconds = sum(result.result.seconds.values())
    resumed = result.trained.resumed
    memory = result.result.details["memory"]
    how = "kept in memory" if memory["kept"] else "streamed"
    return (
        f"{seconds:.1f} s"
        + (f" since epoch {resumed}, where an earlier run was ended" if resumed else "")
        + f"; patch tokens {how}, {size(memory['bytes'])} at a time"
    )
