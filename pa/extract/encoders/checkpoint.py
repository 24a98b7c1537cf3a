"""Read a checkpoint file without executing code from it.

Official files are torch pickles or safetensors. Pickles are read with `weights_only=True`; the only
other class in official training checkpoints is `argparse.Namespace`.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pa.errors import CheckpointError, MissingError

ZIP_MAGIC = b"PK\x03\x04"  # torch.save since 1.6
PICKLE_MAGIC = b"\x80"  # torch.save before 1.6
# Messages of torch's restricted unpickler for a class that is not allowed; others mean damage.
REFUSALS = ("unsupported global", "unsupported class", "can only build", "not an allowed")


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
    _require_dense(path, content)
    return CheckpointFile(path, file_sha256(path), content)


def _require_dense(path: Path, content: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` naming the key of a tensor that is not dense."""
    for container, value in [("", content), *content.items()]:
        for key, tensor in tensors_in(value).items():
            if tensor.is_meta:
                kind = "a meta tensor, which has a shape but no numbers"
            elif tensor.is_quantized:
                kind = f"quantized ({tensor.dtype})"
            elif tensor.is_nested:
                kind = "a nested tensor"
            elif tensor.layout is not torch.strided:
                kind = f"sparse ({str(tensor.layout).removeprefix('torch.')})"
            else:
                continue
            name = f"{container}/{key}" if container else key
            raise CheckpointError(
                f"{path}: the tensor {name!r} is {kind}. Expected dense floating-point "
                "weights. Convert the tensor (to_dense, dequantize) and save the file again."
            )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes of tensors: the identity of weights without a file."""
    digest = hashlib.sha256()
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
