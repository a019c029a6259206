"""What this machine was short of: found, counted, and logged once a minute."""

import contextlib
import socket
import time

import structlog

from gateway.core.telemetry.log_throttle import LogThrottle
from gateway.core.telemetry.shortage import shortage_in

log = structlog.get_logger("fleetgate")

_REMEDIES = {
    "EMFILE": "raise the hard limit of open files (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)",
    "ENFILE": "raise fs.file-max: the whole system has too few open files",
    "EADDRNOTAVAIL": "widen net.ipv4.ip_local_port_range: all local ports are in use",
}


_FILES_OF_A_CONNECTION = 8
"""How many may be open at once while a name is looked up and its addresses are tried, ours and its neighbours'."""


def shortage_behind(error: BaseException) -> str | None:
    """As `shortage_in`, also where the error does not say: a name that could not be looked up, since that takes files
    as well, or several addresses in one message. Then it is tried whether a few sockets can be had now: that there is
    one again by now says nothing of a moment ago."""
    found = shortage_in(error)
    return _shortage_of(_FILES_OF_A_CONNECTION) if found is None and _is_unclear(error) else found


def _is_unclear(error: BaseException | None) -> bool:
    if isinstance(error, OSError) and (error.errno is None or isinstance(error, socket.gaierror)):
        return True
    return error is not None and _is_unclear(error.__cause__ or error.__context__)


def _shortage_of(sockets: int) -> str | None:
    """What it is that this machine has too little of for so many sockets at once; None where they can be had."""
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(sockets):
                opened.enter_context(socket.socket())
        except OSError as error:
            return shortage_in(error)
    return None


class ResourceShortages:
    """One process's. `counts`: how often by the errno's name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._throttle = LogThrottle()

    def note(self, cause: str, where: str) -> None:
        """`cause` as `shortage_behind` names it; `where` it came up."""
        self.counts[cause] = self.counts.get(cause, 0) + 1
        count = self._throttle.due(cause + where, time.monotonic())
        if count:
            remedy = _REMEDIES.get(cause, "give this machine more memory")
            log.error("out_of_resources", cause=cause, where=where, times=count, remedy=remedy)

    def found_now(self, where: str) -> bool:
        """Whether no socket can be had now; noted if so. libuv says nothing of it: it closes who wants to connect."""
        cause = _shortage_of(1)
        if cause is not None:
            self.note(cause, where)
        return cause is not None
