"""`pa probe attentive`: train, score and record attentive heads on stored tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pa.data.store.spec import digest
from pa.errors import UsageError
from pa.evaluate.devices import torch_device
from pa.evaluate.results import AttentiveProbeResult, versions
from pa.probe.attentive.head import AttentiveHead
from pa.probe.attentive.recipes import PAPER, AttentiveRecipe
from pa.probe.attentive.tokens import REPRESENTATION, Tokens, check_tokens
from pa.probe.attentive.train import train_heads
from pa.probe.checkpoints import Checkpoint
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.recording import ClassificationScorer, TrainedProbe, probe_result, trained_heads
from pa.probe.selection import ProbeStores
from pa.probe.training import Candidate, learning_curves
from pa.probe.validation import Choice, ProbeOptions, ValidationSplit, choose, validation_split
from pa.progress import Progress, Silent, Stopwatch

TASK = AttentiveProbeResult.task
MEMORY = 2e9  # bytes of patch tokens: leaves room for torch on a machine with 8 GB

AttentiveResult = TrainedProbe[AttentiveRecipe, AttentiveHead]


@dataclass(frozen=True, kw_only=True)
class AttentiveOptions(ProbeOptions):
    """Options of the attentive probe."""

    recipe: AttentiveRecipe = PAPER
    lr: tuple[float, ...] = ()  # rates to choose from; a single one is used as it is
    memory: float = MEMORY  # bytes of patch tokens to keep; more are streamed, to the same result
    resume: bool = True  # resume a killed run

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.lr)) < len(self.lr) or not all(rate > 0 for rate in self.lr):
            raise UsageError(f"learning rates must be positive and different: {list(self.lr)}.")
        if self.memory < 0:
            raise UsageError(f"memory for features must not be negative: {self.memory:g} bytes.")


def run_attentive(
    stores: ProbeStores,
    options: AttentiveOptions | None = None,
    *,
    results: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> AttentiveResult:
    """Train attentive heads on stored tokens, score them, and write result, heads and curves.

    The state of training is stored next to the result until the result is written. The same call
    replaces its own files.

    Parameters
    ----------
    stores
        Stores of the training and the test split, or one store whose rows are divided.
    options
        Of several learning rates one is chosen on validation rows; the heads are then trained on
        all training rows.
    results
        Folder of the results.

    Raises
    ------
    UsageError
        Every head diverges, the rows cannot be divided, or the tokens differ in width.
    FingerprintError, UnknownNameError, VerificationError, StorageError
        From the stores, the tokens and the disk.
    """
    options, progress = options or AttentiveOptions(), progress or Silent()
    recipe = options.recipe
    if len(options.lr) == 1:
        recipe = replace(recipe, lr=options.lr[0])
    recipe.to_json()  # an unknown protocol fails before the work
    clock = Stopwatch()
    split = stores.split(recipe.protocol)
    for side in (split.train, split.test):
        n_attention_heads = recipe.heads_of(check_tokens(side.store))
    validation = None
    if len(options.lr) > 1:
        if options.select_split is not None:
            check_tokens(options.select_split)
        validation = validation_split(split, options)
    clock.lap("rows")
    protocol = {
        **recipe.to_json(),
        "seeds": options.seeds,
        "lr_choices": list(options.lr) if validation else None,
        "choosing": validation.to_json() if validation else None,
    }
    # The names of the result and of the state files are fixed before the training.
    planned = probe_result(AttentiveProbeResult, split, REPRESENTATION, protocol, {}, {}, {})
    target = torch.device(torch_device(device))
    states = [_state(results, planned, stage, target) for stage in ("choosing", "training")]
    if not options.resume:
        for state in states:
            state.remove()
    choice, chosen = None, None
    if validation is not None:
        choice = _choose(validation, options, target, states[0], progress)
        recipe = replace(recipe, lr=choice.setting["lr"])
        columns = ("lr", "seed", "accuracy", "loss", "diverged", "chosen")
        chosen = {**validation.to_json(), "candidates": choice.sweep.select(columns).to_dicts()}
        clock.lap("choose")
    train = Tokens(split.train, target, memory=options.memory)
    # Test rows that are read after every epoch share the memory with the training rows.
    left = max(options.memory - train.patches.row_bytes * len(train), 0)
    test = Tokens(split.test, target, memory=left if recipe.reported == BEST_ON_TEST else 0)
    candidates = [_candidate(recipe, recipe.lr, seed) for seed in options.seed_range]
    runs = train_heads(train, test, candidates, recipe, checkpoint=states[1], progress=progress)
    clock.lap("train")
    scorer, order = ClassificationScorer(split), recipe.order
    confusion = scorer.confusion(runs)
    buffer_rows = -(-order.buffer_rows // order.block_rows) * order.block_rows  # whole blocks
    held_bytes = train.patches.held_bytes(buffer_rows)
    details = {
        "device": device,
        "lr": recipe.lr,
        "chosen": chosen,
        "memory": {"kept": train.patches.is_kept, "bytes": held_bytes},
        "epochs": [run.epoch for run in runs],
        "train_accuracy": [round(float(run.train_accuracy[-1]), 6) for run in runs],
        "train_loss": [round(float(run.train_loss[-1]), 6) for run in runs],
        "resumed_after_epoch": runs[0].resumed or None,
        "confusion": confusion.tolist(),
        "per_class": scorer.per_class(confusion),
    }
    scores = scorer.score_heads(runs, recipe.reported)
    result = replace(planned, scores=scores, seconds=clock.laps, details=details)
    constants = {
        "attention_heads": str(n_attention_heads),
        "norm_eps": repr(recipe.norm_eps),
        "bn_eps": repr(recipe.bn_eps),
    }
    trained = trained_heads(AttentiveHead, runs, split, constants)
    probe = TrainedProbe(results, result, split, recipe, trained, runs, confusion, choice)
    # All heads read the same tokens with the weight decay of the recipe.
    probe.write(learning_curves(runs).drop("representation", "weight_decay"))
    for state in states:
        state.remove()
    return probe


def _candidate(recipe: AttentiveRecipe, lr: float, seed: int) -> Candidate:
    return Candidate(REPRESENTATION, lr, recipe.weight_decay, seed)


def _choose(
    validation: ValidationSplit,
    options: AttentiveOptions,
    device: torch.device,
    state: Checkpoint,
    progress: Progress,
) -> Choice:
    """Train heads of every rate and seed together on the rows that fit, and choose a rate."""
    recipe = options.recipe
    heads = train_heads(
        Tokens(validation.fit, device, memory=options.memory),
        Tokens(validation.score, device),
        [_candidate(recipe, lr, seed) for lr in options.lr for seed in options.seed_range],
        recipe,
        choosing=True,
        checkpoint=state,
        progress=progress,
    )
    return choose(validation, heads, recipe)


def _state(
    results: Path, planned: AttentiveProbeResult, stage: str, device: torch.device
) -> Checkpoint:
    """Return the state file of a stage; its key names features, kind of device and torch."""
    features = [store.checksum for store in planned.stores_by_role.values()]
    key = digest([planned.digest, features, stage, device.type, versions()["torch"]])
    return Checkpoint(planned.path(results).with_suffix(f".{stage}.state"), key)
