"""Whether malloc keeps the memory of large bodies. Each case is a process: what malloc is set to cannot be asked."""

import os
import subprocess
import sys

import pytest

from gateway.server.allocator import KEPT, is_set

GLIBC = "CS_GNU_LIBC_VERSION" in os.confstr_names

PROGRAM = """
import ctypes
import sys
import threading
from pathlib import Path
from gateway.server.allocator import keep_memory

def heap():
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            start, end = line.split()[0].split("-")
            return (int(end, 16) - int(start, 16)) >> 20
    return 0

done = keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]


def ask():
    for megabytes in map(int, sys.argv[1:]):
        block = libc.malloc(megabytes << 20)
        held = heap()
        libc.free(block)
        print(int(done), held // megabytes, int(heap() >= megabytes))

ask()
other = threading.Thread(target=ask)
other.start()
other.join()
"""


def told(*megabytes: int, **environment: str) -> list[str]:
    """For each block, in the main thread and in another one: whether malloc was set, whether the block was in the
    heap, whether its memory was kept."""
    known = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GLIBC_TUNABLES"}
    argv = [sys.executable, "-c", PROGRAM, *map(str, megabytes)]
    return subprocess.run(argv, env=known | environment, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(not GLIBC, reason="malloc is not glibc's")
def test_a_large_block_is_kept_and_a_larger_one_given_back() -> None:
    kept = KEPT >> 20
    assert told(kept - 16, 2 * kept) == ["1 1 1", "1 1 0"] * 2


@pytest.mark.skipif(not GLIBC, reason="malloc is not glibc's")
@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}]
)
def test_what_an_operator_has_set_stays(environment: dict[str, str]) -> None:
    assert told(48, **environment) == ["0 0 0"] * 2


def test_another_tunable_sets_nothing_of_malloc() -> None:
    assert not is_set({"GLIBC_TUNABLES": "glibc.pthread.rseq=0", "PYTHONMALLOC": "malloc"})
    assert is_set({"GLIBC_TUNABLES": "glibc.pthread.rseq=0:glibc.malloc.mmap_max=0"})
    assert is_set({"MALLOC_ARENA_MAX": "2"})
