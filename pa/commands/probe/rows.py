"""Options that the probes share: stores, rows and training; and the text about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console, options
from pa.errors import MissingError, UsageError

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.evaluate.result_parts import RecordedProtocol
    from pa.probe.recording import ScoredProbe, TrainedProbe
    from pa.probe.selection import ProbeStores, Split
    from pa.probe.validation import Choice
    from pa.workspace import Workspace

SETTINGS_SHOWN = 8  # of a choice
USUAL = "paper"  # the recipe without --protocol
SELECT_FRACTION = 0.2  # the default of `pa.probe.validation`, which imports more than a command may


@dataclass(frozen=True)
class RowSelector:
    """The stores and rows of a probe; None selects the value of the settings.

    `protocol` names the recipe and, for view `parts`, the protocols of its two stores.
    """

    encoder: str | None = None
    dataset: str | None = None
    split: str | None = None  # of the only store, if no two splits are named
    view: str | None = None
    protocol: str | None = None
    fingerprint: str | None = None  # or its first characters
    train_split: str | None = None
    test_split: str | None = None
    train_where: str | None = None  # SQL conditions over the rows table
    test_where: str | None = None
    where: str | None = None  # for both sides
    target: str | None = None  # column to predict
    test_fraction: float = 0.2  # of each class's images, if nothing else divides the rows

    def complete(self, workspace: Workspace) -> RowSelector:
        """Fill the open fields from the settings.

        The division of [probe] counts only if no field divides the rows. Raise `UsageError` if one
        of two splits is named.
        """
        from pa.probe.recipes import PART_STORES

        settings, rows = workspace.settings, self
        dividing = ("train_split", "test_split", "train_where", "test_where")
        if all(getattr(self, name) is None for name in dividing):
            rows = replace(rows, **{name: getattr(settings.probe, name) for name in dividing})
        if (rows.train_split is None) != (rows.test_split is None):
            raise UsageError(
                "only one of --train-split and --test-split was given: name both, or neither."
            )
        entry = settings.datasets.get(rows.dataset or settings.dataset or "")
        if rows.protocol is None and entry is not None and entry.protocol in PART_STORES:
            rows = replace(rows, protocol=entry.protocol)
        return replace(rows, target=rows.target or settings.probe.target or "label")

    def stores(self, workspace: Workspace, seed: int) -> ProbeStores:
        """Return the training store, the test store if two splits are named, and the division.

        `seed` draws the images that are held out.
        """
        from pa.probe.selection import ProbeStores, SplitOptions

        target = self.target or "label"
        conditions = self.where, self.train_where, self.test_where
        options = SplitOptions(target, *conditions, self.test_fraction, seed)
        if not (self.train_split and self.test_split):
            return ProbeStores(self.store(workspace, self.split, "test"), None, options)
        train = self.store(workspace, self.train_split, "train")
        return ProbeStores(train, self.store(workspace, self.test_split, "test"), options)

    def store(self, workspace: Workspace, split: str | None, role: str) -> Store:
        """Return the store of a split; `role` is "train" or "test".

        For view `parts` it is a store that the protocol pairs; without a protocol one of `paper`,
        if any. Raise `UsageError` if all fitting stores belong to another recipe, and what
        `Workspace.store` raises.
        """
        from pa.data.store.find import StoreSelector, protocol
        from pa.probe.recipes import PART_STORES

        selector = StoreSelector(
            dataset=self.dataset,
            split=split,
            view=self.view,
            encoder=self.encoder,
            fingerprint=self.fingerprint,
        )
        pair = PART_STORES.get(self.protocol or "")
        if pair is not None:
            return workspace.store(replace(selector, protocol=getattr(pair, role)))
        if self.fingerprint is not None:
            return workspace.store(selector)
        try:
            return workspace.store(replace(selector, protocol=USUAL))
        except MissingError:
            store = workspace.store(selector)
        rules = protocol(store)
        for name, other in PART_STORES.items():
            if name != USUAL and rules in (other.train, other.test):
                raise UsageError(
                    f"{store.title} holds parts cut by protocol {rules}, but the recipe is "
                    f"{self.protocol or USUAL}. Add --protocol {name} for the recipe and the "
                    f"stores that belong to it, or extract the parts by protocol {USUAL}."
                )
        return store


rows_options = options.Group(
    "rows",
    RowSelector,
    click.Option(["--encoder"], help="Encoder of the stores."),
    click.Option(["--dataset"], help="Dataset of the stores."),
    click.Option(["--split"], help="Split of the store, if one store has all rows."),
    click.Option(["--view"], help="View of the stores: image, grid or parts."),
    click.Option(
        ["--protocol"], help="Recipe of the probe and, for view parts, protocol of its stores."
    ),
    click.Option(
        ["--store", "fingerprint"],
        help="Fingerprint of the store; its first characters are enough.",
    ),
    click.Option(["--train-split"], help="Split to train on. Requires --test-split."),
    click.Option(["--test-split"], help="Split to score. Requires --train-split."),
    click.Option(
        ["--train-where"], help="SQL condition that selects the training rows, such as 'x1 <= 112'."
    ),
    click.Option(
        ["--test-where"], help="SQL condition that selects the test rows, such as 'x0 >= 112'."
    ),
    click.Option(
        ["--where"], help="SQL condition that selects the rows to use, for training and test."
    ),
    click.Option(["--target"], help="Column to predict. Default: label."),
    click.Option(
        ["--test-fraction"],
        type=float,
        default=0.2,
        show_default=True,
        help="Fraction of each class's images to hold out if no other option separates training "
        "and test rows.",
    ),
)
device_option = click.option("--device", help="Device: auto, cpu, cuda or cuda:N.")


@dataclass(frozen=True)
class Training:
    """Options of all probes that train heads; None selects the value of the recipe."""

    epochs: int | None = None
    batch: int | None = None
    momentum: float | None = None
    bn_eval: str | None = None
    seed: int | None = None
    seeds: int = 1
    select_split: str | None = None  # validation rows; None holds training images out
    select_fraction: float = SELECT_FRACTION

    def changes(self, *more: str) -> dict[str, Any]:
        """Return the fields of a recipe that options change, those named `more` among them."""
        names = ("epochs", "batch", "momentum", "bn_eval", "seed", *more)
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def check_fraction(self) -> None:
        """Raise `UsageError` for both a validation split and a fraction of the training images."""
        if self.select_split is not None and self.select_fraction != SELECT_FRACTION:
            raise UsageError(
                "--select-fraction is the fraction of the training images held out for "
                "validation; --select-split replaces them. Give one of them."
            )

    def validation(self, workspace: Workspace, rows: RowSelector) -> dict[str, Any]:
        """Return the fields of `pa.probe.validation.ProbeOptions` beyond the recipe."""
        split = self.select_split
        store = None if split is None else rows.store(workspace, split, "test")
        fraction = self.select_fraction
        return {"seeds": self.seeds, "select_split": store, "select_fraction": fraction}


TRAINING_OPTIONS = (
    click.Option(["--epochs"], type=int, help="Number of epochs. Paper: 90."),
    click.Option(["--batch"], type=int, help="Batch size. Paper: 1024."),
    click.Option(["--momentum"], type=float, help="Momentum of SGD. Paper: 0.9."),
    click.Option(
        ["--bn-eval"], help="Statistics that BatchNorm uses at test time: running or batch."
    ),
    click.Option(
        ["--seeds"],
        type=click.IntRange(1, 1000),
        default=1,
        show_default=True,
        help="Number of seeds, at most 1000.",
    ),
    click.Option(
        ["--select-split"],
        help="Split used to select hyper-parameters. Default: a fraction of the training images.",
    ),
    click.Option(
        ["--select-fraction"],
        type=float,
        default=SELECT_FRACTION,
        show_default=True,
        help="Fraction of the training images used to select hyper-parameters.",
    ),
)


def usual_representation(store: Store) -> str:
    """Return the class token, as in the paper; else the pooled mean."""
    return "cls" if "cls" in store.spec.representations else "pooled"


def heading(probe: str, representation: str, split: Split) -> list[str]:
    """Return the stores, the rule and the number of rows of a probe."""
    train, test = split.train, split.test
    lines = [f"{probe} · {representation} · {train.store.title}"]
    if test.store.title != train.store.title:
        lines.append(f"  test: {test.store.title}")
    lines.append(
        f"  rows: {split.rule}; train {len(train.rows)} rows of {train.n_images} images, "
        f"test {len(test.rows)} of {test.n_images}, {len(split.classes)} classes"
    )
    if omitted := [
        f"{number} {reason} {name} rows"
        for name, side in (("training", train), ("test", test))
        for reason, number in (("unlabelled", side.n_unlabelled), ("bad", side.n_bad))
        if number
    ]:
        lines.append(f"  skipped: {', '.join(omitted)}")
    return lines


def show(result: ScoredProbe | TrainedProbe[Any, Any], text: str, *, as_json: bool) -> None:
    """Print a result with its file as one JSON object, or its text."""
    if as_json:
        options.emit({**result.result.to_json(), "file": str(result.result_path)})
    else:
        console.out(f"{text}\n  {result.result_path}")


def scores_text(probe: str, result: ScoredProbe, number: str, note: str) -> str:
    """Return a table of the scores by `number`, the name of their key, and a note on them."""
    rows = []
    for n, scores in result.scores.items():
        row = [str(n), f"{100 * scores.value:.2f}", scores.interval.text()]
        if scores.std is not None:
            each = [score.value for score in scores.each]
            row += [f"{100 * value:.2f}" for value in (scores.std, min(each), max(each))]
        rows.append(row)
    headers = [number, "accuracy %", "95 % interval", "std", "min", "max"][: len(rows[0])]
    first = next(iter(result.scores.values()))
    lines = [
        *heading(probe, result.result.representation, result.split),
        *indented(console.table(headers, rows, "r" * len(headers))),
        f"  {note}; intervals by {first.interval.method}; chance "
        f"{100 * first.chance.majority:.2f} %",
    ]
    return "\n".join(lines)


def training_text(
    probe: str, result: TrainedProbe[Any, Any], columns: Sequence[str], more: Sequence[str]
) -> list[str]:
    """Return the scores of trained heads with what is needed to judge them.

    `columns` are those of the settings in a choice, `more` lines of one probe after the scores.
    """
    record, runs, reported = result.result, result.runs, result.recipe.reported
    lines = heading(probe, record.representation, result.split)
    if result.choice is not None:
        lines += _choice_text(result.choice, columns)
    lines.append(f"  accuracy {result.scores}")
    if len(runs) > 1:
        seeds = ", ".join(f"{100 * s.value:.2f} ({s.interval.text()})" for s in result.scores.each)
        lines.append(f"  seeds {runs[0].candidate.seed} to {runs[-1].candidate.seed}: {seeds}")
    if result.last_epoch is not None:
        epochs = ", ".join(str(run.epoch) for run in runs)
        lines.append(
            f"  this is the {reported} (epoch {epochs}), chosen on the rows it is scored on and so "
            f"optimistic; the last epoch gives {100 * result.last_epoch.value:.2f} %"
        )
    train_accuracy = sum(float(run.train_accuracy[-1]) for run in runs) / len(runs)
    rate = result.recipe.peak(result.recipe.lr)
    return [
        *lines,
        *more,
        f"  train accuracy {100 * train_accuracy:.2f} % in the last epoch; {reported}; learning "
        f"rate {rate:g}; protocol {protocol_text(record.protocol)}",
    ]


def _choice_text(choice: Choice, columns: Sequence[str]) -> list[str]:
    validation, settings = choice.validation, choice.settings()
    rows = []
    for setting in settings.head(SETTINGS_SHOWN).iter_rows(named=True):
        values = [setting[name] for name in columns]
        row = [value if isinstance(value, str) else f"{value:g}" for value in values]
        # A mean over the other seeds would hide the divergence.
        rows.append(
            [*row, "diverged" if setting["n_diverged"] else f"{100 * setting['accuracy']:.2f}"]
        )
    headers = [*(name.replace("_", " ") for name in columns), "validation %"]
    right = "".join(" " if name == "representation" else "r" for name in headers)
    more = len(settings) - len(rows)
    return [
        f"  chosen on {validation.rule}: {len(validation.score.rows)} rows of "
        f"{validation.score.n_images} images; then trained on all training rows",
        *indented(console.table(headers, rows, right)),
        *([f"  … and {more} more settings, in the result"] if more else []),
    ]


def protocol_text(protocol: RecordedProtocol) -> str:
    """Return the name of a recipe and its changed fields."""
    if not protocol.changed:
        return str(protocol.name)
    listed = ", ".join(f"{name}={value}" for name, value in protocol.changed.items())
    return f"{protocol.name} changed: {listed}"


def indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
