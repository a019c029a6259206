"""Limits of one request, and of the memory that all requests of a process hold."""

import os
import resource
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gateway.config.types import Section

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The memory limits of a container in Linux: cgroup version 2, version 1."""


class Requests(Section):
    """Limits of what a client may send, of what is held in memory, and of the nodes that a request may try."""

    max_body: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Bytes of one body, compressed and unpacked; beyond it 413."""
    max_json_values: Annotated[int, Field(ge=10_000)] = 4_000_000
    """Values in one body: elements of arrays and members of objects; beyond it 413."""
    max_headers: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Bytes of a request's head; beyond it 431."""
    max_attempts: Annotated[int, Field(ge=1, le=16)] = 3
    """Nodes that one request may try."""
    max_answer: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Bytes of a plain answer that is held until it is whole, since it is rewritten."""
    memory: Annotated[int | None, Field(ge=16 * 1024 * 1024)] = None
    """Bytes that a process holds of bodies and answers. Unset: half of what the process may have."""

    def memory_for(self, workers: int) -> int:
        """Bytes for each of `workers` processes."""
        return self.memory if self.memory is not None else max(16 * 1024 * 1024, available_memory() // 2 // workers)


def available_memory() -> int:
    """Bytes of memory for this process and its siblings: those of the machine, or less where the system limits them."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP:
        try:
            bounds.append(int(path.read_text()))
        except (OSError, ValueError):  # another version, or `max`
            continue
    bounds += [soft for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA) if (soft := resource.getrlimit(kind)[0]) > 0]
    return min(bounds)
