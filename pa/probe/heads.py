"""Files of trained heads: one safetensors file holds the heads of all seeds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from pa.data.files import replacing
from pa.errors import CheckpointError, MissingError, PaError
from pa.probe.tensorfile import read_tensors, tensor_bytes

HEAD_FORMAT = "2"  # raised when the names or the shapes of the tensors change


def write_heads(
    path: Path,
    kind: str,
    tensors: Mapping[str, Tensor],
    classes: tuple[str, ...],
    representation: str,
    fingerprint: str,
    store_checksum: str | None,
    **more: str,
) -> None:
    """Write tensors of heads with the store, representation and classes they belong to.

    Raise `StorageError`; the file is written whole or not at all.
    """
    metadata = {
        "format": HEAD_FORMAT,
        "kind": kind,
        "classes": json.dumps(classes, ensure_ascii=False),
        "representation": representation,
        "fingerprint": fingerprint,
        "store_checksum": store_checksum or "",  # metadata of safetensors are strings
        **more,
    }
    with replacing(path) as partial:
        partial.write_bytes(tensor_bytes(tensors, metadata))


@contextlib.contextmanager
def reading_heads(path: Path, kind: str) -> Iterator[tuple[dict[str, Tensor], dict[str, str]]]:
    """Provide the tensors and metadata of a file of heads of one kind.

    Raise `MissingError`, or `CheckpointError` for another file, which the block may turn out to be.
    """
    with _unreadable(path, f"{kind} heads"):
        tensors, fields = _read(path)
        if fields["kind"] != kind:
            raise CheckpointError(f"{path} holds {fields['kind']} heads, expected {kind} heads.")
        if fields["format"] != HEAD_FORMAT:
            raise CheckpointError(
                f"{path} has head format {fields['format']}, this version reads {HEAD_FORMAT}."
            )
        yield tensors, fields


def kind_of(path: Path) -> str:
    """Return the kind of heads in a file. Raise `MissingError` or `CheckpointError`."""
    with _unreadable(path, "trained heads"):
        return _read(path)[1]["kind"]


@contextlib.contextmanager
def _unreadable(path: Path, content: str) -> Iterator[None]:
    """Raise `CheckpointError` for a file that is damaged or has other contents."""
    try:
        yield
    except PaError:
        raise
    except (SafetensorError, LookupError, ValueError) as error:
        raise CheckpointError(f"{path} is not a file of {content} ({error}).") from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise MissingError(
            f"no trained head at {path}. `pa probe linear` and `pa probe attentive` train heads."
        )
    return read_tensors(path)
