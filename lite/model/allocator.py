"""Host memory while a base is read: what is freed goes back to the system at once.

transformers reads NF4 bases tensor by tensor: shards are mapped, one tensor at a time is copied, cast and quantised. But glibc keeps
what is freed on its heap, and the small quantised tensors that stay come to lie between the holes: of a base of 549 MiB in 16 bits
on a CPU, 1,020 MiB stayed where 148 are alive. With every large block in a mapping of its own there are no holes (150 MiB).
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
SMALL = 64 * 1024
GROWN = 32 * 1024 * 1024
"""Where glibc's own threshold ends up in a process that frees large tensors, and more than the page faults of training could bear."""


@contextmanager
def returning() -> Iterator[None]:
    """Inside the block, blocks over 64 KiB are given back when they are freed. Nothing where the C library is not glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, SMALL)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_THRESHOLD, GROWN)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * GROWN)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
