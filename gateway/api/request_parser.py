"""The requests in a client's bytes: where each one begins and ends, its head, and the pieces of its body.

One parser (llhttp, by way of httptools) reads every byte as it came, in order; nothing is edited before it. It is fed
one cut at a time. A message of HTTP/1.1 ends behind a blank line or where its content-length says, so a cut that ends
there holds the end of one message at most. Where cuts are made costs or saves work; it never changes what is found.

    state           the next cut ends                         found in it
    a head          behind the next blank line, if it came    a head: `on_head`
    counted body    with the body, if it came                 a piece, or the end
    chunked body    behind the next blank line, if it came    pieces, or the end; trailers are counted and dropped
    any             -                                         no HTTP, or a bound is passed: `GatewayError`

An offer to speak another protocol (`Upgrade`, RFC 9110 section 7.8) is declined, and the request is served as if it
had not been made. llhttp ends such a message at its head, whatever its body. A fresh parser goes on at that byte: it is
primed with a head that declares the same length of the body as the client's.
"""

from collections.abc import Callable
from contextlib import suppress

import httptools

from gateway.api.errors import method_not_allowed
from gateway.api.queued_request import QueuedRequest
from gateway.api.request_head import FRAMING, Fields, RequestHead, check_head, not_http, split_target
from gateway.core.errors import GatewayError, HeadersTooLarge

_BLANK_LINE = b"\r\n\r\n"
_CHUNKED = -1
_LONGEST_LENGTH = 18
"""Digits of a content-length: a body of more bytes is no body."""

_SMALL = 8192
"""Bytes that are copied sooner than a view of them is made."""

_FRAMING_PER_BYTE = 16
"""Bytes of chunk sizes and line ends allowed for each byte of a chunked body: chunks of one byte need 5."""


