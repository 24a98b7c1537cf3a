"""Everything `pa` raises on purpose, and the exit code each becomes.

    PaError                                  1  failed
    ├── UsageError(ValueError)               2  the call itself is wrong
    │   ├── UnknownNameError(LookupError)       no such encoder, dataset, split, column …
    │   ├── OutOfRangeError(IndexError)         a row id or k beyond what is there
    │   └── AmbiguousError                      several stores fit: the choices are listed
    ├── MissingError(FileNotFoundError)      3  dataset, checkpoint, store, package
    ├── MismatchError(ValueError)            4
    │   ├── CheckpointError                     wrong keys or shapes, another family
    │   └── FingerprintError                    made by something else: the fields that differ
    │       └── NewerFormatError                written by a newer version of pa
    ├── VerificationError                    5  stored bytes are not what was written
    ├── ImageError(ValueError)               1  one image that cannot be decoded
    ├── AnnotationError(ValueError)          1  an annotation file that is not what it should be
    ├── StorageError(OSError)                1  no space, not writable
    └── BusyError(RuntimeError)              1  another process holds it

Exit code 6, partly done, is a result and not an error: the run finished, and says which images it
could not read. 130 is an interrupt (Ctrl-C).

Every leaf is also the built-in exception that a caller would catch. A message says what happened,
where, what was expected against what was found, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_PARTLY_DONE = 6
EXIT_INTERRUPTED = 130


class PaError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        # OSError and KeyError subclasses print their arguments in their own way; we want the text.
        return str(self.args[0]) if self.args else ""


class UsageError(PaError, ValueError):
    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """A name that is not in a registry, with the nearest ones that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        import difflib  # for a message alone

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
    """A file whose format number is above the one this version reads: nothing says it is bad."""

    def __init__(self, path: object, kind: str, found: object, known: int) -> None:
        super().__init__(
            f"{path}: {kind} format {found}, this version reads {known}. A newer version of pa "
            f"wrote it: read it with that version, or delete it where it can be made again."
        )


def is_newer(found: object, known: int) -> bool:
    """Whether a format number that was read is that of a later version."""
    return isinstance(found, int) and found > known


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
