"""The turn of a request whose response the gateway keeps.

    made           with the request's plan: its ids are known before its answer begins
    complete       its answer was translated whole: the last event, or the plain body, is held back
    sent           it was stored or not, and the client is told which

So the next request, which may come to another gateway at once, finds the response stored. An answer that breaks off, or
that its node gives in the client's own dialect, never becomes complete.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gateway.core.bodies import Body
from gateway.core.responses.items import NO_ITEMS
from gateway.core.responses.kept_ids import Place, item_id

Headers = list[tuple[bytes, bytes]]


class Before(NamedTuple):
    """What a turn goes on from: the `turn` before it in its conversation (None: it begins one), and the digest of all
    that was said until then. `repeated`: so many of its own items may be a copy of that, see `items.Repeated`."""

    turn: str | None = None
    digest: str = NO_ITEMS
    repeated: int = 0


class KeptTurn:
    """`items`: the request's own input. `response`: None until its answer is complete."""

    __slots__ = ("_head", "_write", "before", "items", "place", "response", "response_id")

    def __init__(self, response_id: str, place: Place, before: Before, items: Sequence[Any]) -> None:
        self.response_id = response_id
        self.place = place
        self.before = before
        self.items = items
        self.response: Body | None = None
        self._write: Callable[[Body], bytes] | None = None
        self._head: tuple[int, Headers] | None = None

    def item_id(self, prefix: str, number: int) -> str:
        """The id of the `number`-th item of its output."""
        return item_id(prefix, self.place, number)

    def complete(self, response: Body, write: Callable[[Body], bytes]) -> None:
        """`write` makes the end of the answer for the response."""
        self.response = response
        self._write = write

    def forget(self) -> None:
        """Its answer failed: another attempt may complete it, or nothing does."""
        self.response = self._write = self._head = None

    def hold(self, status: int, headers: Headers) -> None:
        """It is a plain answer, with this head."""
        self._head = (status, headers)

    @property
    def head(self) -> tuple[int, Headers] | None:
        """The head of a plain answer; None where it is a stream, which has begun."""
        return self._head

    def end(self, stored: bool) -> bytes:
        """The end of the answer, which says whether it was stored."""
        assert self._write is not None and self.response is not None
        return self._write(self.response if stored else {**self.response, "store": False})
