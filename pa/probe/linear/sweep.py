"""Many linear heads in one pass: learning rates × weight decays × representations × seeds.

Heads of one representation and one seed see the same features in the same order, and are one matrix
(`pa.probe.linear.sgd`). Each pair of representation and seed is a group of its own, because the
features or the order of rows differ. Every head ends where it would alone.

Shapes: N training rows, n test rows, D width, C classes, H heads of a stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pa.errors import MismatchError, UsageError, VerificationError
from pa.probe.linear.head import BatchNorm
from pa.probe.linear.monitor import LOGITS, Data, Watch
from pa.probe.linear.recipes import LinearRecipe
from pa.probe.linear.sgd import Heads, Norm, fit, initial_weight
from pa.probe.recipes import BEST_ON_TEST
from pa.probe.selection import LabelledRows
from pa.progress import Progress, Silent

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


Read = Callable[[str], tuple[LabelledRows, LabelledRows]]


@dataclass(frozen=True)
class Candidate:
    """One head of a sweep; `lr` as the recipe's field."""

    representation: str
    lr: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Grid:
    """The values of a sweep, each of which meets each other one."""

    representation: tuple[str, ...]
    lr: tuple[float, ...]
    weight_decay: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in ("representation", "lr", "weight_decay", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UsageError(
                    f"a sweep needs one or more different values of {name}, not {list(values)}."
                )

    def candidates(self) -> list[Candidate]:
        """All of them; those of one representation and seed, which share batches, in a row."""
        return [
            Candidate(representation, lr, decay, seed)
            for representation, seed, lr, decay in product(
                self.representation, self.seeds, self.lr, self.weight_decay
            )
        ]

    @property
    def n_settings(self) -> int:
        """How many candidates there are but for the seed."""
        return len(self.representation) * len(self.lr) * len(self.weight_decay)


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A trained head and its course.

    `weight` (C, D), `bias` (C,), float32, and the `norm` before it. `predicted` (n,) are the class
    indices of the test rows and `test_loss` their mean loss, at `epoch` (counted from 1), which is
    the one the recipe reports; `last_predicted` are those of the last epoch. `train_loss`,
    `train_accuracy` and, where it was watched, `test_accuracy` are (epochs,). `diverged` is the
    epoch, from 1, in which the head ceased to be finite.
    """

    candidate: Candidate
    weight: Floats
    bias: Floats
    norm: BatchNorm | None
    predicted: Ints
    last_predicted: Ints
    test_loss: float
    epoch: int
    train_loss: Floats
    train_accuracy: Floats
    test_accuracy: Floats | None
    diverged: int | None


def train_stack(
    read: Read,
    candidates: Sequence[Candidate],
    recipe: LinearRecipe,
    *,
    watch: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
    title: str = "training linear heads",
) -> list[TrainedHead]:
    """Train all candidates by a recipe, whose rate, weight decay and seed they replace.

    `read(representation)` gives training and test rows; it is called once for each representation
    (candidates of one must stand together), so that the features of one only are in memory. With
    `watch` the test rows are scored after every epoch, otherwise at the end. Equal inputs give
    equal bits on the CPU; nothing global is seeded. A head that diverges says so and leaves the
    others alone. Returns the heads in the order of the candidates. Raises `VerificationError` for
    features that are not finite, `MismatchError` for sides of different width, `UsageError` for
    test targets beyond the training classes and for a device that is not there.
    """
    if recipe.reported == BEST_ON_TEST and not watch:
        recipe = replace(recipe, reported="last epoch")
    place, progress = find_device(device), progress or Silent()
    heads: list[TrainedHead] = []
    n_groups = len({(c.representation, c.seed) for c in candidates})
    progress.start(title, recipe.epochs * n_groups, "epochs")
    try:
        for representation, of_one in groupby(candidates, key=lambda c: c.representation):
            data = _data(*read(representation), place)
            for seed, group in groupby(list(of_one), key=lambda c: c.seed):
                mine = replace(recipe, seed=seed)
                for stack in _stacks(list(group), mine.batch, data):
                    heads += _train(data, stack, mine, watch, progress)
    finally:
        progress.stop()
    return heads


def _data(train: LabelledRows, test: LabelledRows, device: torch.device) -> Data:
    _check(train, test)
    return Data(
        _tensor(train.features, device),
        torch.tensor(train.targets, device=device),
        _tensor(test.features, device),
        torch.tensor(test.targets, device=device),
        int(train.targets.max()) + 1,
    )


def _stacks(group: list[Candidate], batch: int, data: Data) -> Iterator[list[Candidate]]:
    """Parts of a group whose logits fit into memory; for few classes that is the whole group."""
    size = max(1, LOGITS // (min(batch, len(data.train)) * data.n_classes))
    for start in range(0, len(group), size):
        yield group[start : start + size]


def _train(
    data: Data,
    stack: list[Candidate],
    recipe: LinearRecipe,
    watch: bool,
    progress: Progress,
) -> list[TrainedHead]:
    device, width = data.train.device, data.train.shape[1]
    first = initial_weight(recipe.seed, width, data.n_classes, recipe.init_std).to(device)
    heads = Heads(
        weight=first[:, None].repeat(1, len(stack), 1),
        bias=torch.zeros(data.n_classes, len(stack), device=device),
        lr=torch.tensor([recipe.rate(c.lr) for c in stack], device=device),
        weight_decay=torch.tensor([c.weight_decay for c in stack], device=device),
        norm=_norm(recipe, width, device),
    )
    watcher = Watch(data, heads, recipe)
    course = fit(
        data.train,
        data.train_targets,
        heads,
        recipe.schedule,
        progress,
        watcher if watch else None,
    )
    if not watch:
        watcher.accuracy[-1] = watcher.score(recipe.epochs - 1)
    made = []
    for place, candidate in enumerate(stack):
        diverged = int(course.diverged[place])
        made.append(
            TrainedHead(
                candidate=candidate,
                weight=watcher.weight[:, place].contiguous().cpu().numpy(),
                bias=watcher.bias[:, place].contiguous().cpu().numpy(),
                norm=watcher.norms[place],
                predicted=watcher.predicted[:, place].cpu().numpy(),
                last_predicted=watcher.last[:, place].cpu().numpy(),
                test_loss=float(watcher.loss[place]),
                epoch=int(watcher.epoch[place]) + 1,
                train_loss=course.loss[:, place].numpy(),
                train_accuracy=course.accuracy[:, place].numpy(),
                test_accuracy=watcher.accuracy[:, place].numpy() if watch else None,
                diverged=diverged + 1 if diverged >= 0 else None,
            )
        )
    return made


def find_device(name: str) -> torch.device:
    """The device of this name. Raises `UsageError` where torch has none."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"no device {name!r}: torch finds no GPU. Use --device cpu.")
    return device


def surviving(heads: Sequence[TrainedHead], recipe: LinearRecipe) -> list[TrainedHead]:
    """Those that did not diverge. Raises `UsageError`, with rate and epoch, where none is left."""
    left = [head for head in heads if head.diverged is None]
    if not left:
        rates = sorted({recipe.rate(head.candidate.lr) for head in heads})
        first = min(heads, key=lambda head: head.diverged or 0)
        raise UsageError(
            f"training diverged: with learning rate {', '.join(f'{rate:g}' for rate in rates)} the "
            f"loss is not finite in epoch {first.diverged} of {recipe.epochs}. Lower the learning "
            f"rate with --lr."
        )
    return left


def check_finite(side: str, rows: LabelledRows) -> None:
    """Raise `VerificationError`, with the rows, for features that hold NaN or infinity."""
    # NaN passes through both; a mask of all values would be a quarter of the features' size.
    finite = np.isfinite(rows.features.min(1)) & np.isfinite(rows.features.max(1))
    if not finite.all():
        wrong = rows.rows[~finite]
        shown = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
        raise VerificationError(
            f"{len(wrong)} {side} rows hold NaN or infinity: rows {shown}. A store never keeps "
            f"such values, so its bytes were damaged: check it with `pa verify`."
        )


def _check(train: LabelledRows, test: LabelledRows) -> None:
    widths = train.features.shape[1], test.features.shape[1]
    if widths[0] != widths[1]:
        raise MismatchError(f"training features have width {widths[0]}, test features {widths[1]}.")
    n_classes, largest = int(train.targets.max()) + 1, int(test.targets.max())
    if largest >= n_classes:
        raise UsageError(
            f"a test row has class {largest}, but the training rows have classes 0 to "
            f"{n_classes - 1} only."
        )
    check_finite("training", train)
    check_finite("test", test)


def _norm(recipe: LinearRecipe, width: int, device: torch.device) -> Norm | None:
    if not recipe.batch_norm:
        return None
    return Norm(torch.zeros(width, device=device), torch.ones(width, device=device), recipe.bn_eps)


def _tensor(features: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    dtype = np.float16 if features.dtype == np.float16 else np.float32
    return torch.from_numpy(np.require(features, dtype, ["C", "W"])).to(device)


def fixed(rows: Mapping[str, tuple[LabelledRows, LabelledRows]]) -> Read:
    """Rows already in memory as a reader."""
    return rows.__getitem__
