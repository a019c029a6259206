"""The audit: a log line and an entry of a capped stream in Redis for every change that an administrator makes."""

from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from gateway.access.records import AccessKeys
from gateway.redis.client import RedisClient, RedisUnavailable, ScriptFailed
from gateway.redis.replies import pairs_of

log = structlog.get_logger("fleetgate.audit")

PAGE = 200
"""Events that are read by one command: Redis serves nobody else meanwhile."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change. `who`: an admin token's name and address; `what`: a noun and a participle, as `key created`;
    `subject`: a name or an id; `detail`: the settings, never a key.
    """

    who: str
    what: str
    subject: str
    detail: dict[str, Any]

    def dump(self) -> bytes:
        fields = {"who": self.who, "what": self.what, "subject": self.subject, "detail": self.detail}
        return orjson.dumps(fields, default=str)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An event of the stream; `at` in seconds since 1970."""

    at: float
    event: AuditEvent


def log_event(event: AuditEvent) -> None:
    """Write the log line."""
    detail = {name: value for name, value in event.detail.items() if name != "event"}  # structlog's own field
    log.info("admin_change", **{**detail, "who": event.who, "what": event.what, "subject": event.subject})


class Audit:
    """The stream. Without Redis there are only the log lines."""

    def __init__(self, redis: RedisClient | None, lines: int) -> None:
        """`lines`: about how many are kept in Redis."""
        self._redis = redis
        self.lines = lines
        self._stream = AccessKeys.below(redis.schema.records).audit if redis is not None else ""

    async def note(self, event: AuditEvent) -> None:
        """Log and keep an event. (Changes of tenants and keys are kept by the script that makes them.)"""
        log_event(event)
        if self._redis is not None:
            try:
                await self._redis.reports.command(
                    "XADD", self._stream, "MAXLEN", "~", self.lines, "*", "line", event.dump()
                )
            except (RedisUnavailable, ScriptFailed) as error:  # the change itself is made
                log.warning("audit_write_failed", reason=str(error), what=event.what, subject=event.subject)

    async def read(self, since: float, limit: int) -> list[AuditRecord]:
        """The last `limit` events after `since` (seconds since 1970), the newest first. Raises `RedisUnavailable`."""
        if self._redis is None:
            return []
        first, last = str(max(0, int(since * 1000))), "+"
        lines: list[AuditRecord | None] = []
        while len(lines) < limit:
            count = min(PAGE, limit - len(lines))
            page = await self._redis.reports.command("XREVRANGE", self._stream, last, first, "COUNT", count)
            lines += [_line(entry_id, fields) for entry_id, fields in page]
            if len(page) < count:
                break
            last = f"({page[-1][0].decode()}"
        return [line for line in lines if line is not None]


def _line(entry_id: bytes, fields: Any) -> AuditRecord | None:
    """None for an entry that another version wrote in another form."""
    try:
        line = orjson.loads(pairs_of(fields)[b"line"])
        event = AuditEvent(str(line["who"]), str(line["what"]), str(line["subject"]), dict(line["detail"]))
    except (ValueError, KeyError, TypeError):
        log.error("audit_line_invalid", entry=entry_id.decode())
        return None
    return AuditRecord(int(entry_id.split(b"-")[0]) / 1000, event)
