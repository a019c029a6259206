"""Lines of the log, as people read them: found in what stands before them, filtered, put into words."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.cli.terminal import clean

LogLine = dict[str, Any]
Paint = Callable[[str, str], str]
"""Gives a text a colour, where the output has some."""

MOST = 1e15
"""Numbers beyond it are none of the log's."""

_COLOUR = re.compile(r"\x1b\[[\d;]{0,16}m")


def read_line(text: str) -> LogLine | None:
    """The event of a line, whatever stands before it (`gateway-1  | ` of compose, a date and host of journald); None
    where it has none."""
    at = text.find('{"')
    if at < 0:
        return None
    try:
        found = json.loads(text[at:])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What is to be shown. Empty and None: whatever it is. `statuses` are like 503 or 5xx; `slow` in seconds."""

    tenants: Sequence[str] = ()
    models: Sequence[str] = ()
    nodes: Sequence[str] = ()
    statuses: Sequence[str] = ()
    request: str | None = None
    slow: float | None = None
    errors: bool = False
    since: datetime | None = None

    @property
    def of_requests(self) -> bool:
        """Whether only requests can meet it."""
        return bool(self.tenants or self.models or self.statuses or self.slow is not None)

    @property
    def passes_all(self) -> bool:
        return not (self.of_requests or self.nodes or self.request or self.errors or self.since)

    def meets(self, line: LogLine) -> bool:
        """Whether `line` is to be shown."""
        if self.since is not None and not self._is_recent(line):
            return False
        if self.errors and line.get("level") not in ("error", "critical"):
            return False
        if self.request is not None and line.get("request_id") != self.request:
            return False
        if self.nodes and not any(node in self.nodes for node in _nodes_in(line)):
            return False
        if not self.of_requests:
            return True
        if line["event"] != "request":
            return False
        if self.tenants and line.get("tenant") not in self.tenants:
            return False
        if self.models and line.get("model") not in self.models and line.get("model_asked") not in self.models:
            return False
        status = str(line.get("status"))
        if self.statuses and not any(_is_status(status, wanted) for wanted in self.statuses):
            return False
        return self.slow is None or _seconds(line.get("duration_ms")) >= self.slow

    def _is_recent(self, line: LogLine) -> bool:
        try:
            return self.since is not None and datetime.fromisoformat(str(line.get("timestamp"))) >= self.since
        except (ValueError, TypeError):  # the second: a time without a zone
            return False


def _is_status(status: str, wanted: str) -> bool:
    return len(status) == len(wanted) and all(b in ("x", a) for a, b in zip(status, wanted.lower(), strict=True))


def _nodes_in(line: LogLine) -> list[str]:
    """The nodes of a line: of its last try, of tries that failed, of resumes."""
    found = [line.get("node")]
    for name, members in (("failed_attempts", ("node",)), ("resumes", ("from", "to"))):
        each = line.get(name)
        if isinstance(each, list):
            found += [one.get(member) for one in each if isinstance(one, dict) for member in members]
    return [node for node in found if isinstance(node, str)]


def in_words(line: LogLine, paint: Paint) -> str:
    """One line for people. Only `paint` brings colours into it."""
    time = clean(str(line.get("timestamp", ""))[11:19]) or "--:--:--"
    level = str(line.get("level"))
    colour = {"error": "red", "critical": "red", "warning": "yellow"}.get(level, "green")
    if line["event"] != "request":
        facts = {name: value for name, value in line.items() if name not in ("event", "level", "timestamp")}
        told = " ".join(f"{name}={_plain(value)}" for name, value in facts.items() if value is not None)
        event = clean(f"{line['event']} {told}").rstrip()
        return f"{time} {paint(clean(level[:5]).ljust(5), colour)} {event}"
    parts = [
        paint(clean(str(line.get("status"))).rjust(3), colour),
        _word(line, "tenant"),
        _word(line, "model", "model_asked"),
        _word(line, "node"),
        _duration(line.get("duration_ms")),
    ]
    if line.get("ttft_ms") is not None and line.get("stream"):
        parts.append(f"first token {_duration(line.get('ttft_ms'))}")
    if line.get("queued_ms") is not None:
        parts.append(f"waited {_duration(line.get('queued_ms'))}")
    if line.get("output_tokens") is not None:
        thinking = line.get("reasoning_tokens")
        told = f" ({thinking} thinking)" if thinking else ""
        parts.append(clean(f"{line.get('input_tokens')} in, {line.get('output_tokens')} out{told}"))
    if isinstance(line.get("attempts"), int) and line["attempts"] > 1:
        parts.append(paint(f"{line['attempts']} tries", "yellow"))
    if line.get("resumes"):
        parts.append(paint("resumed", "yellow"))
    requests = int(number_of(line.get("requests")))
    if requests:  # without a valid key: who it is says the address alone
        parts.append(f"{requests:,} {'request' if requests == 1 else 'requests'} from {_word(line, 'address')}")
    if line.get("ending") != "ok":
        parts.append(paint(clean(str(line.get("ending"))), colour))
    parts += [_word(line, name) for name in ("limit", "error") if line.get(name)]
    return f"{time} {'  '.join(parts)}  {paint(clean(str(line.get('request_id'))), 'bright_black')}"


def in_json(text: str) -> str:
    """A line's JSON as it came, on one line, with everything that a terminal may obey as an escape."""
    at = text.find('{"')
    return "".join(each if each.isprintable() else " " if each in "\r\t" else _escaped(each) for each in text[at:])


def other_line(text: str) -> str:
    """A line that is none of the log's, without its colours: it may have them from a client."""
    return clean(_COLOUR.sub("", text), "\t")


def number_of(value: Any) -> float:
    """A field's number; 0 where it is none, or is beyond all measure."""
    if isinstance(value, int | float) and not isinstance(value, bool) and -MOST < value < MOST:
        return value
    return 0


def _escaped(each: str) -> str:
    return json.dumps(each)[1:-1] if ord(each) >= 0x80 else f"\\u{ord(each):04x}"


def _word(line: LogLine, *names: str) -> str:
    """The first of the fields that has something."""
    return clean(str(next((line[name] for name in names if line.get(name)), "-")))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds(milliseconds: Any) -> float:
    return number_of(milliseconds) / 1000


def _duration(milliseconds: Any) -> str:
    seconds = _seconds(milliseconds)
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
