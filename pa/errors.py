"""The errors that `pa` raises on purpose, with their exit codes.

    PaError                                  1  failed
    ├── UsageError(ValueError)               2  the call itself is wrong
    │   ├── UnknownNameError(LookupError)       no such encoder, dataset, split, column …
    │   ├── OutOfRangeError(IndexError)         a row id or k out of range
    │   └── AmbiguousError                      several stores match: the choices are listed
    ├── MissingError(FileNotFoundError)      3  dataset, checkpoint, store, package
    ├── MismatchError(ValueError)            4
    │   ├── CheckpointError                     wrong keys or shapes, another family
    │   └── FingerprintError                    other weights, options or images than recorded
    │       └── NewerFormatError                written by a newer version of pa
    ├── VerificationError                    5  stored bytes changed since they were written
    ├── ImageError(ValueError)               1  one image that cannot be decoded
    ├── AnnotationError(ValueError)          1  a malformed annotation file
    ├── StorageError(OSError)                1  no space, not writable
    └── BusyError(RuntimeError)              1  a resource that another process uses

Exit code 6, partly done, is a result and not an error: the run finished and lists the images it
could not read. 130 is an interrupt (Ctrl-C).

Every leaf is also the built-in exception that a caller would catch. A message states what happened,
where, the expected and the actual value, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_PARTLY_DONE = 6
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class PaError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # OSError and KeyError subclasses format their arguments differently.
        return str(self.args[0]) if self.args else ""


class UsageError(PaError, ValueError):
    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name that is not registered; the message lists the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        import difflib  # only needed for this message

        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        text = f"unknown {kind} {name!r}."
        if near:
            text += f" Did you mean {' or '.join(near)}?"
        if known:
            quoted = [f'"{k}"' if "," in k and not k.startswith('"') else k for k in known[:20]]
            shown = ", ".join(quoted) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
            text += f" Known: {shown}."
        super().__init__(f"{text} {hint}".rstrip())


class OutOfRangeError(UsageError, IndexError):
    pass


class AmbiguousError(UsageError):
    pass


class MissingError(PaError, FileNotFoundError):
    exit_code = 3


class MismatchError(PaError, ValueError):
    exit_code = 4


class CheckpointError(MismatchError):
    pass


class FingerprintError(MismatchError):
    pass


class NewerFormatError(FingerprintError):
    """A file whose format number is above the one this version reads; it may be intact."""

    def __init__(self, path: object, kind: str, version: object, known: int) -> None:
        super().__init__(
            f"{path}: {kind} format {version}, this version reads {known}. A newer version of pa "
            f"wrote it: read it with that version, or delete it if it can be computed again."
        )


def is_newer(version: object, known: int) -> bool:
    """Return whether a format number from a file is above the known one."""
    return isinstance(version, int) and version > known


class VerificationError(PaError, ValueError):
    exit_code = 5


class ImageError(PaError, ValueError):
    """An image that cannot be decoded; `reason` is one line."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class AnnotationError(PaError, ValueError):
    pass


class StorageError(PaError, OSError):
    pass


class BusyError(PaError, RuntimeError):
    pass