class RequestParser:
    """One connection's. `on_head` makes a request of each head, which gets its body; it may refuse with a GatewayError.

    After a `GatewayError` the bytes that follow mean nothing: the connection has to be closed.
    """

    def __init__(self, on_head: Callable[[RequestHead], QueuedRequest], max_head: int) -> None:
        """`max_head`: bytes of a head, and of a body's trailers."""
        self._on_head = on_head
        self._max_head = max_head
        self._parser: httptools.HttpRequestParser | None = None
        self.arriving: QueuedRequest | None = None
        """The request whose body is not complete."""
        self.last: RequestHead | None = None
        """The head that was complete last."""
        self.fresh = True
        """Whether the next byte begins a message."""
        self._error: Exception | None = None
        """The error that a callback has raised: the parser raises another one in `feed`."""
        self.begun = 0
        self.completed = 0
        self.head_bytes = 0
        """Bytes since the last message that do not complete a head; blank lines are such bytes, too."""
        self._cut = 0  # bytes in the cut that is being parsed
        self._tail = b""  # of the cut before it: a blank line may have begun there
        self._left = 0  # bytes of the body to come; _CHUNKED
        self._given = 0  # bytes of the body in this cut
        self._size = self._framing = self._run = 0  # of a chunked body: its bytes, others, others in a row
        self._trailers = 0
        self._offered = self._primed = False
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def feed(self, data: bytes, start: int) -> int:
        """Parse the next cut of `data`, from `start`; the position behind what was parsed."""
        end = self._next_cut(data, start)
        self._cut = size = end - start
        self._given = 0
        if size == len(data):
            piece: bytes | memoryview = data
        else:
            piece = data[start:end] if size < _SMALL else memoryview(data)[start:end]
        completed = self.completed
        parser = self._parser
        if parser is None:
            parser = self._parser = self._new_parser()
        try:
            parser.feed_data(piece)
        except httptools.HttpParserUpgrade as stop:
            end = start + int(stop.args[0])
            self._go_on_behind_an_offer()
        except httptools.HttpParserCallbackError as raised:
            raise self._raised(raised) from None
        except httptools.HttpParserError as error:
            raise not_http(f"{error}.") from None
        if self.completed != completed or self._left > 0:
            self._tail = b""
            self.fresh = self.completed == self.begun
            return end
        self._tail = (self._tail + data[max(start, end - 3) : end])[-3:]
        self.fresh = False
        if self._left == _CHUNKED:
            self._check_framing()
        else:
            self.head_bytes += size
            if self.head_bytes > self._max_head:
                raise self._too_long()
        return end

    def _raised(self, stop: Exception) -> Exception:
        """The error of a callback, which made the parser raise `stop`. In a variable of `feed` it would be a cycle."""
        error, self._error = self._error, None
        return error or stop

    def fields_so_far(self) -> Fields:
        """The header fields of the request that was parsed last, or in part. Only once nothing more is to be parsed:
        httptools reports a field when the next one begins."""
        if not self.fresh and not self._left and self._parser is not None:
            with suppress(httptools.HttpParserError):  # it had failed before, or waits for something else
                self._parser.feed_data(b"x:")
        return self._fields

    def close(self) -> None:
        """Release the parser, which refers to this object, and all that refers to the connection."""
        self._parser = self.arriving = self.last = None
        self._on_head = _closed
        self._fields = []

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # the connection closes after that answer
        return parser

    def _next_cut(self, data: bytes, start: int) -> int:
        if self._left > 0:
            return min(len(data), start + self._left)
        tail = self._tail
        if tail:
            at = (tail + data[start : start + 3]).find(_BLANK_LINE)
            if at >= 0:
                return start + at + len(_BLANK_LINE) - len(tail)
        at = data.find(_BLANK_LINE, start)
        return len(data) if at < 0 else at + len(_BLANK_LINE)

    def _too_long(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"The headers are larger than {self._max_head} bytes.")

    def _check_framing(self) -> None:
        """Chunk sizes, their extensions and trailers are bytes that no bound of a body counts."""
        others = self._cut - self._given
        self._size += self._given
        self._framing += others
        self._run = 0 if self._given else self._run + others
        if self._run > self._max_head or self._framing > self._max_head + _FRAMING_PER_BYTE * self._size:
            raise HeadersTooLarge(f"The body's chunk extensions or trailers are larger than {self._max_head} bytes.")

    def _go_on_behind_an_offer(self) -> None:
        """Go on with a new parser: the old one stopped behind a head that offers another protocol."""
        self._parser = self._new_parser()
        if not self._offered:
            return  # there is no body: the next byte begins the next message
        self._offered = False
        framing = [b"%b: %b\r\n" % field for field in self._fields if field[0] in FRAMING]
        self._primed = True
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        finally:
            self._primed = False
        self._fields = []

    # Callbacks of the parser. Their errors are kept: compiled, they are not the context of the parser's own error.

    def on_message_begin(self) -> None:
        if not self._primed:
            self.begun += 1
            self._url = b""
            self._fields = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._left == _CHUNKED:
            if not self._primed:
                self._trailers += len(name) + len(value)
                if self._trailers > self._max_head:
                    self._error = self._too_long()
                    raise self._error
        else:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._primed:
            return
        try:
            self._begin_message()
        except Exception as error:
            self._error = error
            raise

    def _begin_message(self) -> None:
        if self.head_bytes + self._cut > self._max_head:
            raise self._too_long()
        parser = self._parser
        assert parser is not None
        head = self._head(parser)
        self._left = self._length(head)
        self._offered = self._left != 0 and parser.should_upgrade()
        self._size = self._framing = self._run = self._trailers = 0
        self.head_bytes = 0
        self.last = head
        self.arriving = self._on_head(head)

    def on_body(self, body: bytes) -> None:
        self._given += len(body)
        if self._left > 0:
            self._left -= len(body)
        if self.arriving is not None:
            try:
                self.arriving.feed(body)
            except Exception as error:
                self._error = error
                raise

    def on_message_complete(self) -> None:
        if self._offered:
            return  # of the head alone: the body is still to come
        self.completed += 1
        self._left = 0
        request, self.arriving = self.arriving, None
        if request is not None:
            try:
                request.end_of_body()
            except Exception as error:
                self._error = error
                raise

    def _head(self, parser: httptools.HttpRequestParser) -> RequestHead:
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise not_http("only HTTP/1.1 and HTTP/1.0 are supported.")
        if method == "CONNECT":
            raise method_not_allowed(method, self._url.decode("latin-1"), ("GET", "POST"))
        try:
            path, raw_path, query = split_target(self._url)
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            raise not_http("its target is neither a path nor a URL.") from None
        fields = self._fields
        headers = dict(fields)
        old = version == "1.0"
        check_head(fields, headers, old)
        return RequestHead(
            method=method,
            path=path,
            raw_path=raw_path,
            query=query,
            fields=fields,
            headers=headers,
            old=old,
            keep_alive=not old and parser.should_keep_alive(),
            expects=headers.get(b"expect", b"").lower() == b"100-continue",
        )

    def _length(self, head: RequestHead) -> int:
        """Bytes of the body, as the head declares them; _CHUNKED."""
        if b"transfer-encoding" in head.headers:
            return _CHUNKED
        declared = head.headers.get(b"content-length")
        if declared is None:
            return 0
        digits = declared.strip(b" \t")
        if not digits.isdigit() or len(digits) > _LONGEST_LENGTH:
            raise not_http("its content-length is not a number of bytes.")
        return int(digits)


def _closed(_: RequestHead) -> QueuedRequest:
    raise GatewayError("the connection is closed")
