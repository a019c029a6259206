"""The answers in a node's bytes: the head, the parts of the body, and where an answer ends.

Theory. A node's answer is framed by a Content-Length, by chunks, or by the end of the connection (RFC 9112,
section 6.3). llhttp (through httptools) does the parsing, strictly. Its callbacks only note what they find, and the
connection reads that after each `feed`, so no receiver runs inside the parser.
"""

import httptools


class ResponseHead:
    """Status and headers of an answer; names in lower case, in the order they came. `coding`: the header that says that
    the body is compressed, None where none does. `checked`: it is known to be one that clients are sent."""

    __slots__ = ("checked", "coding", "content_type", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: tuple[tuple[bytes, bytes], ...],
        content_type: bytes = b"",
        coding: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.content_type = content_type
        self.coding = coding
        self.checked = False


class ResponseParser:
    """Parses the answers of one connection, one after the other; `reset` comes before each.

    `head`: None until it is complete; interim heads (1xx) are skipped. `body`: the parts that were parsed and not taken
    yet. `complete`: the answer has ended by its framing. `surplus`: bytes came behind it. `between_chunks`: the next
    byte begins a chunk. `keep_alive`: the node keeps the connection open. `until_eof`: the body has no framing but the
    end of the connection.
    """

    __slots__ = (
        "_fields",
        "_parser",
        "between_chunks",
        "body",
        "complete",
        "head",
        "keep_alive",
        "surplus",
        "until_eof",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.reset()

    def reset(self) -> None:
        """Forget the last answer. The parser stays where it is: before the next message."""
        self._fields: list[tuple[bytes, bytes]] = []
        self.head: ResponseHead | None = None
        self.body: list[bytes] = []
        self.between_chunks = False
        self.complete = False
        self.surplus = False
        self.keep_alive = False
        self.until_eof = False

    def feed(self, data: bytes) -> bool:
        """Parse `data`, however it is cut; False where it is not HTTP."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                return False
            self.surplus = True
        if not data.endswith(b"\r\n"):  # perhaps in the first line of the next chunk
            self.between_chunks = False
        return True

    # Callbacks of httptools

    def on_message_begin(self) -> None:
        if self.complete:
            self.surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None and not self.surplus:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.surplus:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._fields = []
            return
        content_type, framed, coding = b"", status in (204, 304), None
        for name, value in self._fields:
            if name == b"content-type":
                content_type = content_type or value
            elif name == b"content-length":
                framed = True
            elif name == b"transfer-encoding":
                framed = framed or b"chunked" in value.lower()
                coding = coding if value.lower() == b"chunked" else (name, value)
            elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
                coding = (name, value)
        self.head = ResponseHead(status, tuple(self._fields), content_type, coding)
        self.keep_alive = self._parser.should_keep_alive()
        self.until_eof = not framed

    def on_body(self, data: bytes) -> None:
        if not self.surplus:
            self.body.append(data)

    def on_chunk_header(self) -> None:
        self.between_chunks = False

    def on_chunk_complete(self) -> None:
        if self.head is not None and not self.surplus:
            self.between_chunks = True

    def on_message_complete(self) -> None:
        self.between_chunks = False
        if self.head is not None:
            self.complete = True
