"""Whether an error that does not say so came of a shortage of this machine."""

import contextlib
import errno
import itertools
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.shortages import shortage_behind

UNCLEAR = [
    socket.gaierror(socket.EAI_AGAIN, "x"),
    OSError(errno.EBUSY, "Device or resource busy"),
    OSError("Multiple exceptions: ..."),
]


@contextlib.contextmanager
def files_left(count: int) -> Iterator[None]:
    """This process can open `count` files more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(file.name) for file in Path("/proc/self/fd").iterdir()}
    free = itertools.islice((number for number in itertools.count() if number not in used), count, None)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (next(free), hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1, 2])
@pytest.mark.parametrize("error", UNCLEAR)
def test_that_a_file_can_be_had_again_says_nothing_of_a_moment_ago(error: OSError, left: int) -> None:
    with files_left(left):
        assert shortage_behind(error) == "EMFILE"


@pytest.mark.parametrize("error", [*UNCLEAR, ConnectionRefusedError(errno.ECONNREFUSED, "x")])
def test_with_files_enough_it_is_the_nodes(error: OSError) -> None:
    assert shortage_behind(error) is None


def test_what_a_node_says_itself_is_its_own_also_while_files_are_short() -> None:
    with files_left(0):
        assert shortage_behind(ConnectionRefusedError(errno.ECONNREFUSED, "x")) is None
