"""One client's request, as the pipeline and the relay know it: its headers, its body, and the way of its answer.

The relay pushes from the node's `data_received`, straight into the client's connection (see `cycle`). Where the
client reads more slowly than the node writes, the listener is told, and pauses the node until it is told again.
"""

import asyncio
import random
import re
from collections.abc import Callable, Iterable, Mapping

from gateway.api.body import RequestBody, RequestBounds
from gateway.api.cycle import Connection, Cycle, check_headers
from gateway.api.errors import error_headers, shape_error
from gateway.api.request_head import Endpoint, RequestHead, brings_body
from gateway.core.errors import AnswerTooLarge, ClientGone, GatewayError, MemoryFull
from gateway.core.http.content_coding import HEADER
from gateway.core.http.json_size import JsonSize
from gateway.upstream.downstream import ClientListener, Headers

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gave in `x-request-id`, if it can be logged as it is, else a new one.

    A new one has to be unique, not secret: 96 bits that cost no system call.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + random.getrandbits(96).to_bytes(12, "big").hex()


EARLY_BYTES = 64 * 1024
"""A body that is larger is looked at twice: whether its sender may ask at all is found out before it is parsed."""

UNSENT_BYTES = 64 * 1024
UNSENT_SECONDS = 0.25
"""What a client has not taken of its answer is held for it after the request's end, and looked at so often."""


class ClientCall(Cycle):
    """The client's side of one request; the relay's `Downstream` and the pipeline's `Call`."""

    _stream = False
    _answer_bytes = 0
    _answer: JsonSize | None = None
    _told: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        connection: Connection,
        head: RequestHead,
        body: bytes | None,
        route: Endpoint,
        bounds: RequestBounds,
        begin: Callable[["ClientCall"], None],
    ) -> None:
        """`begin` is called when it is this request's turn on its connection."""
        arriving = RequestBody(bounds, body)
        if HEADER in head.headers and brings_body(head):
            arriving.is_coded(head.fields)
        super().__init__(connection, head, arriving)
        self.listener: ClientListener | None = None  # here: mypyc knows no default of the class that is a protocol's
        self._memory = arriving.memory
        self.route = route
        self.request_id = request_id_of(head.headers)
        self._bounds = bounds
        self._begin = begin

    def begin(self) -> None:
        self.begun = True
        self._begin(self)

    @property
    def address(self) -> str:
        """Where the client is; behind trusted proxies, what they say of it."""
        return self.connection.address(self.head.fields)

    @property
    def weighty(self) -> bool:
        """Whether its body costs something to read: it has not come yet, is large, or is compressed."""
        body = self._body
        return body.whole is None or len(body.whole) > EARLY_BYTES or body.coding is not None

    async def read_body(self, owner: str) -> bytes:
        """The whole body, held as `owner`'s; the client is watched from the moment it is there."""
        body, bounds = self._body, self._bounds
        self._memory.set_owner(owner)
        if body.whole is None and body.refused is None:
            await self._wait_for_body(bounds.max_body, bounds.body_timeout)
        self._flow.resume_reading()  # paused by a large body that was whole before its turn
        if body.coding is not None:
            await self._unpack(body)
        return body.take()

    async def _unpack(self, body: RequestBody) -> None:
        """One body of a tenant at a time, in steps that all tenants take by turns, but for what one step unpacks: else
        many would hold up the loop."""
        if body.unpack():
            return
        bounds, done = self._bounds, False
        async with bounds.lane(self._memory.owner):
            while not done:
                async with bounds.steps:
                    done = body.unpack()
                    await asyncio.sleep(0)
                if self.gone:
                    raise ClientGone("The client closed its connection.")

    def hold(self, length: int, rewritten: bytes | None = None) -> None:
        """So many more bytes of the answer are kept until it is whole; `rewritten` is what will be parsed of it."""
        self._answer_bytes += length
        most = self._bounds.max_answer
        if self._answer_bytes > most:
            raise _too_large(f"{most} bytes (requests.max_answer)")
        if rewritten is not None:
            answer = self._answer = self._answer or JsonSize()
            before = answer.size
            answer.feed(rewritten)
            length = answer.size - before
        if self._memory.size + length > self._memory.most:
            raise _too_large("one tenant's part of the memory (requests.memory)")
        if not self._memory.acquire(length):
            raise MemoryFull("Memory for answers is used up: ask for a stream, or try again soon.", retry_after=1.0)

    def lose(self) -> None:
        super().lose()
        if self.listener is not None:
            self.listener.on_gone()
        if not self.begun:  # else its story ends, and closes it
            self._memory.shrink(0)

    def on_full(self) -> None:
        if self.listener is not None:
            self.listener.on_full()

    def on_writable(self) -> None:
        if self.listener is not None:
            self.listener.on_writable()

    @property
    def started(self) -> bool:
        return self.status != 0

    def add_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these headers on the answer, whatever it will be: told before its head goes out."""
        self._told += tuple(headers)

    def start(self, status: int, headers: Headers, stream: bool) -> None:
        """The head; `push` and `finish` follow."""
        self._stream = stream
        self._begin_answer(status, headers)

    def fail(self, error: GatewayError) -> None:
        """An error answer; in a stream that has begun an event; a plain answer that has begun is left cut off."""
        if self.gone or self.response_complete:
            return
        if self.status == 0:
            shape = shape_error(error, self.request_id)
            body = self.route.dialect.error(shape)
            headers = error_headers(error, body)
            check_headers(headers)
            self._begin_answer(shape.status, headers)
            self._finish_and_linger(body)
        elif self._stream:
            self.finish(self.route.dialect.error_event(shape_error(error, self.request_id)))

    def close(self) -> None:
        """The request's story is over, whatever its end."""
        self.listener = None
        self._release()
        self._break_off()

    def _release(self) -> None:
        """Hold nothing any more, but what the client has not taken yet of its answer."""
        unsent = self._unsent() if self._memory.size > UNSENT_BYTES else 0
        self._memory.shrink(unsent)
        if unsent:
            self.connection.loop.call_later(UNSENT_SECONDS, self._release)

    def _unsent(self) -> int:
        try:
            return self.connection.unsent()
        except (RuntimeError, AttributeError):  # closed
            return 0

    def _begin_answer(self, status: int, headers: Headers) -> None:
        if self._told:
            check_headers(list(self._told))
            headers = [*headers, *self._told]
        request_id = self.request_id.encode()
        self._render(status, headers, b"x-request-id: %b\r\nrequest-id: %b\r\n" % (request_id, request_id))


def _too_large(bound: str) -> AnswerTooLarge:
    return AnswerTooLarge(
        f"The answer is larger than {bound}, and has to be held until it is whole: ask for a stream, or for less."
    )
