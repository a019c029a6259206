"""`JsonSize` skips long strings, and takes escapes out of text: it counts what a reader of every byte counts, whatever
comes, however it is cut."""

from itertools import pairwise

from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.core.http.json_size import (
    _WINDOW,
    COPIES,
    PER_CONTAINER,
    PER_KEY,
    PER_VALUE,
    WIDE,
    WIDEST,
    JsonSize,
)


class EveryByte:
    """The same counts, by a reader of one byte after the other."""

    def __init__(self) -> None:
        self.length = self.containers = self.keys = self.commas = self.quotes = self.widest = 0
        self.in_string = self.escaped = self.begins_code = False

    def feed(self, piece: bytes) -> None:
        self.length += len(piece)
        for byte in piece:
            self.read(byte)
        if piece and self.begins_code:  # what comes next may be half of a character
            self.widest = WIDEST

    def read(self, byte: int) -> None:
        if byte >= 0x80:
            self.widest = max(self.widest, WIDEST if 0xF0 <= byte <= 0xF4 else WIDE)
        if self.begins_code and byte in b"dD":
            self.widest = WIDEST
        self.begins_code = self.escaped and byte == ord("u")
        if self.begins_code:
            self.widest = max(self.widest, WIDE)
        if self.escaped:
            self.escaped = False
        elif byte == ord("\\"):
            self.escaped = True
        elif byte == ord('"'):
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
ESCAPES = b'\\\\ \\n \\" {[,: \\u00e9 ' * 1_500
"""More than the escapes that are taken out at a time."""

texts = st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=60).map(b"".join)
cuts = st.lists(st.integers(0, 120_000), max_size=8)


def assert_same(pieces: list[bytes]) -> None:
    """The same is counted after each piece."""
    size, reference = JsonSize(), EveryByte()
    for piece in pieces:
        size.feed(piece)
        reference.feed(piece)
        assert (size.length, size.values, size.strings, size.size) == reference.counts()


@given(st.sampled_from([b"", PADDING, PADDING + b'",', PADDING + ESCAPES]), texts, cuts)
@example(PADDING, b'\\"' + b"y" * 255 + b'\\\\","a":[1,2,{"b":"' + b"z" * 5000 + b'\\"' + b"{" * 300 + b'"}]', [33_013])
def test_skipping_text_changes_no_count(padding: bytes, text: bytes, cuts: list[int]) -> None:
    raw = padding + text
    assume(b'\\u\\"' not in raw)  # no JSON has it: it may be taken for half of a character
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    assert_same([raw[start:end] for start, end in pairwise(edges)])


def test_where_a_window_of_escapes_ends_changes_no_count() -> None:
    for word in (b"\\ud83d\\ude00", b"\\uD83D", b"\\u00dd", b'\\\\\\"', b'\\\\\\\\"'):
        for inside in range(len(word) + 1):
            window = b"\\n" + b"x" * (_WINDOW - 2 - inside)
            assert_same([PADDING + window + word + b'\\"{[,:","a":[1,2]}'])


def test_a_character_that_a_cut_may_halve_is_taken_for_a_wide_one() -> None:
    assert_same([PADDING + b"\\n\\u", b"00e9", b"00"])


def test_each_place_of_a_cut_counts_the_same() -> None:
    text = b'\\\\","k\\"{":["' + b"z" * 4100 + b'","\\u00e9\\\\",{"a":"' + b"y" * 300 + b'\\ud83d\\ude00"}]}'
    raw = PADDING + text
    reference = EveryByte()
    reference.feed(raw)
    for cut in range(len(PADDING) - 3, len(raw)):
        size = JsonSize()
        for piece in (raw[:cut], raw[cut:]):
            size.feed(piece)
        assert (size.length, size.values, size.strings, size.size) == reference.counts()
        assert (size.values, size.strings) == (6, 7)
