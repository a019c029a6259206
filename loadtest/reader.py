"""Reading one HTTP answer as cheaply as a load client can, without I/O.

No HTTP parser: this client asks one thing at a time and knows who answers, so the head is searched once and the
body only counted. The end is told by the length, or by the last chunk, whose bytes `0 CRLF CRLF` no event and no
JSON body can end in.
"""

from loadtest.answers import LAST_CHUNK, MARK

TAIL_BYTES = 40


class Answer:
    """One answer, fed as the bytes come in any pieces."""

    __slots__ = ("_body_left", "_head", "_tail", "body_bytes", "events", "status")

    def __init__(self) -> None:
        """Nothing has come yet: `status` is 0 until the head is whole."""
        self.status = 0
        self.events = 0
        self.body_bytes = 0
        self._head = b""
        self._tail = b""
        self._body_left = -1

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; true when the answer is whole."""
        if not self.status:
            data = self._read_head(data)
            if not self.status:
                return False
        self.body_bytes += len(data)
        self.events += data.count(MARK)
        if self._body_left >= 0:
            self._body_left -= len(data)
            return self._body_left <= 0
        self._tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        return self._tail.endswith(LAST_CHUNK)

    @property
    def done(self) -> bool:
        """Whether the last bytes hold the `[DONE]` that ends a stream."""
        return b"[DONE]" in self._tail

    def _read_head(self, data: bytes) -> bytes:
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self.status = int(head[9:12])
        _, found, length = head.lower().partition(b"\r\ncontent-length:")
        if found:
            self._body_left = int(length.partition(b"\r\n")[0])
        return body
