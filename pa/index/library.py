"""Import FAISS when it is first needed, and translate what it prints and raises."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pa.errors import MissingError, PaError, UsageError

INSTALL = (
    "Install one of its two builds, never both: pip install 'part-aware[cpu]' (any machine) or "
    "pip install 'part-aware[gpu]' (Linux with an NVIDIA GPU)."
)

EXAMPLES = (
    "Examples: SQfp16 and Flat (exact), IVF256,Flat@nprobe=16 (faster), HNSW32 (faster still, "
    "larger), PQ32 (far smaller)."
)


def load_faiss() -> Any:
    """Import FAISS. Raises `MissingError` with the command that installs it."""
    try:
        with warnings.catch_warnings():
            # SWIG's types lack __module__, which Python 3.12 and later warn about on import.
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ModuleNotFoundError as error:
        if error.name != "faiss":
            raise
        raise MissingError(
            f"the vector index needs FAISS, which is not installed. {INSTALL}"
        ) from None
    except ImportError as error:
        raise MissingError(f"FAISS is installed but does not load ({error}). {INSTALL}") from None
    return faiss


@contextlib.contextmanager
def readable_folder(folder: Path) -> Iterator[Path]:
    """Yield a path of a folder that FAISS can open: it accepts UTF-8 names only."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as temporary:
            link = Path(temporary) / "index"
            link.symlink_to(folder.absolute(), target_is_directory=True)
            yield link
    else:
        yield folder


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what FAISS's C++ prints off stdout, which is for results.

    This redirects stdout of the whole process: use it briefly, while no other thread prints.
    """
    sys.stdout.flush()
    stdout, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # C buffers stdout separately
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)


def complaint(error: Exception) -> str:
    """Return FAISS's message in one line, without its C++ signature and source path."""
    text = " ".join(str(error).split())
    return re.sub(r"^Error in .*? at \S+:\d+: ", "", text)


@contextlib.contextmanager
def refusals(factory: str) -> Iterator[None]:
    """Turn an error of FAISS about a factory string into a `UsageError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, PaError):
            raise
        raise UsageError(
            f"FAISS refuses the index factory {factory!r}: {complaint(error)}. {EXAMPLES}"
        ) from None
