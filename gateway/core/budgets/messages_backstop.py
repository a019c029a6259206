"""The backstop behind a node's own messages: it finds an overrun budget, and lets the answer go on.

Messages carry no token ids, so the answer cannot be continued by the gateway; the node loses its trust instead.
"""

from gateway.core.dialects.messages import MessagesFilter

_THINKING = b'"thinking_delta"'


class MessagesBackstop(MessagesFilter):
    """Counts the events of thinking in a stream of messages."""

    __slots__ = ("_left", "overran")

    pace = None
    """Unknown: the usage of messages does not count the tokens of thinking."""

    def __init__(self, limit: int, pace: float) -> None:
        """`limit`: tokens of thinking allowed. `pace`: tokens that an event of this node has at least."""
        super().__init__()
        self._left = int(limit / pace)
        self.overran = False

    def feed(self, data: bytes) -> bytes:
        events = super().feed(data)
        self._count(events)
        return events

    def passes(self, event: bytes) -> bool:
        passes = MessagesFilter.passes(self, event)  # super() costs 0.1 µs more
        if passes:
            self._count(event)
        return passes

    def _count(self, events: bytes) -> None:
        self._left -= events.count(_THINKING)
        if self._left < 0:
            self.overran = True
