"""The client's side of a request, as pipeline and relay use it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import ClientGone, GatewayError

Headers = list[tuple[bytes, bytes]]

Done = TypeVar("Done")


class ClientListener(Protocol):
    """The exchange that answers a client's request, as that request calls it."""

    def on_gone(self) -> None: ...
    def on_full(self) -> None:
        """More was written than the client has room for: no more until `on_writable`. Called within the write."""

    def on_writable(self) -> None: ...


class DownstreamRequest(Protocol):
    """A client's request, before and while it is answered. Only `read_body` waits."""

    headers: Mapping[bytes, bytes]
    request_id: str
    listener: ClientListener | None
    gone: bool
    """Whether the client closed its connection before the answer was complete."""
    status: int
    """The HTTP status that was sent, 0 before."""
    stream_filter: StreamFilter | None
    """That of the events that it was sent; None before the first, and where it gets none."""

    @property
    def address(self) -> str:
        """The client's address, as far as trusted proxies report it."""

    @property
    def weighty(self) -> bool:
        """Whether its body costs something to read: it has not come yet, is large, or is compressed."""

    @property
    def values(self) -> int:
        """The values of its body, once that is read (elements of arrays, members of objects); 0 where it is small."""

    @property
    def strings(self) -> int:
        """The strings in its body, keys included; 0 where it is small."""

    def shrink_body(self, size: int) -> None:
        """Hold `size` bytes for its body from now on: it is not parsed here."""

    def grow_body(self, size: int) -> None:
        """Hold `size` bytes more for its body: what it refers to is put in its place. Raises `BodyTooLarge` and
        `MemoryFull`."""

    async def read_body(self, owner: str) -> bytes:
        """The whole body, counted as `owner`'s memory. Raises an error where it is too large or too slow, or the client
        is gone."""

    def take_body(self, owner: str) -> bytes:
        """The same for a body that is not `weighty`: nothing of it has to be waited for."""

    @property
    def started(self) -> bool:
        """Whether the head was sent."""

    def add_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these headers on the answer, besides those that were added before. Called before its head is sent."""

    def hold(self, length: int, rewritten: bytes | None = None) -> None:
        """Reserve memory for `length` more bytes of an answer that is kept until it is whole; `rewritten` are those of
        them that will be parsed. Raises `MemoryFull` and `AnswerTooLarge`."""

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer; its length is added to its head."""

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        """Send the head; `stream` where events follow, so that an error can be one of them."""

    def push(self, data: bytes) -> bool:
        """Send a piece of the body; False asks for no more until `on_writable`."""

    @property
    def write_chunk(self) -> Callable[[bytes], None] | None:
        """Sends a piece of the body that is an HTTP chunk already, from now on; None where pieces have to be pushed."""

    def finish(self, data: bytes = b"") -> None:
        """Send the last piece of the body, which may be empty."""

    def fail(self, error: GatewayError) -> None:
        """Send an error: as the answer, or as an event of a stream that has begun."""


class Leaving:
    """The listener of a client while something else is awaited: raises `ClientGone` there once it has left."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: "asyncio.Future[None]") -> None:
        self._waiter = waiter

    def on_gone(self) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(ClientGone("The client closed its connection."))

    def on_full(self) -> None: ...

    def on_writable(self) -> None: ...


async def while_there(work: Coroutine[Any, Any, Done], request: DownstreamRequest) -> Done:
    """What `work` returns. Raises `ClientGone` at once where the client leaves; `work` is cancelled then."""
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work)
    before, request.listener = request.listener, Leaving(left)
    if request.gone:
        request.listener.on_gone()
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            left.result()
        return await task
    finally:
        request.listener = before
        left.cancel()
        task.cancel()


async def in_turns(steps: Iterator[Done | None], request: DownstreamRequest) -> Done:
    """The last of `steps`; the event loop runs others after each. Raises `ClientGone` once the client has left."""
    done: Done | None = None
    for step in steps:
        done = step
        await asyncio.sleep(0)
        if request.gone:
            raise ClientGone("The client closed its connection.")
    assert done is not None
    return done
