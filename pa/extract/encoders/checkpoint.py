"""Read a checkpoint file without executing code from it, and compare it key by key.

Official files are torch pickles or safetensors. Pickles are read with `weights_only=True`; the only
other class in official training checkpoints is `argparse.Namespace`. Loading is strict: each key of
the file is used, ignored by a written rule, or an error.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pa.errors import CheckpointError, MissingError

ZIP_MAGIC = b"PK\x03\x04"  # torch.save since 1.6
PICKLE_MAGIC = b"\x80"  # torch.save before 1.6
# Messages of torch's restricted unpickler for a class that is not allowed; others mean damage.
REFUSALS = ("unsupported global", "unsupported class", "can only build", "not an allowed")

SHOWN = 6  # keys per list in an error message; the report contains all


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint in memory."""

    path: Path
    sha256: str  # of the file
    content: Mapping[str, Any]  # the saved object, usually a dict of containers


def read(path: Path | str, hint: str = "") -> CheckpointFile:
    """Read a .pth, .pt, .tar or .safetensors file.

    Raises `MissingError` if it does not exist (`hint` is appended: where to get it), and
    `CheckpointError` if it is truncated, not a checkpoint, or contains more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise MissingError(f"checkpoint {path} {what}. {hint}".rstrip())
    with path.open("rb") as file:
        head = file.read(64)
    # By content, not by name: downloads are saved under any suffix.
    if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
        try:
            content: Any = load_file(path)
        except SafetensorError as error:
            raise _damaged(path, error) from None
    elif head.startswith((ZIP_MAGIC, PICKLE_MAGIC)):
        content = _read_pickle(path, mmap=head.startswith(ZIP_MAGIC))
    else:
        raise CheckpointError(
            f"{path} is not a checkpoint: expected a torch or safetensors file, found "
            f"{_describe(head)}. {hint}".rstrip()
        )
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            f"{path} holds {type(content).__name__!r} where a non-empty dict of tensors was "
            "expected. Save the state_dict of the network and pass that file."
        )
    # Refused here, where the name of the tensor is known.
    for container, value in [("", content), *content.items()]:
        for key, tensor in tensors_in(value).items():
            if kind := _unusual(tensor):
                name = f"{container}/{key}" if container else key
                raise CheckpointError(
                    f"{path}: the tensor {name!r} is {kind}. Expected dense floating-point "
                    "weights. Convert the tensor (to_dense, dequantize) and save the file again."
                )
    return CheckpointFile(path, file_sha256(path), content)


def _unusual(tensor: Tensor) -> str:
    """Return what a tensor is if it is not dense; "" if it is."""
    if tensor.is_meta:
        return "a meta tensor, which has a shape but no numbers"
    if tensor.is_quantized:
        return f"quantized ({tensor.dtype})"
    if tensor.is_nested:
        return "a nested tensor"
    dense = tensor.layout is torch.strided
    return "" if dense else f"sparse ({str(tensor.layout).removeprefix('torch.')})"


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes of tensors: the identity of weights without a file."""
    digest = hashlib.sha256()
    # Sorted: the order of a state_dict may depend on the version of timm.
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)  # also bfloat16
    return digest.hexdigest()


def tensors_in(container: object) -> dict[str, Tensor]:
    """Return the named tensors of a container; empty if the object is not a mapping."""
    if not isinstance(container, Mapping):
        return {}
    return {k: v for k, v in container.items() if isinstance(k, str) and isinstance(v, Tensor)}


def first_container(
    content: Mapping[str, Any], containers: Sequence[str]
) -> tuple[str, dict[str, Tensor]]:
    """Return the name and tensors of the first container that has some, else the flat tensors.

    The name is "" for flat tensors; the dict is empty if the file has none.
    """
    for container in containers:
        if tensors := tensors_in(content.get(container)):
            return container, tensors
    return "", tensors_in(content)


def _describe(head: bytes) -> str:
    if not head:
        return "an empty file (0 bytes)"
    if head.lstrip()[:1] == b"<":
        return "HTML (a download page or an error page saved under this name?)"
    if head.isascii():
        start = textwrap.shorten(head.decode("ascii"), 48, placeholder=" …")
        return f"text that begins with {start!r}"
    return f"the bytes {head[:8].hex(' ')}"


