"""The load report: which tensor of the file went where, and what did not fit.

Nothing is loaded "non-strictly". A key of the file is used, ignored by a written rule, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

SHOWN = 6  # keys per list in an error message; the report holds them all


@dataclass(frozen=True)
class Rule:
    """Where the keys go that match `pattern` (a full match; group 1 is the key at the target).

    `target` is "encoder" or "projector", or "" for keys that are ignored because of `reason`.
    """

    pattern: str
    target: str = ""
    reason: str = ""


@dataclass(frozen=True)
class LoadReport:
    """What loading a checkpoint does, key by key. Keys are those of the file, but for `missing`.

    `renamed` pairs each changed key with its new name and is a part of `matched`; `ignored` pairs
    each key with the rule; `not_finite` are weights with NaN or infinity. `problem` says why there
    is nothing to compare (another family, a damaged file), and is empty otherwise; `looks_like`
    says what the file seems to be, `known` which published file it is where its hash is known, and
    `accepted` that it shows no sign of this encoder and was loaded with `accept`. `norms` are mean
    L2 norms of each representation on a fixed synthetic image: a fingerprint to compare between
    machines.
    """

    name: str
    checkpoint: str
    sha256: str = ""
    container: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    problem: str = ""
    looks_like: str = ""
    known: str = ""
    accepted: bool = False
    norms: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not (self.problem or any(keys for _, keys in self.misfits()))

    def misfits(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return each kind of misfit with its keys."""
        return (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of the wrong shape", self.wrong_shape),
            ("with NaN or infinity", self.not_finite),
        )

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def describe(self) -> str:
        """Return the reason for failure in one paragraph."""
        if self.problem:
            return self.problem
        parts = [f"{len(keys)} {kind} ({_shorten(keys)})" for kind, keys in self.misfits() if keys]
        advice = (
            "Its weights are damaged: download or save the file again."
            if self.not_finite
            else "Pass an official file of this encoder, or the encoder that this file belongs to."
        )
        return (
            f"{self.checkpoint} does not fit {self.name}: of the tensors in {self.container}, "
            f"{len(self.matched)} match, {'; '.join(parts)}. {self.looks_like} {advice}"
        )


def _shorten(keys: Sequence[str]) -> str:
    more = f", … {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more


@dataclass(frozen=True)
class Sorted:
    """The tensors of one container, sorted by rules.

    `targets` maps target -> {key there: tensor}; `origin` maps (target, key there) -> key in the
    file; `ignored` and `unexpected` hold keys of the file.
    """

    targets: dict[str, dict[str, Tensor]]
    origin: dict[tuple[str, str], str]
    ignored: tuple[tuple[str, str], ...]
    unexpected: tuple[str, ...]

    def __getitem__(self, target: str) -> dict[str, Tensor]:
        return self.targets.get(target, {})


def sort_keys(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Sorted:
    """Send every tensor where the first matching rule says; what no rule matches is unexpected.

    The prefix `module.`, which DistributedDataParallel adds, is ignored.
    """
    targets: dict[str, dict[str, Tensor]] = {}
    origin: dict[tuple[str, str], str] = {}
    ignored: list[tuple[str, str]] = []
    unexpected: list[str] = []
    for key, tensor in tensors.items():
        for rule in rules:
            if match := re.fullmatch(rf"(?:module\.)?(?:{rule.pattern})", key):
                if rule.target and (rule.target, match[1]) in origin:
                    unexpected.append(key)  # the same tensor twice, with and without a prefix
                elif rule.target:
                    targets.setdefault(rule.target, {})[match[1]] = tensor
                    origin[rule.target, match[1]] = key
                else:
                    ignored.append((key, rule.reason))
                break
        else:
            unexpected.append(key)
    return Sorted(targets, origin, tuple(ignored), tuple(unexpected))


@dataclass
class Comparison:
    """Key lists of a report, filled by one `fill` per module."""

    matched: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    @property
    def misfits(self) -> int:
        """The number of keys that do not fit."""
        return sum(map(len, (self.missing, self.unexpected, self.wrong_shape, self.not_finite)))

    def lists(self) -> dict[str, Any]:
        return {name: tuple(value) for name, value in vars(self).items()}


def fill(module: nn.Module, target: str, found: Sorted, into: Comparison) -> None:
    """Compare the tensors of a target with a module's own, and load them where all fit.

    A buffer that only counts batches may be absent: evaluation never reads it.
    """
    wanted, given = module.state_dict(), found[target]
    before = into.misfits
    for key, tensor in given.items():
        name = found.origin[target, key]
        if key not in wanted:
            into.unexpected.append(name)
        elif tensor.shape != wanted[key].shape:
            shapes = f"expected {tuple(wanted[key].shape)}, found {tuple(tensor.shape)}"
            into.wrong_shape.append(f"{name}: {shapes}")
        elif tensor.is_floating_point() != wanted[key].is_floating_point():
            # Copying would cut weights down to whole numbers, or complex ones to their real part.
            types = f"expected {wanted[key].dtype}, found {tensor.dtype}"
            into.wrong_shape.append(f"{name}: {types}")
        elif not is_finite(tensor):
            into.not_finite.append(name)
        else:
            into.matched.append(name)
            if name != key:
                into.renamed.append((name, key))
    absent = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    into.missing += [key if target == "encoder" else f"{target}.{key}" for key in absent]
    if before == into.misfits:
        module.load_state_dict({**wanted, **given}, strict=True)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity; its numbers may be of 8 bits."""
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())
