"""A request's body as it comes: every piece is weighed before it is kept, so that nothing is held beyond its bounds.

what comes                                 what happens
a declared length, once it is wanted       its memory is taken at once: who gets none need not send it
a piece                                    what it becomes once it is parsed is taken, as far as it is not yet
a piece beyond a bound                     the body is refused: what there is of it is let go, the rest is dropped
the last piece                             the body is whole
a compressed body                          held as it came; once it is whole and wanted, `unpack` weighs what comes out
the end of its request                     the holding is released (see `call`)
"""

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from gateway.api.request_head import Fields
from gateway.core.errors import BodyTooLarge, GatewayError, MemoryFull
from gateway.core.http.content_coding import TAKEN, BodyDecoder, coding_of, unsupported
from gateway.core.http.json_size import COPIES, JsonSize, small_size
from gateway.core.memory import Holding, MemoryBudget

SMALL = 16 * 1024
"""Bytes of a body that came whole and is weighed in one pass, generously."""

PACKED_COPIES = 2
"""A compressed body is held as its pieces, and once more while it is put together."""

STEPS = 4
"""Steps of unpacking in one turn of the loop, of whoever's bodies: else many tenants hold it up where one cannot."""

RETRY_SECONDS = 1.0
"""What a client is told to wait for memory: nobody knows when a request ends."""


@dataclass(slots=True)
class RequestBounds:
    """What is accepted of a client: bytes of a body, values in it, and seconds for it to arrive; `max_answer` is bytes
    of an answer that is held whole. A reload replaces the values.
    """

    max_body: int
    body_timeout: float
    max_values: int
    max_answer: int
    memory: MemoryBudget
    lanes: "WeakValueDictionary[str, asyncio.Lock]" = field(default_factory=WeakValueDictionary)
    """By owner, held by the one of its bodies that is unpacked, where that takes more than a step."""
    steps: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STEPS))
    """Held for a step, and until the next turn of the loop."""

    def lane(self, owner: str) -> asyncio.Lock:
        """Each owner has one, so that nobody's bodies wait for another's; it goes with the last that waits in it."""
        lane = self.lanes.get(owner)
        if lane is None:
            lane = self.lanes[owner] = asyncio.Lock()
        return lane


class RequestBody:
    """`whole` is None until all of it is there; `refused` says why it is not wanted any more. `length` in bytes."""

    __slots__ = (
        "_bounds",
        "_decoder",
        "_pieces",
        "_reserved",
        "_reserved_packed",
        "_size",
        "coding",
        "length",
        "memory",
        "refused",
        "unwanted",
        "whole",
    )

    def __init__(self, bounds: RequestBounds, whole: bytes | None) -> None:
        self.memory = Holding(bounds.memory)
        self.whole = whole
        self.length = 0
        self.refused: GatewayError | None = None
        self.unwanted = False
        self._bounds = bounds
        self._reserved = self._reserved_packed = 0
        self._pieces: list[bytes] = []
        self._size: JsonSize | None = None
        self.coding: str | None = None
        self._decoder: BodyDecoder | None = None

    def set_coding(self, fields: Fields) -> None:
        """Its head, with these `fields`, has a Content-Encoding: refuse it, or be ready to unpack it."""
        self.coding = coding_of(fields)
        if self.coding is not None and self.coding not in TAKEN:
            self._refuse(unsupported(self.coding))

    def expect(self, length: int) -> None:
        """So many bytes are said to come."""
        self._reserve(length * (COPIES if self.coding is None else PACKED_COPIES))

    def feed(self, piece: bytes) -> None:
        self.length += len(piece)
        if self.unwanted:
            return
        if self.coding is None:
            self._account(piece)
        else:
            self._reserve(self.length * PACKED_COPIES)
        if not self.unwanted:
            self._pieces.append(piece)

    def end(self) -> None:
        self.whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()

    def drop(self) -> None:
        """Whatever comes of it is forgotten."""
        self.unwanted = True
        self._decoder = None
        self._pieces.clear()

    def unpack(self) -> bool:
        """A step of it, for a compressed body; whether that was the last one, or the body is refused."""
        decoder, most = self._decoder, self._bounds.max_body
        if decoder is None:
            packed = self.whole
            if not packed or len(packed) > most or self.coding is None or self.refused is not None:
                return True
            self._reserve(len(packed) * PACKED_COPIES)
            self._reserved_packed, self._reserved = self._reserved, 0
            self.length, self.whole = 0, b""
            decoder = self._decoder = BodyDecoder(packed, self.coding)
        if not self.unwanted:
            self._unpack_some(decoder, most)
        return self.unwanted or self._decoder is None

    def _unpack_some(self, decoder: BodyDecoder, most: int) -> None:
        piece = decoder.step()
        self.length += len(piece)
        if self.length > most:
            self._refuse(BodyTooLarge(f"The body is larger than {most} bytes, unpacked: send a shorter prompt."))
        elif piece:
            self._account(piece)
            if not self.unwanted:
                self._pieces.append(piece)
        if decoder.done and not self.unwanted:
            self._decoder = None
            self.end()
            self.memory.shrink(self.memory.size - self._reserved_packed)

    def detach(self) -> bytes:
        """All of it, out of here; raises what it is refused for."""
        body, most = self.whole, self._bounds.max_body
        if self.refused is None and (body is None or len(body) > most):
            self.refused = BodyTooLarge(f"The body is larger than {most} bytes: send a shorter prompt.")
        if self.refused is None and body and self._size is None:
            if len(body) <= SMALL:
                self._reserve(small_size(body))
            else:
                self._account(body)
        if self.refused is not None or body is None:
            error, self.refused = self.refused, None  # raised once: kept, it would hold its traceback in a ring
            assert error is not None
            raise error
        self.whole = b""
        return body

    def _account(self, piece: bytes) -> None:
        size = self._size
        if size is None:
            size = self._size = JsonSize()
        size.feed(piece)
        most = self._bounds.max_values
        if size.values > most:
            self._refuse(
                BodyTooLarge(
                    f"The body holds more than {most} values (elements of arrays and members of objects, "
                    "requests.max_json_values): send fewer, longer ones.",
                    code="too_many_values",
                )
            )
        else:
            self._reserve(size.size)

    def _reserve(self, size: int) -> None:
        """Hold `size` bytes for all of it."""
        more = size - self._reserved
        if more <= 0:
            return
        if self.memory.acquire(more):
            self._reserved = size
        elif (size := size + self._reserved_packed) > self.memory.most:
            most = self.memory.most
            self._refuse(BodyTooLarge(f"The body takes {size} bytes of memory, and one tenant can have {most}."))
        else:
            self._refuse(MemoryFull("Memory for request bodies is used up: try again soon.", retry_after=RETRY_SECONDS))

    def _refuse(self, error: GatewayError) -> None:
        self.refused = error
        self.drop()
