"""Who changed what, and when: a log line for every change, and a capped stream in Redis."""

from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from gateway.access.records import AccessKeys
from gateway.redis.client import RedisClient, RedisUnavailable, ScriptFailed
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.audit")


@dataclass(frozen=True, slots=True)
class AuditEvent:
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
class AuditRecord:
    """A deed, and when it was done in seconds since 1970."""

    at: float
    deed: AuditEvent


def log_deed(deed: AuditEvent) -> None:
    """The line in the log."""
    told = {name: value for name, value in deed.detail.items() if name != "event"}  # which is the line's own name
    log.info("admin_change", **{**told, "who": deed.who, "what": deed.what, "subject": deed.subject})


class Audit:
    """The stream. `link` is None where there is no Redis: then the log line is all there is."""

    def __init__(self, redis: RedisClient | None, lines: int) -> None:
        """`lines`: how many are kept in Redis, about."""
        self._redis = redis
        self.lines = lines
        self._stream = AccessKeys.below(redis.schema.records).audit if redis is not None else ""

    async def note(self, deed: AuditEvent) -> None:
        """Note a change that was made elsewhere (changes of tenants and keys note themselves)."""
        log_deed(deed)
        if self._redis is not None:
            try:
                await self._redis.reports.command(
                    "XADD", self._stream, "MAXLEN", "~", self.lines, "*", "line", deed.dump()
                )
            except (RedisUnavailable, ScriptFailed) as error:  # the change itself is made
                log.warning("audit_line_not_kept", reason=str(error), what=deed.what, subject=deed.subject)

    async def read(self, since: float, limit: int) -> list[AuditRecord]:
        """The last `limit` lines since a moment (seconds since 1970), the newest first. Raises `RedisUnavailable`."""
        if self._redis is None:
            return []
        first = str(max(0, int(since * 1000)))
        entries = await self._redis.reports.command("XREVRANGE", self._stream, "+", first, "COUNT", limit)
        lines = [_line(entry_id, fields) for entry_id, fields in entries]
        return [line for line in lines if line is not None]


def _line(entry_id: bytes, fields: Any) -> AuditRecord | None:
    """None for one that another version wrote in another way."""
    try:
        told = orjson.loads(pairs_of(fields)[b"line"])
        deed = AuditEvent(str(told["who"]), str(told["what"]), str(told["subject"]), dict(told["detail"]))
    except (ValueError, KeyError, TypeError):
        log.error("audit_line_not_understood", entry=entry_id.decode())
        return None
    return AuditRecord(int(entry_id.split(b"-")[0]) / 1000, deed)
