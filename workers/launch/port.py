"""Whose server answers on the node's port: ours, or one that was there before.

Linux lists listening sockets in /proc/PID/net/tcp and tcp6 (proc(5)) with an inode each, and a process's open sockets
as links in /proc/PID/fd. A server is ours where each listener that a connection can reach belongs to a process that we
started: vLLM binds with SO_REUSEPORT, so two of one user can share a port and its connections.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

PROC = Path("/proc")
LISTEN = "0A"
TABLES = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}
WILDCARDS = {bytes(4), bytes(16)}
MAPPED = bytes(10) + b"\xff\xff"
"""An IPv4 address as an IPv6 socket sees it."""


def port_fault(host: str, port: int) -> str | None:
    """Why `host`:`port` cannot be listened on; None where it can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                # Connections of an earlier server that are closing do not count; a listener does.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        return f"cannot listen on {host}:{port}: {told}{_holder(host, port)}"
    return None


def foreign_listener(url: str, process: int) -> str | None:
    """Who listens at `url` beside the process, its session and its descendants; None where nobody does.

    Also None where the kernel does not tell: a port that was free before the process started is taken for its own.
    """
    parts = urlsplit(url)
    listening = _listeners(parts.hostname or "", parts.port or 80, PROC / str(process) / "net")
    own = {inode for member in _family(process) for inode in _sockets(member)}
    others = listening - own
    return _named(others) if others else None


def _holder(host: str, port: int) -> str:
    inodes = _listeners(host, port, PROC / "self" / "net")
    return f" ({_named(inodes)} has it)" if inodes else ""


def _listeners(host: str, port: int, tables: Path) -> set[str]:
    """Inodes of the sockets that a connection to host:port may come to."""
    with contextlib.suppress(OSError, UnicodeError):
        reached = {socket.inet_pton(f, str(a[0])) for f, _, _, _, a in socket.getaddrinfo(host, port)}
        everywhere = bool(reached & WILDCARDS)
        return {i for address, i in _listening(port, tables) if everywhere or address in reached | WILDCARDS}
    return set()


def _listening(port: int, tables: Path) -> Iterator[tuple[bytes, str]]:
    for name in TABLES:
        with contextlib.suppress(OSError):
            for line in (tables / name).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].partition(":")
                if fields[3] == LISTEN and int(number, 16) == port:
                    yield _packed(address).removeprefix(MAPPED), fields[9]


def _packed(text: str) -> bytes:
    """`0100007F` as the bytes of 127.0.0.1: words of four bytes in the machine's order."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    return b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)


def _family(process: int) -> set[int]:
    """The process, all of its session and process group, and all who descend from them."""
    parents = dict(_processes())
    own = {pid for pid, (_, group, session) in parents.items() if process in (pid, group, session)} | {process}
    while more := {pid for pid, (parent, _, _) in parents.items() if parent in own} - own:
        own |= more
    return own


def _processes() -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Each process with its parent, process group and session."""
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The name in parentheses may hold anything, also blanks and parentheses.
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(folder.name), (int(fields[1]), int(fields[2]), int(fields[3]))


def _sockets(process: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in (PROC / str(process) / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def _named(inodes: set[str]) -> str:
    """The processes that have one of these sockets, as far as we may see them."""
    for pid, _ in _processes():
        if inodes & set(_sockets(pid)):
            with contextlib.suppress(OSError):
                return f"process {pid}, {(PROC / str(pid) / 'comm').read_text().strip()}"
            return f"process {pid}"
    return "another user's process"
