"""What a segmentation run costs before it is begun: bytes on disk and hours, three ways.

The features of the training windows can be cached once (one plain crop per image), cached for K
random crops of each image, or made anew for every batch (online). The arithmetic is here; which
rates were measured and which are assumed is said beside every one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pa.probe.segmentation.costs import Machine, Workload

HOUR = 3600.0


@dataclass(frozen=True)
class Way:
    """One way to do it on one machine.

    `windows` are encoded in all; `keeps_crops`: the recipe's random crops, not one plain.
    """

    name: str
    machine: str
    n_bytes: float
    windows: float
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
class Advice:
    """The way to take, and what decides: the quantity, and its numbers in words."""

    way: str
    decided_by: str
    text: str


@dataclass(frozen=True)
class Plan:
    """All ways on all machines, what they rest on, and the one to take."""

    work: Workload
    machines: tuple[Machine, ...]
    ways: tuple[Way, ...]
    free_bytes: float
    encoder_source: str
    advice: Advice

    def to_json(self) -> dict[str, Any]:
        return {
            "work": {**vars(self.work), "epochs": self.work.epochs},
            "encoder": self.encoder_source,
            "free_bytes": self.free_bytes,
            "rates": {
                machine.name: {name: vars(rate) for name, rate in machine.rates().items()}
                for machine in self.machines
            },
            "ways": [way.to_json() for way in self.ways],
            "advice": vars(self.advice),
        }


def make_plan(
    work: Workload,
    machines: Sequence[Machine],
    views: int,
    free_bytes: float,
    encoder_source: str,
    here: str,
) -> Plan:
    """Cost every way on every machine; recommend one for the machine named `here`.

    Where `views` crops of each image do not fit on the disk, as many as fit are costed too.
    """
    counts = {1, views}
    fitting = int((free_bytes / work.window_bytes - work.test_windows) // work.train_images)
    if 1 < fitting < views:
        counts.add(fitting)
    ways = tuple(way for machine in machines for way in _ways(work, machine, sorted(counts)))
    own = {machine.name: machine for machine in machines}[here]
    advice = _advise(work, own, [way for way in ways if way.machine == here], free_bytes)
    return Plan(work, tuple(machines), ways, free_bytes, encoder_source, advice)


def _ways(work: Workload, machine: Machine, counts: Sequence[int]) -> list[Way]:
    step = work.step_seconds(machine)
    encode = work.encode_seconds(machine, work.batch)
    windows = work.iterations * work.batch + work.test_windows
    online = Way(
        "online",
        machine.name,
        n_bytes=0,
        windows=windows,
        encode_hours=work.encode_seconds(machine, work.test_windows) / HOUR,
        train_hours=work.iterations * (step + encode) / HOUR,
        keeps_crops=True,
        limited_by="encoding" if encode > step else "the head",
    )
    return [*(_cached(work, machine, views) for views in counts), online]


def _cached(work: Workload, machine: Machine, views: int) -> Way:
    windows = views * work.train_images + work.test_windows
    n_bytes = windows * work.window_bytes
    # Reading ahead and computing go on at once, and so do encoding and writing: the slower counts.
    making = max(work.encode_seconds(machine, windows), n_bytes / machine.write.value)
    read = work.read_seconds(machine)
    step = work.step_seconds(machine)
    return Way(
        "cached, 1 plain crop" if views == 1 else f"cached, {views} random crops",
        machine.name,
        n_bytes=n_bytes,
        windows=windows,
        encode_hours=making / HOUR,
        train_hours=work.iterations * max(read, step) / HOUR,
        keeps_crops=views > 1,
        limited_by="reading" if read > step else "the head",
    )


def _advise(work: Workload, machine: Machine, ways: Sequence[Way], free_bytes: float) -> Advice:
    """The fastest way that keeps the recipe's random crops and fits on the disk; and why.

    The reason is the one quantity in which it differs most from its rival: online from cached, or
    cached from online.
    """
    (online,) = (way for way in ways if way.name == "online")
    cached = [way for way in ways if way is not online and way.keeps_crops]
    fitting = [way for way in cached if way.n_bytes <= free_bytes]
    # More crops are nearer to the recipe: of those that fit, the most.
    best = max(fitting, key=lambda way: way.n_bytes, default=None)
    plain = next(way for way in ways if not way.keeps_crops)
    if best is not None and best.hours <= online.hours:
        return _advice(best, online, *_encoding(work, machine, best, online))
    if best is not None:
        reading = best.train_hours - online.train_hours > best.encode_hours - online.encode_hours
        why = _reading(work, machine) if reading else _encoding(work, machine, online, best)
        return _advice(online, best, *why)
    if cached:
        rival = min(cached, key=lambda way: way.n_bytes)
        needs = f"{rival.name} needs {_size(rival.n_bytes)}, {_size(free_bytes)} are free"
        return _advice(online, plain, "space on disk", needs)
    faster = plain if plain.hours <= online.hours and plain.n_bytes <= free_bytes else online
    rival = online if faster is plain else plain
    return _advice(faster, rival, *_encoding(work, machine, faster, rival))


def _advice(best: Way, rival: Way, quantity: str, numbers: str) -> Advice:
    text = (
        f"{best.name} ({best.machine}): {_time(best.hours)} in all, {rival.name} "
        f"{_time(rival.hours)}"
    )
    crops = "" if rival.keeps_crops else ", without the recipe's random crops"
    lost = "" if best.keeps_crops else "; it leaves out the recipe's random crops"
    return Advice(best.name, quantity, f"{text}{crops}{lost}. Decided by {quantity}: {numbers}")


def _encoding(work: Workload, machine: Machine, best: Way, rival: Way) -> tuple[str, str]:
    rate = 1 / work.encode_seconds(machine, 1)
    numbers = (
        f"{best.windows:,.0f} {best.name}, {rival.windows:,.0f} {rival.name} "
        f"({work.epochs:.3g} epochs), at {rate:.3g} windows/s ({machine.encode.source})"
    )
    return "windows to encode", numbers


def _reading(work: Workload, machine: Machine) -> tuple[str, str]:
    numbers = (
        f"a batch of {_size(work.batch * work.window_bytes)} takes "
        f"{work.read_seconds(machine):.3g} s to read at {_size(machine.read.value)}/s "
        f"({machine.read.source}) and {work.encode_seconds(machine, work.batch):.3g} s to encode"
    )
    return "reading speed", numbers


def _time(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.3g} GB"
