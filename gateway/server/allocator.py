"""glibc's malloc, set to keep the memory of large bodies.

orjson takes twelve times a body's length while it parses. By default glibc maps a block of more than 32 MB anew each
time: 4 MB of prose cost 980 page faults, a fifth of their CPU time. Here large blocks come from the heap, whose free
end is given back to the system only beyond `KEPT`.

All threads share one heap: each other one would keep as much. Few blocks are asked for by two threads at once: the
interpreter has its own memory for small objects.
"""

import ctypes
import os
from collections.abc import Mapping
from typing import Final

KEPT: Final = 64 * 1024 * 1024
"""Bytes that stay free at the heap's end: what a body of 4 MB takes, and a little more."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Set the malloc of this process; whether that was done. Not where the environment sets it, and not where malloc is
    another library's (musl, jemalloc, macOS)."""
    if is_set(environment) or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_ARENA_MAX, 1) and mallopt(_M_TRIM_THRESHOLD, KEPT) and mallopt(_M_MMAP_MAX, 0))


def is_set(environment: Mapping[str, str]) -> bool:
    """Whether an operator has set anything of malloc."""
    named = any(name.startswith("MALLOC_") for name in environment)
    return named or "glibc.malloc." in environment.get("GLIBC_TUNABLES", "")


def _is_glibc() -> bool:
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
        used, glibc = ctypes.CDLL(None).malloc, ctypes.CDLL("libc.so.6").malloc
    except (AttributeError, OSError, ValueError):
        return False
    return ctypes.cast(used, ctypes.c_void_p).value == ctypes.cast(glibc, ctypes.c_void_p).value
