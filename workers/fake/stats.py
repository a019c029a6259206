"""What the node has seen, for tests: requests by path, the last ones with headers and body, open connections."""

import json
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from workers.fake.http1 import Exchange

_KEPT = 32


@dataclass(slots=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytearray

    @property
    def json(self) -> Any:
        """The body as JSON; raises ValueError when it is none."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """A header's value; the name in lower case."""
        return next((v for k, v in self.headers if k == name), None)

    def shown(self) -> dict[str, Any]:
        """As JSON: the body parsed where it is JSON, else as text."""
        text = self.body.decode("utf-8", "replace")
        try:
            body: Any = json.loads(text) if text else None
        except json.JSONDecodeError:
            body = text
        return {"method": self.method, "path": self.path, "headers": dict(self.headers), "body": body, "raw": text}


class Stats:
    """Counts since the start or the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets all counts."""
        self.requests: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.recent: deque[Seen] = deque(maxlen=_KEPT)

    def request(self, exchange: Exchange) -> None:
        """A request's head has come."""
        self.requests[exchange.path] += 1
        headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in exchange.headers)
        # The body is the exchange's own buffer: it fills as it comes, also when nobody waits for it.
        self.recent.append(Seen(exchange.method, exchange.path, headers, exchange.body))
