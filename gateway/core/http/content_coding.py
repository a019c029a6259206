"""Decompression of request bodies (`Content-Encoding`, RFC 9110, section 8.4).

A body is decompressed in steps of bounded input and output, so that the caller can stop at a bound of its own: 32 KB
can decompress to 32 MB (a decompression bomb). Three bounds are held here:

    more than `MAX_RATIO` times its size     413: text reaches 20, a bomb 1,000
    less than half of its size               400: empty blocks and members cost time and give nothing
    more than `MAX_MEMBERS` gzip members     400
"""

import zlib
from collections.abc import Collection, Iterable

from gateway.core.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

HEADER = b"content-encoding"

TAKEN = ("gzip", "deflate")
"""The supported codings. `deflate` is the zlib format; many clients send it without zlib's header, so both are read."""

STEP_IN = 4 * 1024
STEP_OUT = 64 * 1024
"""The most bytes of a step's input and output. A step takes 0.3 ms for text, and under 2 ms for the worst input found,
a Huffman table for every 12 bytes."""

MAX_RATIO = 200
FREE = 1 << 20
"""Bytes of output to which no ratio applies: short prompts of tests repeat one word."""

SLACK = 64 * 1024
MAX_MEMBERS = 1024


def coding_of(fields: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The coding of a body with these header fields, as `TAKEN` names it; None where it is plain.

    Unknown codings, and several in a row, are returned as they were sent.
    """
    value = b",".join([content for name, content in fields if name == HEADER]).decode("latin-1").lower()
    codings = [coding for each in value.split(",") if (coding := each.strip(" \t")) not in ("", "identity")]
    if not codings:
        return None
    return "gzip" if codings == ["x-gzip"] else ", ".join(codings)


def unsupported(coding: str, taken: Collection[str] = TAKEN) -> UnsupportedEncoding:
    """The error for a body in a `coding` that is not `taken`."""
    words = f"in one of {', '.join(taken)}, or plain" if taken else "plain"
    return UnsupportedEncoding(
        f"The body has the Content-Encoding {coding!r}, which is not supported: send it {words}.",
        param=HEADER.decode(),
        headers={"accept-encoding": ", ".join(taken) or "identity"},
    )


class BodyDecoder:
    """Decompresses one body that has arrived whole. Raises `InvalidRequest` where its coding is broken."""

    __slots__ = ("_at", "_decoder", "_given", "_members", "_packed", "_tail", "coding", "done")

    def __init__(self, packed: bytes, coding: str) -> None:
        self.coding = coding
        self.done = False
        self._packed = packed
        self._at = 0  # the offset of the next input
        self._tail = b""  # input that the decoder has not read yet
        self._given = 0
        self._members = 0
        self._decoder = zlib.decompressobj(self._format())

    def step(self) -> bytes:
        """The next piece of output, possibly empty."""
        data = self._tail
        if not data:
            data = self._packed[self._at : self._at + STEP_IN]
            self._at += len(data)
        decoder = self._decoder
        try:
            piece = decoder.decompress(data, STEP_OUT)
        except zlib.error as error:
            raise self._invalid(f"{str(error).rpartition(': ')[2]} (before byte {self._at})") from None
        self._tail = decoder.unconsumed_tail
        self._given += len(piece)
        if decoder.eof:
            self._end_member(decoder.unused_data)
        elif not data and not piece:
            raise self._invalid("it ends in the middle")
        self._check_yield()
        return piece

    def _format(self) -> int:
        """zlib's `wbits`."""
        if self.coding == "gzip":
            return 16 + zlib.MAX_WBITS
        head = self._packed[:2]
        wrapped = len(head) == 2 and head[0] & 15 == zlib.DEFLATED and int.from_bytes(head, "big") % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS

    def _end_member(self, rest: bytes) -> None:
        self._tail = rest
        if not rest and self._at >= len(self._packed):
            self.done = True
            self._packed = b""
            return
        self._members += 1
        if self.coding != "gzip":
            raise self._invalid("there are bytes after its end")
        if self._members >= MAX_MEMBERS:
            raise self._invalid(f"it has more than {MAX_MEMBERS} members")
        self._decoder = zlib.decompressobj(self._format())

    def _check_yield(self) -> None:
        read, given = self._at - len(self._tail), self._given
        if given > FREE and given > MAX_RATIO * read:
            raise BodyTooLarge(
                f"The body decompresses to more than {MAX_RATIO} times its size: send it plain, or a smaller one.",
                param=HEADER.decode(),
            )
        if read > SLACK + 2 * given:
            raise self._invalid("it decompresses to less than half of its size")

    def _invalid(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"The body is not valid {self.coding}, as its Content-Encoding says: {why}. Compress it again, or send it "
            "plain.",
            param=HEADER.decode(),
            code="invalid_content_encoding",
        )
