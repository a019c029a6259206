"""The limit of open files: raised at start, and how many connections it leaves room for."""

import resource
from contextlib import suppress

import structlog

log = structlog.get_logger("fleetgate")

ENOUGH = 1 << 20
"""More is never asked for: some systems have a hard limit without end, and refuse it when it is asked for."""

RESERVE = 64
"""Files for what is no client and no node: log, Redis, probes, metrics, the admin listener. A thirty-second part of the
limit comes on top, for connections to nodes that are idle and those that are being refused."""


def raise_open_files() -> int:
    """Raise this process's soft limit as far as the hard one goes; returns what it is now. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return open_files()


def open_files() -> int:
    """This process's limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft


def connections_within(limit: int) -> int:
    """How many clients a limit of open files has room for: each may need a connection to a node as well."""
    return max(1, (limit - RESERVE - limit // 32) // 2)


def files_for(connections: int) -> int:
    """The smallest limit that has room for so many clients."""
    limit = (2 * connections + RESERVE) * 32 // 31
    while connections_within(limit) < connections:
        limit += 1
    return limit


def bound_connections(configured: int) -> int:
    """The clients that this process can have at once: as many as are configured, or as its limit has room for. Logs
    which of the two, and what to do."""
    limit = open_files()
    bound = connections_within(limit)
    if bound >= configured:
        log.info("max_connections_set", max_connections=configured, open_files=limit)
        return configured
    log.warning(
        "max_connections_set",
        max_connections=bound,
        configured=configured,
        open_files=limit,
        remedy=f"raise the hard limit of open files to {files_for(configured)} (ulimit -Hn, LimitNOFILE=, "
        f"--ulimit nofile=), or set listen.max_connections to {bound}",
    )
    return bound
