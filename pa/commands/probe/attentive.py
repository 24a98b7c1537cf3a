"""`pa probe attentive`: train attentive classifiers on stored tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.commands.probe.rows import (
    TRAINING_OPTIONS,
    USUAL,
    RowSelector,
    Training,
    device_option,
    rows_options,
    show,
    training_text,
)
from pa.errors import UsageError
from pa.progress import Named

if TYPE_CHECKING:
    from pa.probe.attentive.recipes import AttentiveRecipe
    from pa.probe.attentive.run import AttentiveOptions, AttentiveResult
    from pa.probe.selection import ProbeStores
    from pa.workspace import Workspace

CLASSES_SHOWN = 10  # accuracies of more classes do not fit on a line


@dataclass(frozen=True)
class AttentiveTraining(Training):
    """How attentive heads are trained; None or empty selects the value of the recipe."""

    lr: tuple[float, ...] = ()  # of several, one is chosen on validation rows
    weight_decay: float | None = None
    attention_heads: int | None = None
    precision: str | None = None
    order_seed: int | None = None  # one order for all heads: they share every batch
    memory: float = 2.0  # GB
    resume: bool = True

    def inputs(
        self, workspace: Workspace, rows: RowSelector
    ) -> tuple[ProbeStores, AttentiveOptions]:
        """Resolve stores and recipe. Raise `UsageError` for options that exclude each other."""
        from pa.probe.attentive.run import AttentiveOptions

        if self.select_split is not None and len(self.lr) < 2:
            raise UsageError(
                "--select-split names the validation rows that choose between learning rates: give "
                "several values of --lr."
            )
        self.check_fraction()
        rows = rows.complete(workspace)
        recipe = self.recipe(rows.protocol)
        return rows.stores(workspace, recipe.seed), AttentiveOptions(
            recipe=recipe,
            lr=self.lr,
            memory=self.memory * 1e9,
            resume=self.resume,
            **self.validation(workspace, rows),
        )

    def recipe(self, protocol: str | None) -> AttentiveRecipe:
        """Return the recipe of a protocol with the fields that the options change."""
        from pa.probe.attentive.recipes import ATTENTIVE_PROTOCOLS

        named = ATTENTIVE_PROTOCOLS[protocol or USUAL]
        changes = self.changes("weight_decay", "attention_heads", "precision")
        if self.order_seed is not None:
            changes["order"] = replace(named.order, seed=self.order_seed)
        return replace(named, **changes)


training_options = options.Group(
    "training",
    AttentiveTraining,
    click.Option(
        ["--lr"],
        callback=options.reals,
        help="Learning rates, separated by commas; one of several is selected on held-out images. "
        "Paper: 0.04.",
    ),
    click.Option(["--weight-decay"], type=float, help="Weight decay. Paper: 0."),
    *TRAINING_OPTIONS,
    click.Option(["--seed"], type=int, help="Seed of initial weights and held-out images."),
    click.Option(
        ["--attention-heads"], type=int, help="Number of attention heads. Default: width / 64."
    ),
    click.Option(["--precision"], help="Precision of matrix products with tokens: fp32 or bf16."),
    click.Option(["--order-seed"], type=int, help="Seed of the row order, shared by all heads."),
    click.Option(
        ["--memory"],
        type=float,
        default=2.0,
        show_default=True,
        help="Memory for patch tokens in GB; more are streamed from disk.",
    ),
    click.Option(
        ["--resume/--no-resume"],
        default=True,
        help="Continue an interrupted run, or start again.",
    ),
)


@click.command()
@rows_options
@training_options
@device_option
@click.option(
    "--figure",
    type=options.PATH,
    help="Draw confusion matrix and learning curves to this .png, .pdf or .svg file.",
)
@options.as_json
@options.workspace
def attentive(
    workspace: Workspace,
    rows: RowSelector,
    training: AttentiveTraining,
    device: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Train attentive classifiers on stored tokens and score them.

    A learned query attends to the class and patch tokens of each region. Training and test rows are
    selected as in `pa probe linear`; --protocol names the recipe (paper, released, imagenet,
    imagenet-cae). Requires stores extracted with --features cls,patch.

    \b
    pa probe attentive --train-split train --test-split test --seeds 5
    pa probe attentive --lr 0.01,0.04,0.1 --seeds 3
    """
    from pa.figures.curves import draw_attentive
    from pa.figures.style import check_suffix
    from pa.probe.attentive.run import run_attentive

    if figure is not None:
        check_suffix(figure)
    stores, attentive_options = training.inputs(workspace, rows)
    result = run_attentive(
        stores,
        attentive_options,
        results=workspace.config.results,
        device=workspace.device(device),
        progress=Named(workspace.progress, stores.train.label),
    )
    if figure is not None:
        draw_attentive(result, figure)
    show(result, attentive_text(result), as_json=as_json)


def attentive_text(result: AttentiveResult) -> str:
    """Return the scores of a probe with what is needed to judge them."""
    record, recipe, notes = result.result, result.recipe, []
    if recipe.bn_eval == "batch":
        notes.append(
            f"  the BatchNorm used the statistics of each {recipe.eval_batch} test rows: a row's "
            f"class depends on its neighbours in the file"
        )
    by_class = record.details["per_class"]
    if len(by_class) <= CLASSES_SHOWN:
        accuracies = ", ".join(
            f"{entry['class']} "
            + ("–" if entry["accuracy"] is None else f"{100 * entry['accuracy']:.1f}")
            for entry in by_class
        )
        notes.append(f"  by class: {accuracies} %")
    memory, resumed = record.details["memory"], result.runs[0].resumed
    return "\n".join(
        [
            *training_text("attentive probe", result, ("lr",), notes),
            f"  {sum(record.seconds.values()):.1f} s"
            + (f" since epoch {resumed}, where an earlier run was ended" if resumed else "")
            + f"; patch tokens {'kept in memory' if memory['kept'] else 'streamed'}, "
            f"{console.size(memory['bytes'])} at a time",
        ]
    )
