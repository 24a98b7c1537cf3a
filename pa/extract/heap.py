"""Keep the memory that a forward pass frees in the process until the run ends.

A pass on a CPU allocates and frees blocks of tens of megabytes, the same ones for each batch. The C
library returns such blocks to the kernel immediately, which must clear every page again for the
next batch: a tenth of the time of a ViT-B (docs/performance.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# From malloc.h of glibc; other C libraries do not have them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
# The limits of glibc's adjustment of the thresholds on 64-bit machines; setting one of the three
# turns this adjustment off. The third value is glibc's default.
_AFTERWARDS = ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_MMAP_MAX, 65536))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for the next allocation, and return it at the end.

    Meanwhile the process has the size of its largest batch. Has no effect without glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_MMAP_MAX, 0)  # allocate all blocks on the heap
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
