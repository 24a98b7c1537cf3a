"""Memory that a forward pass frees stays with the process until the run ends.

A pass on a CPU makes and drops blocks of tens of megabytes, the same ones for every batch. The C
library gives such blocks back to the kernel at once, which must clear every page of them again for
the next batch: a tenth of the time of a ViT-B (docs/performance.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h; no other C library has them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
# Where glibc's own adjustment of the thresholds ends on 64-bit machines; setting any of the three
# turns that adjustment off. The third is glibc's default.
_AFTERWARDS = ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_MMAP_MAX, 65536))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next allocation, and return it at the end.

    The process is as large as its largest batch all the while. Does nothing where the C library is
    not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_MMAP_MAX, 0)  # blocks come from the heap, never from a mapping of their own
    try:
        yield
    finally:
        for parameter, value in _AFTERWARDS:
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None
    return library if hasattr(library, "gnu_get_libc_version") else None
