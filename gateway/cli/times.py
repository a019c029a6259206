"""Spans and moments as people write them on a command line."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST = 1000 * 365 * 86_400
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds_of(span: str) -> float:
    """`90s`, `15m`, `24h`, `7d`, `2w`, or `0`, in seconds; ValueError for anything else."""
    if span == "0":
        return 0.0
    found = _SPAN.fullmatch(span)
    if found is None:
        raise ValueError(f"invalid duration {span!r}: use 90s, 15m, 24h, 7d or 2w")
    seconds = float(found.group(1)) * _UNITS[found.group(2)]
    if seconds > _LONGEST:
        raise ValueError(f"invalid duration {span!r}: more than a thousand years")
    return seconds


def moment_of(text: str, now: datetime, ahead: bool = False) -> datetime:
    """`7d` before `now` (after it, where `ahead`), `2026-11-01` or `2026-11-01T12:00`, in UTC unless it says so."""
    if text == "0" or _SPAN.fullmatch(text):
        span = timedelta(seconds=seconds_of(text))
        return now + span if ahead else now - span
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the second: in UTC it is before the year 1 or after 9999
        raise ValueError(f"invalid time {text!r}: use 24h, 7d, 2026-11-01 or 2026-11-01T12:00") from None


def shown(moment: str | None) -> str:
    """A moment as the admin routes give it, for a table."""
    if moment is None:
        return "-"
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M")