def _read_pickle(path: Path, mmap: bool) -> Any:
    # mmap leaves optimizer states and other branches on disk: only what is used is read.
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about tensors that are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if not any(words in str(error).lower() for words in REFUSALS):
            raise _damaged(path, error) from None
        raise CheckpointError(
            f"{path} contains Python objects other than tensors, and reading them could run code: "
            f"{_first_line(error)} Expected a state_dict of tensors (argparse.Namespace is "
            "allowed). If you trust the file, load it yourself and save the state_dict alone."
        ) from None
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises whatever it decodes to
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: it is truncated or damaged ({path.stat().st_size:,} bytes; "
        f"{type(error).__name__}: {_first_line(error)}). Download it again and compare its size."
    )


def _first_line(error: Exception) -> str:
    """Return the line with the cause; torch surrounds it with advice and terminal colours."""
    stripped = (line.strip() for line in str(error).splitlines())
    # Torch's advice to disable `weights_only` is never passed on.
    lines = [line for line in stripped if line and "weights_only" not in line]
    marks = ("weightsunpickler error", "unsupported", "trying to load unsupported")
    named = [line for line in lines if line.lower().startswith(marks)]
    return textwrap.shorten((named or lines or ["no message"])[0], 240, placeholder=" …")


# -- comparison with a network ---------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """The target of the keys that fully match `pattern`; group 1 is the key at the target."""

    pattern: str
    target: str = ""  # "encoder" or "projector", "" for keys that are ignored
    reason: str = ""  # for ignoring the keys


@dataclass
class LoadReport:
    """The use of each tensor of a checkpoint; keys are those of the file unless noted."""

    name: str
    checkpoint: str
    sha256: str = ""
    container: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)  # part of `matched`: key, new key
    ignored: list[tuple[str, str]] = field(default_factory=list)  # key, reason of the rule
    missing: list[str] = field(default_factory=list)  # keys of the network
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)  # weights with NaN or infinity
    problem: str = ""  # why keys cannot be compared: another family, a damaged file
    looks_like: str = ""
    known: str = ""  # name of the published file with this hash
    accepted: bool = False  # loaded with `accept`, without evidence for this encoder
    # Mean L2 norm of each representation on a fixed synthetic image, to compare machines.
    norms: dict[str, float] = field(default_factory=dict)
    _origin: dict[tuple[str, str], str] = field(default_factory=dict)  # target, key there → key

    @property
    def ok(self) -> bool:
        return not (self.problem or self.n_mismatches)

    @property
    def n_mismatches(self) -> int:
        """Return the number of keys that do not fit."""
        return sum(len(keys) for _, keys in self.mismatches())

    def mismatches(self) -> tuple[tuple[str, list[str]], ...]:
        """Return the keys that do not fit, by kind."""
        return (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of the wrong shape", self.wrong_shape),
            ("with NaN or infinity", self.not_finite),
        )

    def to_json(self) -> dict[str, Any]:
        fields = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {"ok": self.ok, **fields}

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

    def sort(
        self, tensors: Mapping[str, Tensor], rules: Sequence[Rule]
    ) -> dict[str, dict[str, Tensor]]:
        """Return the tensors by target and key there; those without a rule are unexpected.

        The prefix `module.`, which DistributedDataParallel adds, is ignored.
        """
        targets: dict[str, dict[str, Tensor]] = {}
        # The first rule wins, so specific rules precede general ones.
        for key, tensor in tensors.items():
            matches = ((re.fullmatch(rf"(?:module\.)?(?:{r.pattern})", key), r) for r in rules)
            match, rule = next(((m, r) for m, r in matches if m), (None, None))
            if match is None or rule is None:
                self.unexpected.append(key)
            elif not rule.target:
                self.ignored.append((key, rule.reason))
            elif (rule.target, match[1]) in self._origin:
                self.unexpected.append(key)  # the same tensor twice, with and without a prefix
            else:
                targets.setdefault(rule.target, {})[match[1]] = tensor
                self._origin[rule.target, match[1]] = key
        return targets

    def fill(self, module: nn.Module, target: str, tensors: Mapping[str, Tensor]) -> None:
        """Compare the tensors of a target with those of a module, and load them if all fit.

        A buffer that counts batches may be missing: evaluation never reads it.
        """
        expected, before = module.state_dict(), self.n_mismatches
        for key, tensor in tensors.items():
            name = self._origin[target, key]
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
        # Only as a whole: a network that is filled in part must never be used.
        if before == self.n_mismatches:
            module.load_state_dict({**expected, **tensors}, strict=True)


def is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor has neither NaN nor infinity; 8-bit floats are allowed."""
    return not tensor.is_floating_point() or bool(tensor.float().isfinite().all())
