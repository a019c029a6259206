"""Who changed what, and when: a log line for every change, and a capped stream in Redis."""

from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from gateway.access.records import Places
from gateway.redis.client import Link, ScriptFailed, Unavailable
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.audit")


@dataclass(frozen=True, slots=True)
class Deed:
    """`who` did `what` to `subject`: an admin token's name and address, a verb with its noun, a name or an id.

    `detail` says with which settings; never a key.
    """

    who: str
    what: str
    subject: str
    detail: dict[str, Any]

    def dump(self) -> bytes:
        told = {"who": self.who, "what": self.what, "subject": self.subject, "detail": self.detail}
        return orjson.dumps(told, default=str)


@dataclass(frozen=True, slots=True)
class Line:
    """A deed, and when it was done in seconds since 1970."""

    at: float
    deed: Deed


def log_deed(deed: Deed) -> None:
    """The line in the log."""
    told = {name: value for name, value in deed.detail.items() if name != "event"}  # which is the line's own name
    log.info("admin_change", **{**told, "who": deed.who, "what": deed.what, "subject": deed.subject})


class Audit:
    """The stream. `link` is None where there is no Redis: then the log line is all there is."""

    def __init__(self, link: Link | None, lines: int) -> None:
        """`lines`: how many are kept in Redis, about."""
        self._link = link
        self.lines = lines
        self._stream = Places.below(link.schema.records).audit if link is not None else ""

    async def note(self, deed: Deed) -> None:
        """Note a change that was made elsewhere (changes of tenants and keys note themselves)."""
        log_deed(deed)
        if self._link is not None:
            try:
                await self._link.reports.command(
                    "XADD", self._stream, "MAXLEN", "~", self.lines, "*", "line", deed.dump()
                )
            except (Unavailable, ScriptFailed) as error:  # the change itself is made
                log.warning("audit_line_not_kept", reason=str(error), what=deed.what, subject=deed.subject)

    async def read(self, since: float, limit: int) -> list[Line]:
        """The last `limit` lines since a moment (seconds since 1970), the newest first. Raises `Unavailable`."""
        if self._link is None:
            return []
        first = str(max(0, int(since * 1000)))
        entries = await self._link.reports.command("XREVRANGE", self._stream, "+", first, "COUNT", limit)
        lines = [_line(entry_id, fields) for entry_id, fields in entries]
        return [line for line in lines if line is not None]


def _line(entry_id: bytes, fields: Any) -> Line | None:
    """None for one that another version wrote in another way."""
    try:
        told = orjson.loads(pairs_of(fields)[b"line"])
        deed = Deed(str(told["who"]), str(told["what"]), str(told["subject"]), dict(told["detail"]))
    except (ValueError, KeyError, TypeError):
        log.error("audit_line_not_understood", entry=entry_id.decode())
        return None
    return Line(int(entry_id.split(b"-")[0]) / 1000, deed)
