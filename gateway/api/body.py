"""A request's body: memory is reserved for every piece before it is kept, so that nothing is held beyond its bounds.

event                                      effect
a declared length, once the body is read   its memory is reserved at once: without memory it need not be sent
a piece                                    the size that it has once parsed is reserved, as far as it is not yet
a piece beyond a bound                     the body is refused: its pieces are released, the rest is dropped
the last piece                             the body is whole
a compressed body                          held as it came; `unpack` reserves memory for its unpacked size
the end of its request                     the memory is released (see `client_request`)
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from gateway.api.request_head import Fields
from gateway.core.errors import BodyTooLarge, GatewayError, MemoryFull
from gateway.core.http.content_coding import TAKEN, BodyDecoder, coding_of, unsupported
from gateway.core.http.json_size import COPIES, JsonSize, small_size
from gateway.core.memory import Holding, MemoryBudget

SMALL: Final = 16 * 1024
"""Bytes up to which a body that came whole has its parsed size estimated in one pass, generously."""

PACKED_COPIES = 2
"""A compressed body is held as its pieces, and once more while it is put together."""

STEPS = 4
"""Steps of unpacking in one iteration of the loop, of all tenants' bodies together."""

RETRY_SECONDS = 1.0
"""`retry-after` of a client for whose body there is no memory: when a request ends is not known."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes of a request's body, seconds for it to arrive, JSON values in it, bytes of an answer that is held whole,
    and bytes that the process holds of all requests and answers."""

    max_body: int
    body_timeout: float
    max_values: int
    max_answer: int
    memory: int


class RequestBounds:
    """The limits that bodies are read by, and what the bodies of one process share."""

    def __init__(self, limits: BodyLimits) -> None:
        self.memory = MemoryBudget(limits.memory)
        self.lanes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By owner, held by the one of its bodies that is unpacked, where that takes more than a step."""
        self.steps = asyncio.Semaphore(STEPS)
        """Held for a step, and until the next turn of the loop."""
        self.configure(limits)

    def configure(self, limits: BodyLimits) -> None:
        """Read by `limits` from now on; memory that is held stays held."""
        self.max_body = limits.max_body
        self.body_timeout = limits.body_timeout
        self.max_values = limits.max_values
        self.max_answer = limits.max_answer
        self.memory.limit = limits.memory

    def lane(self, owner: str) -> asyncio.Lock:
        """The owner's own lock, so that no owner's bodies wait for another's. It lives as long as somebody uses it."""
        lane = self.lanes.get(owner)
        if lane is None:
            lane = self.lanes[owner] = asyncio.Lock()
        return lane


class RequestBody:
    """`whole` is None until the body is complete; `refused` is the error that it is refused with. `length` in bytes."""

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
        """Note the Content-Encoding of a head with these `fields`; refuse the body where it is unknown."""
        self.coding = coding_of(fields)
        if self.coding is not None and self.coding not in TAKEN:
            self._refuse(unsupported(self.coding))

    @property
    def values(self) -> int:
        """JSON values in what has come; 0 for a small body, which is not counted."""
        return 0 if self._size is None else self._size.values

    @property
    def strings(self) -> int:
        """Strings in what has come, keys included; 0 where it is small."""
        return 0 if self._size is None else self._size.strings

    def expect(self, length: int) -> None:
        """Reserve memory for the declared length."""
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
        """Drop its pieces, and those still to come."""
        self.unwanted = True
        self._decoder = None
        self._pieces.clear()

    def unpack(self) -> bool:
        """Unpack a step of a compressed body; whether that was the last one, or the body is refused."""
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
            self._refuse(BodyTooLarge(f"The decompressed body is larger than {most} bytes: send a shorter prompt."))
        elif piece:
            self._account(piece)
            if not self.unwanted:
                self._pieces.append(piece)
        if decoder.done and not self.unwanted:
            self._decoder = None
            self.end()
            self.memory.shrink(self.memory.size - self._reserved_packed)

    def detach(self) -> bytes:
        """All of it, which is not kept here any longer. Raises the error that it is refused with."""
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
            try:
                raise error
            finally:
                del error  # as would this frame
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
        """Reserve `size` bytes for all of it."""
        more = size - self._reserved
        if more <= 0:
            return
        if self.memory.acquire(more):
            self._reserved = size
        elif (size := size + self._reserved_packed) > self.memory.most:
            most = self.memory.most
            self._refuse(BodyTooLarge(f"The body needs {size} bytes of memory, and one tenant can have {most}."))
        else:
            used_up = "The memory for request bodies is used up"
            self._refuse(MemoryFull(f"{used_up}; retry in {RETRY_SECONDS:g} s.", retry_after=RETRY_SECONDS))

    def _refuse(self, error: GatewayError) -> None:
        self.refused = error
        self.drop()
