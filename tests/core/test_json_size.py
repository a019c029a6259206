"""`JsonSize` skips long strings: it counts what one that reads every byte counts, whatever comes, however it is cut."""

import re
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.http.json_size import (
    COPIES,
    PER_CONTAINER,
    PER_KEY,
    PER_VALUE,
    WIDE,
    WIDEST,
    JsonSize,
)

TEXT = bytes(set(range(256)) - set(b'{[,:"'))
PLAIN_TEXT = bytes(set(TEXT) - set(b"\\/bfnrtu"))


class EveryByte:
    """The same counts, of pieces that are read whole."""

    def __init__(self) -> None:
        self.length = self.containers = self.keys = self.commas = self.quotes = self.widest = 0
        self.in_string = False
        self.rest = b""

    def feed(self, piece: bytes) -> None:
        self.length += len(piece)
        piece = self.rest + piece
        self.rest = b""
        if not piece.isascii():
            wide = WIDEST if re.search(rb"[\xf0-\xf4]", piece) else WIDE
            self.widest = max(self.widest, wide)
        whole = piece
        if b"\\" in piece:
            piece = piece.translate(None, PLAIN_TEXT)
            if b"\\u" in piece:
                self.widest = max(self.widest, WIDEST if re.search(rb"\\u(?:[dD]|\Z)", whole) else WIDE)
            piece = piece.replace(b"\\\\", b"")
            if piece.endswith(b"\\"):
                piece, self.rest = piece[:-1], b"\\"
            piece = piece.replace(b'\\"', b"")
        for byte in piece.translate(None, TEXT):
            if byte == ord('"'):
                self.quotes += 1
                self.in_string = not self.in_string
            elif not self.in_string:
                self.containers += byte in b"{["
                self.keys += byte == ord(":")
                self.commas += byte == ord(",")

    def counts(self) -> tuple[int, int, int, int]:
        values = self.containers + self.commas
        structure = values * PER_VALUE + self.containers * (PER_CONTAINER - PER_VALUE) + self.keys * PER_KEY
        return self.length, values, self.quotes // 2, self.length * (COPIES + self.widest) + structure


WORDS = [
    *(b'"', b"\\", b'\\"', b"\\\\", b"\\n", b"\\x", b"\\u", b"00e9", b"\\ud83d", b"u", b"d"),
    *(b"{", b"[", b",", b":", b"}", b" ", b"12,", b'"a":1,', b'"{[,:":', b'{"role":"user","content":"'),
    *(b"x" * 50, b"y" * 255, b"z" * 300, b"long " * 820, b"{[,:" * 1100, b"\x00\xff", "\xe9\U0001f600".encode()),
]
PADDING = b'{"padding":"' + b"x" * 33_000
"""More than what is read in one block."""

texts = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=60).map(b"".join)
cuts = st.lists(st.integers(0, 60_000), max_size=8)


@given(st.sampled_from([b"", PADDING, PADDING + b'",']), texts, cuts)
@example(PADDING, b'\\"' + b"y" * 255 + b'\\\\","a":[1,2,{"b":"' + b"z" * 5000 + b'\\"' + b"{" * 300 + b'"}]', [33_013])
def test_skipping_long_strings_changes_no_count(padding: bytes, text: bytes, cuts: list[int]) -> None:
    raw = padding + text
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    size, reference = JsonSize(), EveryByte()
    for start, end in pairwise(edges):
        size.feed(raw[start:end])
        reference.feed(raw[start:end])
        assert (size.length, size.values, size.strings, size.size) == reference.counts()


def test_each_place_of_a_cut_counts_the_same() -> None:
    text = b'\\\\","k\\"{":["' + b"z" * 4100 + b'","\\u00e9\\\\",{"a":"' + b"y" * 300 + b'\\ud83d\\ude00"}]}'
    raw = PADDING + text
    for cut in range(len(PADDING) - 3, len(raw)):
        size, reference = JsonSize(), EveryByte()
        for piece in (raw[:cut], raw[cut:]):
            size.feed(piece)
            reference.feed(piece)
        assert (size.length, size.values, size.strings, size.size) == reference.counts()
        assert (size.values, size.strings) == (6, 7)
