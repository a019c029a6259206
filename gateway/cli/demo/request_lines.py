"""The gateway's log, as one line for a person for each request and each change of a node."""

import json
import threading
from collections import deque
from typing import IO, Any

from gateway.cli.demo.processes import Say
from gateway.cli.terminal import clean
from gateway.core.dialects import DIALECTS

LAST_LINES = 10
_PATHS = {dialect.name: dialect.path for dialect in DIALECTS}


class RequestLines:
    """Reads the log (JSON, bytes) in a thread of its own. `first` is set once a request has been told; `records` are
    the latest ones."""

    def __init__(self, log: IO[bytes], say: Say) -> None:
        self.first = threading.Event()
        self.records: deque[dict[str, Any]] = deque(maxlen=LAST_LINES)
        self._log, self._say = log, say
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def last_lines(self) -> str:
        """The end of the log, for a failure; the process has ended."""
        self._thread.join(5)
        return "\nIts last lines:\n" + "\n".join(self._last) if self._last else ""

    def _read(self) -> None:
        for line in self._log:
            text = line.decode(errors="replace").rstrip()
            self._last.append(text)
            try:
                record = json.loads(text)
            except ValueError:
                continue
            if isinstance(record, dict):
                self._tell(record)

    def _tell(self, record: dict[str, Any]) -> None:
        words = describe(record)
        if words is not None:
            self._say(clean(words))  # a model's name is its client's word: it begins no line of its own
        if record.get("event") == "request":
            self.records.append(record)
            self.first.set()


def describe(record: dict[str, Any]) -> str | None:
    """A log record in a line; None where nobody needs it."""
    match record.get("event"):
        case "request":
            return _request(record)
        case "node_taken_out":
            return f"[gateway] node {record['node']} is out ({record['cause']}): it gets no requests"
        case "node_not_ready":
            return f"[gateway] node {record['node']} does not answer"
        case "node_ready":
            return f"[gateway] node {record['node']} is ready"
    return None


def _request(record: dict[str, Any]) -> str:
    path = _PATHS.get(record["dialect"], record["dialect"])
    parts = [f"[gateway] POST {path}", str(record["model"] or record["model_asked"]), str(record["status"])]
    if record["limit"] is not None:
        parts.append(f"limit {record['limit']}")
    if record["node"] is not None:
        budget = record["thinking_budget"]
        reasoning, output = record["reasoning_tokens"] or 0, record["output_tokens"] or 0
        parts += [
            f"budget {'none' if budget is None else budget}",
            f"{record['input_tokens']} in, {reasoning} thinking, {output - reasoning} answer",
            f"{record['duration_ms']:,.0f} ms",
            f"node {record['node']}",
        ]
    if record["resumes"]:
        parts += [f"resumed at token {each['token']} on {each['to']}" for each in record["resumes"]]
    return " | ".join(parts)
