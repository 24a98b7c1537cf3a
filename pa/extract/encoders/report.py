"""The load report: the use of each tensor of a file, and the tensors that do not fit.

Loading is strict: each key of the file is used, ignored by a written rule, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

SHOWN = 6  # keys per list in an error message; the report contains all


@dataclass(frozen=True)
class Rule:
    """The target of the keys that fully match `pattern`; group 1 is the key at the target."""

    pattern: str
    target: str = ""  # "encoder" or "projector", "" for keys that are ignored
    reason: str = ""  # for ignoring the keys


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a checkpoint, key by key; keys are those of the file unless noted."""

    name: str
    checkpoint: str
    sha256: str = ""
    container: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()  # part of `matched`: key, new key
    ignored: tuple[tuple[str, str], ...] = ()  # key, reason of the rule
    missing: tuple[str, ...] = ()  # keys of the network
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()  # weights with NaN or infinity
    problem: str = ""  # why keys cannot be compared: another family, a damaged file
    looks_like: str = ""
    known: str = ""  # name of the published file with this hash
    accepted: bool = False  # loaded with `accept`, without evidence for this encoder
    # Mean L2 norm of each representation on a fixed synthetic image, to compare machines.
    norms: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not (self.problem or any(keys for _, keys in self.mismatches()))

    def mismatches(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the keys that do not fit, by kind."""
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
        parts = []
        for kind, keys in self.mismatches():
            more = f", … {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            parts += [f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{more})"] if keys else []
        advice = (
            "Its weights are damaged: download or save the file again."
            if self.not_finite
            else "Pass an official file of this encoder, or the encoder that this file belongs to."
        )
        return (
            f"{self.checkpoint} does not fit {self.name}: of the tensors in {self.container}, "
            f"{len(self.matched)} match, {'; '.join(parts)}. {self.looks_like} {advice}"
        )


@dataclass
class Comparison:
    """The tensors of one container, sorted by rules and compared with the modules they fill."""

    targets: dict[str, dict[str, Tensor]] = field(default_factory=dict)  # key at the target: tensor
    origin: dict[tuple[str, str], str] = field(default_factory=dict)  # (target, key) → key of file
    matched: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    @classmethod
    def sort(cls, tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> Comparison:
        """Sort tensors by the first matching rule; tensors without a rule are unexpected.

        The prefix `module.`, which DistributedDataParallel adds, is ignored.
        """
        result = cls()
        for key, tensor in tensors.items():
            matches = ((re.fullmatch(rf"(?:module\.)?(?:{r.pattern})", key), r) for r in rules)
            match, rule = next(((m, r) for m, r in matches if m), (None, None))
            if match is None or rule is None:
                result.unexpected.append(key)
            elif not rule.target:
                result.ignored.append((key, rule.reason))
            elif (rule.target, match[1]) in result.origin:
                result.unexpected.append(key)  # the same tensor twice, with and without a prefix
            else:
                result.targets.setdefault(rule.target, {})[match[1]] = tensor
                result.origin[rule.target, match[1]] = key
        return result

    def fill(self, module: nn.Module, target: str) -> None:
        """Compare the tensors of a target with those of a module, and load them if all fit.

        A buffer that counts batches may be missing: evaluation never reads it.
        """
        expected, tensors = module.state_dict(), self.targets.get(target, {})
        before = self.mismatches
        for key, tensor in tensors.items():
            name = self.origin[target, key]
            if key not in expected:
                self.unexpected.append(name)
            elif tensor.shape != expected[key].shape:
                shapes = f"expected {tuple(expected[key].shape)}, found {tuple(tensor.shape)}"
                self.wrong_shape.append(f"{name}: {shapes}")
            elif tensor.is_floating_point() != expected[key].is_floating_point():
                # Copying would truncate weights to integers, or complex ones to their real part.
                types = f"expected {expected[key].dtype}, found {tensor.dtype}"
                self.wrong_shape.append(f"{name}: {types}")
            elif not is_finite(tensor):
                self.not_finite.append(name)
            else:
                self.matched.append(name)
                if name != key:
                    self.renamed.append((name, key))
        self.missing += [
            key if target == "encoder" else f"{target}.{key}"
            for key in expected
            if key not in tensors and not key.endswith("num_batches_tracked")
        ]
        if before == self.mismatches:
            module.load_state_dict({**expected, **tensors}, strict=True)

    @property
    def mismatches(self) -> int:
        """Return the number of keys that do not fit."""
        return sum(map(len, (self.missing, self.unexpected, self.wrong_shape, self.not_finite)))

    def lists(self) -> dict[str, Any]:
        """Return the lists of keys, as fields of a `LoadReport`."""
        lists = {name: value for name, value in vars(self).items() if isinstance(value, list)}
        return {name: tuple(value) for name, value in lists.items()}


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity; 8-bit floats are allowed."""
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())
