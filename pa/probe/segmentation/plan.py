"""What a segmentation run costs before it is begun: bytes on disk and hours, three ways.

The features of the training windows can be cached once (one plain crop per image), cached for K
random crops of each image, or made anew for every batch (online). The arithmetic is here; which
rates were measured and which are assumed is said beside every one of them.

L tokens of a window, D width of the encoder, K layers kept, S side of a window, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pa.errors import UsageError

HOUR = 3600.0
ASSUMED = "assumed"


@dataclass(frozen=True)
class Rate:
    """How much of something is done in a second, and where the number comes from."""

    value: float
    unit: str
    source: str = ASSUMED

    def __post_init__(self) -> None:
        if not self.value > 0:
            raise UsageError(f"a rate must be positive, not {self.value:g} {self.unit}.")


@dataclass(frozen=True)
class Machine:
    """The rates of one machine.

    `encode` in FLOP/s of the encoder's forward pass, `head` in FLOP/s of the head's products,
    `loss` in logits/s of the cross-entropy at label resolution, `read` and `write` in bytes/s of
    the disk that holds the store.
    """

    name: str
    encode: Rate
    head: Rate
    loss: Rate
    read: Rate
    write: Rate

    def rates(self) -> dict[str, Rate]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Rate)}


# Round numbers of the right order, for want of measured ones: a desktop's cores in fp32; a data
# centre's GPU in fp32 with TF32 off for the head and bf16 for the encoder; an NVMe disk.
CPU = Machine(
    "cpu",
    encode=Rate(1e11, "FLOP/s"),
    head=Rate(1e11, "FLOP/s"),
    loss=Rate(5e8, "logits/s"),
    read=Rate(2e9, "bytes/s"),
    write=Rate(1e9, "bytes/s"),
)
GPU = Machine(
    "gpu",
    encode=Rate(2e14, "FLOP/s"),
    head=Rate(3e13, "FLOP/s"),
    loss=Rate(3e10, "logits/s"),
    read=Rate(2e9, "bytes/s"),
    write=Rate(1e9, "bytes/s"),
)


@dataclass(frozen=True)
class Workload:
    """What is to be done. `width`, `depth` and `patch` are the encoder's; `layers` of its blocks
    are kept; `classes` of every head; `labelled` is the share of pixels that have a label."""

    train_images: int
    test_images: int
    test_windows: int
    crop: int
    patch: int
    width: int
    depth: int
    layers: int
    value_bytes: int
    classes: tuple[int, ...]
    iterations: int
    batch: int
    labelled: float = 1.0

    @property
    def tokens(self) -> int:
        return (self.crop // self.patch) ** 2

    @property
    def window_bytes(self) -> int:
        """Bytes of one window's features in the store."""
        return self.tokens * self.layers * self.width * self.value_bytes

    @property
    def encode_flops(self) -> float:
        """FLOP of one window through a ViT: 24·L·D² + 4·L²·D per block, and the embedding.

        A multiplication and an addition are two. The MLP is four times as wide as the tokens.
        """
        tokens, width = self.tokens + 1, self.width
        block = 24 * tokens * width**2 + 4 * tokens**2 * width
        return self.depth * block + 2 * self.tokens * 3 * self.patch**2 * width

    @property
    def head_flops(self) -> float:
        """FLOP of the heads' products in one iteration, forwards and for the gradient."""
        inputs = self.batch * self.tokens * self.layers * self.width
        return 4.0 * inputs * sum(self.classes)

    @property
    def logits(self) -> float:
        """Logits at label resolution in one iteration."""
        return self.batch * self.crop**2 * sum(self.classes) * self.labelled

    def encode_seconds(self, machine: Machine, windows: float) -> float:
        return windows * self.encode_flops / machine.encode.value

    def step_seconds(self, machine: Machine) -> float:
        """Computing one iteration of the heads."""
        return self.head_flops / machine.head.value + self.logits / machine.loss.value


@dataclass(frozen=True)
class Way:
    """One way to do it on one machine; `keeps_crops`: the recipe's random crops, not one plain."""

    name: str
    machine: str
    n_bytes: float
    encode_hours: float
    train_hours: float
    keeps_crops: bool
    limited_by: str

    @property
    def hours(self) -> float:
        return self.encode_hours + self.train_hours

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "hours": self.hours}


@dataclass(frozen=True)
class Plan:
    """All ways on all machines, what they rest on, and the one to take."""

    work: Workload
    machines: tuple[Machine, ...]
    ways: tuple[Way, ...]
    free_bytes: float
    encoder_source: str
    recommendation: str

    def to_json(self) -> dict[str, Any]:
        return {
            "work": vars(self.work),
            "encoder": self.encoder_source,
            "free_bytes": self.free_bytes,
            "rates": {
                machine.name: {name: vars(rate) for name, rate in machine.rates().items()}
                for machine in self.machines
            },
            "ways": [way.to_json() for way in self.ways],
            "recommendation": self.recommendation,
        }


def make_plan(
    work: Workload,
    machines: Sequence[Machine],
    views: int,
    free_bytes: float,
    encoder_source: str,
    here: str,
) -> Plan:
    """Cost every way on every machine; recommend one for the machine named `here`."""
    ways = tuple(way for machine in machines for way in _ways(work, machine, views))
    own = [way for way in ways if way.machine == here]
    advice = _recommend(own, free_bytes)
    return Plan(work, tuple(machines), ways, free_bytes, encoder_source, advice)


def _ways(work: Workload, machine: Machine, views: int) -> list[Way]:
    ways = [_cached(work, machine, 1)]
    if views > 1:
        ways.append(_cached(work, machine, views))
    step = work.step_seconds(machine)
    encode = work.encode_seconds(machine, work.batch)
    hours = work.iterations * (step + encode) / HOUR
    scoring = work.encode_seconds(machine, work.test_windows) / HOUR
    limit = "encoding" if encode > step else "the head"
    return [*ways, Way("online", machine.name, 0, scoring, hours, True, limit)]


def _cached(work: Workload, machine: Machine, views: int) -> Way:
    windows = views * work.train_images + work.test_windows
    n_bytes = windows * work.window_bytes
    # Reading ahead and computing go on at once, and so do encoding and writing: the slower counts.
    making = max(work.encode_seconds(machine, windows), n_bytes / machine.write.value)
    read = work.batch * work.window_bytes / machine.read.value
    step = work.step_seconds(machine)
    name = "cached, 1 plain crop" if views == 1 else f"cached, {views} random crops"
    hours = work.iterations * max(read, step) / HOUR
    limit = "reading" if read > step else "the head"
    return Way(name, machine.name, n_bytes, making / HOUR, hours, views > 1, limit)


def _recommend(ways: Sequence[Way], free_bytes: float) -> str:
    """Of the ways that `pa` has, the fastest that keeps random crops and fits; then what else."""
    fitting = [way for way in ways if way.n_bytes <= free_bytes and way.name != "online"]
    if not fitting:
        return (
            "no cache fits on this disk: store fewer crops, score a part of the images (--limit), "
            "or move the workspace"
        )
    best = min(fitting, key=lambda way: (not way.keeps_crops, way.hours))
    (online,) = (way for way in ways if way.name == "online")
    advice = f"{best.name} on this machine ({best.machine}), limited by {best.limited_by}"
    if not best.keeps_crops:
        advice += "; it leaves out the recipe's random crops, and the result will say so"
    ratio = best.hours / online.hours
    if ratio > 1:
        advice += (
            f". Encoding each batch anew would take {1 / ratio:.2f} of the time at these rates: "
            f"--online trains so"
        )
    return advice
