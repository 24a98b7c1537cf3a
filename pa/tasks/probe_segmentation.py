"""`pa probe segmentation`: which inputs and recipe, then `pa.probe.segmentation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.data.store.source import FeatureSource
from pa.errors import UnknownNameError, UsageError
from pa.progress import Named, Progress
from pa.tasks.choose import device
from pa.tasks.encoders import EncoderChoice
from pa.tasks.segmentation_inputs import InputsRequest, choose_stores, live_stores, source_of
from pa.tasks.segmentation_labels import label_maps

if TYPE_CHECKING:
    from pa.probe.segmentation.recipes import SegmentationRecipe
    from pa.probe.segmentation.run import SegmentationRun

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class SegmentationRequest(InputsRequest):
    """What `pa probe segmentation` was asked; None = take it from the settings or the recipe.

    `encoder` may be several, with commas: one after the other. `changes` are fields of the recipe.
    `test_fraction` is for two splits that are one, and 0.2 there by default.
    """

    protocol: str = "paper"
    iterations: int | None = None
    lrs: tuple[float, ...] = ()
    init_seeds: tuple[int, ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()
    test_fraction: float | None = None
    ceiling: bool = False
    figures: int | None = None


def probe_segmentation(
    config: Config, request: SegmentationRequest, progress: Progress
) -> list[tuple[SegmentationRun, Path | None]]:
    """Train and score segmentation heads on windows; return each run and its figure.

    Of several encoders each is trained on its own store, in the order they are named. Raises
    `UsageError` for options that do not go together, before anything is read.
    """
    check_request(request)
    names = encoder_names(config, request)
    if request.checkpoint is not None and not request.online:
        raise UsageError("--checkpoint is for --online: stored features need no weights.")
    EncoderChoice(checkpoint=request.checkpoint).check_names(config, names)
    each = [replace(request, encoder=name) for name in names]
    # All of them before the first is trained: what is missing is said at once.
    pairs = [None if one.online else _stores(config, one) for one in each]
    return [_probe(config, one, pair, progress) for one, pair in zip(each, pairs, strict=True)]


def _stores(config: Config, request: SegmentationRequest) -> tuple[FeatureSource, FeatureSource]:
    name = request.encoder or config.settings.encoder or ""
    return choose_stores(config, request, make_recipe(request, name).representation)


def _probe(
    config: Config,
    request: SegmentationRequest,
    pair: tuple[FeatureSource, FeatureSource] | None,
    progress: Progress,
) -> tuple[SegmentationRun, Path | None]:
    from pa.probe.segmentation.record import TASK, check_folder
    from pa.probe.segmentation.run import SegmentationOptions, run_segmentation

    if pair is None:
        representation = make_recipe(request, request.encoder or "").representation
        pair = live_stores(config, request, representation)
    train, test = pair
    if request.test_fraction is not None and train.spec.split != test.spec.split:
        raise UsageError(
            f"--test-fraction is the share of images held out where one split is both trained on "
            f"and scored; here split {train.spec.split} trains and split {test.spec.split} is "
            f"scored. Leave it out, or name one split twice."
        )
    fraction = TEST_FRACTION if request.test_fraction is None else request.test_fraction
    options = SegmentationOptions(
        lrs=request.lrs,
        init_seeds=request.init_seeds,
        test_fraction=fraction,
        ceiling=request.ceiling,
        figures=request.figures or 0,
        image_root=request.root or source_of(test),
        online=request.online,
    )
    if request.figures:
        check_folder(config.figures / TASK)
    run = run_segmentation(
        train,
        test,
        label_maps(config, request, train.spec.dataset, source_of(train)),
        results=config.results,
        recipe=make_recipe(request, train.encoder),
        options=options,
        device=device(request.device or config.settings.device),
        progress=Named(progress, train.label),
    )
    if not run.shown:
        return run, None
    from pa.figures.segmentation import draw_run

    path = config.figures / TASK / f"{run.results[0].result.name}.png"
    draw_run(path, run)
    return run, path


def encoder_names(config: Config, request: SegmentationRequest) -> tuple[str | None, ...]:
    """The encoders asked for, of flag or settings; (None,) where neither says, for any store's.

    Raises `UsageError` for one that is named twice, or for several beside a fingerprint.
    """
    if request.encoder is None and (request.train_store or request.test_store):
        return (None,)
    text = request.encoder if request.encoder is not None else config.settings.encoder
    if text is None:
        return (None,)
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"--encoder {text!r} has an empty part: names with commas between them.")
    refuse_twice("--encoder", names)
    if len(names) > 1 and (request.train_store or request.test_store):
        raise UsageError(
            f"--train-store and --test-store name stores of one encoder, but {len(names)} were "
            f"asked for ({', '.join(names)}). Name one."
        )
    return tuple(names)


# -- what goes together ------------------------------------------------------------------------


def check_request(request: SegmentationRequest) -> None:
    """Raise `UsageError` for options without an effect beside others, and for values said twice."""
    if (request.masks is None) != (request.names is None):
        raise UsageError("--masks DIR and --names FILE (a class a line) go together: give both.")
    if request.masks is not None and request.labels:
        raise UsageError(
            "--masks and --names give the labels themselves, --labels names a dataset's: give "
            "one or the other."
        )
    for one in request.labels:
        name, equals, root = one.partition("=")
        if not name or (equals and not root):
            raise UsageError(
                f"--labels {one!r}: expected NAME, or NAME=DIR with the folder that holds the "
                f"masks of NAME."
            )
    refuse_twice("--labels", [one.partition("=")[0] for one in request.labels])
    if request.online and (request.train_store or request.test_store):
        raise UsageError("--online encodes anew: it does not go with --train-store, --test-store.")
    if not request.online:
        for option, value in (("--views", request.views), ("--limit", request.limit)):
            if value is not None:
                raise UsageError(
                    f"{option} {value} is for --online. What is stored was chosen when it was "
                    f"extracted: pa extract {option} {value}."
                )
    refuse_twice("--lr", request.lrs)
    refuse_twice("--init-seeds", request.init_seeds)


def refuse_twice(option: str, values: Sequence[Any]) -> None:
    """Raise `UsageError` for a value that an option names more than once."""
    twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise UsageError(
            f"{option} names {', '.join(map(str, twice))} more than once: it would be the same "
            f"result again. Name each once."
        )


# -- the recipe --------------------------------------------------------------------------------


def make_recipe(request: SegmentationRequest, encoder: str) -> SegmentationRecipe:
    """The recipe of the protocol, shortened and changed as asked.

    Fewer iterations shorten the warm-up in proportion, unless it is given too. Raises `UsageError`
    for a field that is said twice, of another type, or without an effect beside the others.
    """
    from dataclasses import fields

    from pa.probe.segmentation.recipes import named_recipe

    recipe = named_recipe(request.protocol, encoder)
    known = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    known.pop("protocol")
    for name, value in request.changes:
        if [field for field, _ in request.changes].count(name) > 1:
            raise UsageError(f"the recipe's {name} is given twice: say it once.")
        if name not in known:
            raise UnknownNameError("field of the recipe", name, known)
        kind = type(known[name])
        whole_as_float = kind is float and type(value) is int
        if type(value) is not kind and not whole_as_float:
            raise UsageError(f"recipe {name}={value!r}: expected a {kind.__name__}.")
    changes = dict(request.changes)
    for name, option, given in (
        ("iterations", "--iterations", request.iterations is not None),
        ("lr", "--lr", bool(request.lrs)),
        ("init_seed", "--init-seeds", bool(request.init_seeds)),
    ):
        if given and name in changes:
            raise UsageError(f"{option} and --recipe {name}=… say the same: give one of them.")
    iterations = changes.pop("iterations", request.iterations)
    if iterations is not None:
        if iterations < 1:
            raise UsageError(f"--iterations {iterations}: expected 1 or more.")
        recipe = recipe.shortened(iterations)
    made = replace(recipe, **changes)
    _refuse_idle(made, changes, len(request.init_seeds))
    for lr in request.lrs:
        replace(made, lr=lr)  # raises for a rate that cannot be, before anything is read
    for seed in request.init_seeds:
        replace(made, init_seed=seed)
    return made


def _refuse_idle(recipe: SegmentationRecipe, changes: dict[str, Any], n_seeds: int) -> None:
    """Raise `UsageError` for a change that the rest of the recipe leaves without an effect."""
    idle = [
        ("decay_bias", "weight_decay is 0", recipe.weight_decay == 0),
        ("warmup_ratio", "warmup is 0", recipe.warmup == 0),
        ("init_seed", "init_std is 0", recipe.init_std == 0),
    ]
    for name, reason, is_idle in idle:
        if is_idle and name in changes:
            raise UsageError(f"--recipe {name}=… has no effect: {reason}.")
    if recipe.init_std == 0 and n_seeds > 0:
        raise UsageError("--init-seeds has no effect: init_std is 0, all first weights are equal.")
