"""`pa probe linear`: train linear classifiers, with or without `--shots`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pa.commands import options
from pa.commands.probe.rows import (
    TRAINING_OPTIONS,
    USUAL,
    RowSelector,
    Training,
    device_option,
    protocol_text,
    rows_options,
    scores_text,
    show,
    training_text,
    usual_representation,
)
from pa.errors import UsageError
from pa.progress import Named

if TYPE_CHECKING:
    from pa.probe.linear.recipes import LinearRecipe
    from pa.probe.linear.run import LinearOptions, LinearResult
    from pa.probe.recording import ScoredProbe
    from pa.probe.selection import ProbeStores
    from pa.workspace import Workspace

SWEPT = ("representation", "lr", "weight_decay")


@dataclass(frozen=True)
class LinearTraining(Training):
    """How linear heads are trained; None or empty selects the value of the recipe."""

    representation: tuple[str, ...] = ()  # several of these three need a sweep
    lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    sweep: bool = False
    references: bool | None = None  # None: where they take seconds

    def inputs(self, workspace: Workspace, rows: RowSelector) -> tuple[ProbeStores, LinearOptions]:
        """Resolve stores and recipe. Raise `UsageError` for options that exclude each other."""
        from pa.probe.linear.run import LinearOptions
        from pa.probe.linear.train import Grid

        several = [
            f"--{name.replace('_', '-')} {','.join(map(str, values))}"
            for name in SWEPT
            if len(values := getattr(self, name)) > 1
        ]
        if several and not self.sweep:
            raise UsageError(
                f"several values were given ({'; '.join(several)}): --sweep trains all of them and "
                f"chooses on rows that are not reported. Add --sweep, or give one value."
            )
        if self.select_split is not None and not self.sweep:
            raise UsageError("--select-split names the validation rows of a --sweep; add --sweep.")
        self.check_fraction()
        rows = rows.complete(workspace)
        recipe = self.recipe(rows.protocol)
        stores = rows.stores(workspace, recipe.seed)
        representation = self.representation or (usual_representation(stores.train),)
        grid = None
        if self.sweep:
            seeds = range(recipe.seed, recipe.seed + self.seeds)
            decays = self.weight_decay or (recipe.weight_decay,)
            grid = Grid(representation, self.lr or (recipe.lr,), decays, tuple(seeds))
        return stores, LinearOptions(
            recipe=recipe,
            representation=representation[0],
            grid=grid,
            references=self.references,
            **self.validation(workspace, rows),
        )

    def recipe(self, protocol: str | None) -> LinearRecipe:
        """Return the recipe of a protocol with the fields that the options change."""
        from pa.probe.linear.recipes import LINEAR_PROTOCOLS

        named = LINEAR_PROTOCOLS[protocol or USUAL]
        swept = ("lr", "weight_decay")
        first = {name: values[0] for name in swept if (values := getattr(self, name))}
        recipe = replace(named, **self.changes(), **first)
        if self.bn_eval is not None and not recipe.batch_norm:
            raise UsageError(
                f"--bn-eval selects the statistics of a BatchNorm, and protocol {named.protocol} "
                f"has none. Leave it out, or add --protocol imagenet-cae."
            )
        return recipe


training_options = options.Group(
    "training",
    LinearTraining,
    click.Option(
        ["--representation"],
        callback=options.listed,
        help="Representations, separated by commas; cls+pooled concatenates two. Default: cls.",
    ),
    click.Option(
        ["--lr"], callback=options.reals, help="Learning rates, separated by commas. Paper: 0.4."
    ),
    click.Option(
        ["--weight-decay"],
        callback=options.reals,
        help="Weight decays, separated by commas. Paper: 0.",
    ),
    *TRAINING_OPTIONS,
    click.Option(
        ["--seed"], type=int, help="Seed of initial weights, row order and held-out images."
    ),
    click.Option(
        ["--sweep"],
        is_flag=True,
        help="Train all given values and select the best on held-out training images.",
    ),
    click.Option(
        ["--references/--no-references"],
        default=None,
        help="Also fit ridge and logistic regression. Default: only if it takes seconds.",
    ),
)
shots_option = click.option(
    "--shots",
    callback=options.numbers,
    help="Numbers of training regions per class, separated by commas, such as 1,5,10.",
)


@click.command()
@rows_options
@training_options
@shots_option
@click.option(
    "--draws",
    type=int,
    default=5,
    show_default=True,
    help="Number of random draws of training regions per number of shots.",
)
@device_option
@click.option(
    "--figure",
    type=options.PATH,
    help="Draw confusion matrix, learning curves and sweep to this .png, .pdf or .svg file.",
)
@options.as_json
@options.workspace
def linear(
    workspace: Workspace,
    rows: RowSelector,
    training: LinearTraining,
    shots: tuple[int, ...],
    draws: int,
    device: str | None,
    figure: Path | None,
    as_json: bool,
) -> None:
    """Train linear classifiers on stored features and score them.

    Training and test rows are two splits, two conditions on the rows of one store, or (the default)
    images held out from one store. --protocol names the recipe: paper (the default), released,
    imagenet or imagenet-cae. A sweep selects on rows that are not part of the reported score.

    \b
    pa probe linear
    pa probe linear --train-split train --test-split val --representation pooled --seeds 5
    pa probe linear --train-split train --test-split test --protocol released
    pa probe linear --lr 0.1,0.4,1 --representation cls,pooled --sweep --figure sweep.pdf
    pa probe linear --shots 1,5,10
    """
    from pa.figures.curves import draw_fewshot, draw_linear
    from pa.figures.style import check_suffix
    from pa.probe.linear.fewshot import run_fewshot
    from pa.probe.linear.run import run_linear

    if figure is not None:
        check_suffix(figure)
    if shots and (training.sweep or training.seeds > 1):
        raise UsageError(
            "--shots trains one head for each draw of regions and excludes --sweep and --seeds. "
            "Use --draws N for more draws."
        )
    stores, linear_options = training.inputs(workspace, rows)
    results, target_device = workspace.config.results, workspace.device(device)
    progress = Named(workspace.progress, stores.train.label)
    result: LinearResult | ScoredProbe
    if shots:
        result = run_fewshot(
            stores,
            linear_options,
            shots=shots,
            draws=draws,
            results=results,
            device=target_device,
            progress=progress,
        )
        protocol = result.result.protocol
        note = f"{draws} draws of regions for each number; protocol {protocol_text(protocol)}"
        text = scores_text("few-shot linear probe", result, "shots", note)
        if figure is not None:
            draw_fewshot(result, figure)
    else:
        result = run_linear(
            stores, linear_options, results=results, device=target_device, progress=progress
        )
        text = linear_text(result)
        if figure is not None:
            draw_linear(result, figure)
    show(result, text, as_json=as_json)


def linear_text(result: LinearResult) -> str:
    """Return the scores of a probe with what is needed to judge them."""
    references = []
    for name, (reference, scores) in result.references.items():
        state = "" if reference.model.converged else ", not converged"
        references.append(
            f"  {name:<8} {100 * scores.value:.2f} % ({scores.interval.text()}), "
            f"penalty {reference.model.strength:g} chosen on held-out training rows{state}"
        )
    lines = training_text("linear probe", result, SWEPT, references)
    guessing = math.log(len(result.split.classes))  # cross-entropy of equal probabilities
    loss = max(float(run.train_loss[-1]) for run in result.runs)
    if loss > guessing:
        lines.append(
            f"  the training loss ends at {loss:.3g}, above the {guessing:.3g} of guessing: the "
            f"learning rate is too large for these features"
        )
    return "\n".join(lines)
