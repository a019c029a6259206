"""A tiny reversible tokenizer: no vocabulary file, every text comes back byte for byte.

Token ids, in order:

| ids | token |
|---|---|
| 0-255 | one byte |
| 256-265 | special tokens, `SPECIALS`: parsed in any text, as real tokenizers do |
| 300- | whole words of `workers.fake.words`, most with the space before them |
| 2048-41413 | one to three lower-case letters, with or without a space before: a number in base 27 |

English comes out at about 2.5 characters a token. An id outside the table is unknown: it decodes to U+FFFD.
"""

import re
from collections.abc import Iterable, Sequence

from workers.fake.words import WORDS

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
IM_START, EOS, THINK, THINK_END, TOOL_CALL, TOOL_CALL_END = range(257, 263)
FIRST_WORD = 300
FIRST_CHUNK = 2048
_CHUNK_SPAN = 27**3
VOCABULARY = FIRST_CHUNK + 2 * _CHUNK_SPAN
_PIECES = re.compile(r" ?[A-Za-z]+|[^A-Za-z]")
_CHUNKS = re.compile(r" ?[a-z]{1,3}|.", re.DOTALL)
_SPECIAL_SPLIT = re.compile("(" + "|".join(re.escape(s) for s in SPECIALS) + ")")
_CACHED_PIECES = 65536


def _chunk_id(chunk: str) -> int:
    letters = chunk.lstrip(" ")
    number = 0
    for letter in letters:
        number = number * 27 + ord(letter) - 96
    return FIRST_CHUNK + number + (_CHUNK_SPAN if chunk[0] == " " else 0)


def _chunk_text(number: int) -> bytes:
    lead, number = divmod(number, _CHUNK_SPAN)
    letters = ""
    while number:
        number, digit = divmod(number, 27)
        letters = chr(96 + digit) + letters
    return (" " * lead + letters).encode()


class Tokenizer:
    """Text to token ids and back. Holds the table and a bounded cache of pieces seen."""

    def __init__(self) -> None:
        self._special = {text: 256 + i for i, text in enumerate(SPECIALS)}
        self._words = {word: FIRST_WORD + i for i, word in enumerate(WORDS)}
        self._seen: dict[str, tuple[int, ...]] = {}
        self.texts = self._table()

    def _table(self) -> list[bytes]:
        table = [bytes([i]) for i in range(256)] + [s.encode() for s in SPECIALS]
        table += [b""] * (FIRST_WORD - len(table)) + [w.encode() for w in WORDS]
        table += [b""] * (FIRST_CHUNK - len(table))
        return table + [_chunk_text(i) for i in range(2 * _CHUNK_SPAN)]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text; special tokens inside it become their own ids."""
        ids: list[int] = []
        for part in _SPECIAL_SPLIT.split(text):
            special = self._special.get(part)
            if special is not None:
                ids.append(special)
            elif part:
                self._encode_plain(part, ids)
        return ids

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        seen = self._seen
        for piece in _PIECES.findall(text):
            known = seen.get(piece)
            ids.extend(known if known is not None else self._learn(piece))

    def _learn(self, piece: str) -> tuple[int, ...]:
        if len(self._seen) >= _CACHED_PIECES:
            self._seen.clear()
        word = self._words.get(piece)
        ids = (word,) if word is not None else tuple(self._spell(piece))
        self._seen[piece] = ids
        return ids

    def _spell(self, piece: str) -> Iterable[int]:
        for chunk in _CHUNKS.findall(piece):
            if chunk[-1].islower() and chunk.isascii():
                yield _chunk_id(chunk)
            else:
                yield from chunk.encode("utf-8", "surrogatepass")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token; U+FFFD for an id that is not in the table."""
        return self.texts[token] if 0 <= token < len(self.texts) else "\ufffd".encode()

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of token ids; broken UTF-8 comes out as U+FFFD."""
        kept = [i for i in ids if not (skip_special and is_special(i))]
        return b"".join(map(self.token_bytes, kept)).decode("utf-8", "replace")


def is_special(token: int) -> bool:
    """Whether `skip_special_tokens` leaves this token out of the text."""
    return 256 <= token < FIRST_WORD
