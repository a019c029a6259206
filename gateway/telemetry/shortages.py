"""Shortages of this machine (open files, ports, memory): found, counted, and logged once a minute."""

import contextlib
import errno
import socket
import time

import structlog

from gateway.core.telemetry.log_throttle import LogThrottle
from gateway.core.telemetry.shortage import shortage_in

log = structlog.get_logger("fleetgate")

_REMEDIES = {
    "EMFILE": "raise the hard limit of open files (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)",
    "ENFILE": "the whole system is out of open files: raise fs.file-max",
    "EADDRNOTAVAIL": "all local ports are in use: widen net.ipv4.ip_local_port_range",
}


_FILES_OF_A_CONNECTION = 8
"""Files that one connection may need at once, for looking up a name and trying its addresses."""


def shortage_behind(error: BaseException) -> str | None:
    """As `shortage_in`, also where the error does not say: a failed name lookup, which needs files as well, or an error
    about several addresses. Then several sockets are opened: that one can be opened now does not show that it could a
    moment ago."""
    found = shortage_in(error)
    return _shortage_of(_FILES_OF_A_CONNECTION) if found is None and _is_unclear(error) else found


def _is_unclear(error: BaseException | None) -> bool:
    # EBUSY: glibc's word for a lookup that cannot open its files, where nsswitch.conf has a module behind `files`.
    if isinstance(error, OSError) and (error.errno in (None, errno.EBUSY) or isinstance(error, socket.gaierror)):
        return True
    return error is not None and _is_unclear(error.__cause__ or error.__context__)


def _shortage_of(sockets: int) -> str | None:
    """The shortage that keeps so many sockets from being open at once; None where there is none."""
    with contextlib.ExitStack() as opened:
        try:
            for _ in range(sockets):
                opened.enter_context(socket.socket())
        except OSError as error:
            return shortage_in(error)
    return None


class ResourceShortages:
    """The shortages of one process. `counts`: by the errno's name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._throttle = LogThrottle()

    def note(self, cause: str, where: str) -> None:
        """Count and log one. `cause` as `shortage_behind` names it; `where` it was found."""
        self.counts[cause] = self.counts.get(cause, 0) + 1
        count = self._throttle.due(cause + where, time.monotonic())
        if count:
            remedy = _REMEDIES.get(cause, "give this machine more memory")
            log.error("out_of_resources", cause=cause, where=where, times=count, remedy=remedy)

    def found_now(self, where: str) -> bool:
        """Whether no socket can be opened now; noted if so. libuv does not report that: it closes new connections."""
        cause = _shortage_of(1)
        if cause is not None:
            self.note(cause, where)
        return cause is not None
