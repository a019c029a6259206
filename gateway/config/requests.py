"""What one request may be, and what all of a process' requests may hold of its memory."""

import os
import resource
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gateway.config.types import Section

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container what it may have: version 2, version 1."""


class Requests(Section):
    """Bounds on what a client may send, on what is held of requests and answers, and on the nodes that one may try."""

    max_body: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    """Bytes."""
    max_json_values: Annotated[int, Field(ge=10_000)] = 50_000
    """Elements of arrays and members of objects in one body, each of which costs everybody time (16 KiB hold fewer than
    the least that may be set, so small bodies are not counted)."""
    max_headers: Annotated[int, Field(ge=1024)] = 64 * 1024
    """Bytes."""
    max_attempts: Annotated[int, Field(ge=1, le=16)] = 3
    max_answer: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Bytes of a plain answer that has to be held until it is whole, since it is rewritten."""
    memory: Annotated[int | None, Field(ge=16 * 1024 * 1024)] = None
    """Bytes that a process holds of requests and answers; None: half of what it may have of the machine's memory."""

    def memory_for(self, workers: int) -> int:
        """Bytes for each of so many processes."""
        return self.memory if self.memory is not None else max(16 * 1024 * 1024, available_memory() // 2 // workers)


def available_memory() -> int:
    """Bytes that this process and its siblings may have: the machine's, or less where the system says so."""
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP:
        try:
            bounds.append(int(path.read_text()))
        except (OSError, ValueError):  # another version, or `max`
            continue
    bounds += [soft for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA) if (soft := resource.getrlimit(kind)[0]) > 0]
    return min(bounds)
