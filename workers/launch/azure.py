"""Azure's scheduled events: which of them end this machine, and when.

The document lists events of all machines of a scale set's placement group, availability set or cloud service;
`Resources` names those that an event is about, as the instance metadata's `compute/name`. `NotBefore` is the earliest
start: 30 s ahead for Preempt, 5 to 15 minutes for Terminate, 10 to 15 for Redeploy and Reboot, days for hardware that
is about to fail. An event further ahead than `HEED_SECONDS` is left until it is closer.
Source: learn.microsoft.com/azure/virtual-machines/linux/scheduled-events, API version 2020-07-01.
"""

import json
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from workers.launch.notice import METADATA_SECONDS, Notice, NoticeUnreadable, ask

ADDRESS = "http://169.254.169.254"
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
HEADERS = {"Metadata": "true"}
FIRST_SECONDS = 130.0
"""The first question switches the service on, which takes up to two minutes."""
ENDING = frozenset({"preempt", "terminate", "reboot", "redeploy"})
"""Events that end the process. A Freeze pauses the machine for seconds and ends nothing."""
PROMISED_SECONDS = 30.0
"""Between notice and end, where an event does not say."""
HEED_SECONDS = 900.0


@dataclass(slots=True)
class AzureNotice:
    """The scheduled events that end this machine. `address` is the metadata service's."""

    poll_seconds: float = 5.0
    address: str = ADDRESS
    name: str = "azure"
    _machine: str | None = field(default=None, init=False)
    _asked: bool = field(default=False, init=False)

    async def look(self) -> Notice | None:
        """The event that ends this machine first, None while there is none. Raises NoticeUnreadable."""
        if self._machine is None:
            self._machine = await self._read(NAME, METADATA_SECONDS)
        text = await self._read(EVENTS, METADATA_SECONDS if self._asked else FIRST_SECONDS)
        self._asked = True
        return first_notice(text, {self._machine, socket.gethostname()}, datetime.now(UTC), self.poll_seconds)

    async def _read(self, path: str, seconds: float) -> str:
        answer = await ask("GET", self.address + path, HEADERS, seconds)
        if answer.status != 200:
            raise NoticeUnreadable(f"{self.address}{path} answers {answer.status}")
        return answer.text.strip()


def first_notice(text: str, names: set[str], now: datetime, late_seconds: float) -> Notice | None:
    """The event in a scheduled events document that ends one of `names` first. Raises NoticeUnreadable.

    `late_seconds` is how long ago an event that does not say its time may have come.
    """
    try:
        events = json.loads(text)["Events"]
        concerning = [e for e in events if str(e["EventType"]).lower() in ENDING and _concerns(e, names)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NoticeUnreadable("the answer is no document of scheduled events") from None
    notices = [_notice(event, now, late_seconds) for event in concerning]
    close = [notice for notice in notices if (notice.seconds or 0.0) <= HEED_SECONDS]
    return min(close, key=lambda notice: notice.seconds or 0.0, default=None)


def _concerns(event: dict[str, Any], names: set[str]) -> bool:
    """Whether the event is about this machine. One that names nobody is taken for everybody's."""
    listed = event.get("Resources") or []
    resources = [listed] if isinstance(listed, str) else listed
    ours = {name.lower() for name in names}
    return not resources or any(str(resource).lower().lstrip("_") in ours for resource in resources)


def _notice(event: dict[str, Any], now: datetime, late_seconds: float) -> Notice:
    start = _moment(str(event.get("NotBefore") or ""))
    started = str(event.get("EventStatus")).lower() == "started"
    if started and start is None:
        seconds = 0.0
    elif start is None:
        seconds = max(0.0, PROMISED_SECONDS - late_seconds)
    else:
        seconds = max(0.0, (start - now).total_seconds())
    key = f"{event.get('EventId')} {event.get('EventStatus')} {event.get('NotBefore')}"
    return Notice(f"Azure schedules {event['EventType']}", seconds, key)


def _moment(text: str) -> datetime | None:
    """`Mon, 19 Sep 2016 18:29:47 GMT`, or ISO 8601; without a zone it is UTC."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
