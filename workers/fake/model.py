"""The fake language model: the next token is a function of all tokens before it, and of nothing else.

So the text depends on prompt and position only: prompt ids with output ids behind them, given as a new prompt,
go on exactly where they were (that is what a resume needs). Temperature and seed change nothing; choice `i` of `n`
is salted with `i`.

The model reads where it is from the ids, as a real one does:

| after the last `<|im_start|>assistant\\n` | it is |
|---|---|
| `<think>`, no `</think>` | thinking: `thinking_tokens` words, then `</think>` |
| `</think>`, or no `<think>` | answering: a script if there is one, else `answer_tokens` words; then `<|im_end|>` |
| `<|im_end|>`: the turn is over | done: `<|im_end|>` at once |
| (another's turn is the last one) | opening its own turn, without a thought, and answering |
| (no turns: a raw prompt) | answering, and ending where the hash says, on average after `answer_tokens` |

The last user turn may steer it: `[[think=N]]`, `[[answer=N]]` (lengths in tokens), `[[call]]`, `[[call=NAME,NAME]]`
(call the first tool, or the named ones; only where the prompt has tools), `[[wide]]` (characters of several tokens, one
for each byte), `[[loop=N]]`, `[[answer_loop=N]]` (from its token 8 on, thought or answer repeats the same N tokens).
`[[turns=[...]]]` in any user turn says what each turn after it is (`workers/fake/steering.py`).
Low effort thinks a quarter as long.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from zlib import crc32

from workers.fake.steering import read_steering
from workers.fake.template import LOW_EFFORT
from workers.fake.tokens import EOS, FIRST_WORD, IM_START, THINK, THINK_END, Tokenizer
from workers.fake.words import LOWER, OPENERS

_PACK = Struct("<I").pack
_FULL_STOP, _COMMA = ord("."), ord(",")
_FIRST_OPENER = FIRST_WORD + len(LOWER)
_OPENERS = len(OPENERS)
_LOWER = len(LOWER)
_WIDE = tuple(character.encode() for character in "éßж€中日🎉🚀𝄞")
_LONGEST = 4
_LOOPS_FROM = 8


@dataclass(frozen=True, slots=True)
class Wishes:
    """What bends the model besides the prompt: a script for the answer, a budget of thinking tokens, lengths.
    `afresh`: the script begins where the prompt ends, as a grammar does, whatever the prompt holds of the answer."""

    thinking_tokens: int
    answer_tokens: int
    budget: int | None = None
    script: tuple[int, ...] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    salt: int = 0
    afresh: bool = False


class Speaker:
    """The model's state after a prompt; `next()` is one decoding step."""

    __slots__ = (
        "_answer",
        "_begun",
        "_half",
        "_hash",
        "_last",
        "_loops",
        "_opening",
        "_pos",
        "_raw",
        "_script",
        "_think",
        "_wide",
        "_wishes",
        "made",
        "thinking",
    )

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], wishes: Wishes) -> None:
        place = _place(tokenizer, prompt)
        self._wishes = wishes
        self._hash = crc32(array("I", prompt).tobytes())
        self._last = prompt[-1] if prompt else EOS
        self._raw = place.raw
        self._opening = list(place.opening)
        self._pos = place.position
        self.thinking = place.thinking
        self._think = place.steer.get("think", wishes.thinking_tokens // (4 if place.low_effort else 1))
        self._answer = place.steer.get("answer", wishes.answer_tokens)
        self._script = wishes.script if wishes.script is not None else place.script
        self._begun = self._pos if wishes.afresh and not self.thinking else 0
        self._wide = "wide" in place.steer
        self._loops = (place.steer.get("answer_loop", 0), place.steer.get("loop", 0))
        """Tokens of a period in the answer, and in the thought."""
        self._half = _half_character(prompt) if self._wide else b""
        self.made = 0

    def next(self) -> int:
        """One more token id; `<|im_end|>` when the text is over."""
        if self._opening:
            token = self._opening.pop(0)
        else:
            token = self._think_token() if self.thinking else self._answer_token()
            self._pos += 1
        self.made += 1
        if token == THINK_END:
            self.thinking, self._pos = False, 0
        if self._wide:
            self._half = _grown(self._half, token)
        self._hash = crc32(_PACK(token), self._hash)
        self._last = token
        return token

    def _think_token(self) -> int:
        # The newline after <think> is in the prompt and counts against the budget, as on a real node.
        budget = self._wishes.budget
        if (budget is not None and self._pos >= budget) or (self._pos > self._think and not self._half):
            return THINK_END
        return self._word()

    def _answer_token(self) -> int:
        if self._script is not None and self._pos - self._begun < len(self._script):
            return self._script[self._pos - self._begun]
        over = self._script is not None or self._pos >= self._answer
        if self._raw:
            over = self._hash % max(self._answer, 1) == 0
        if over and not (self._wishes.ignore_eos or self._half) and self.made >= self._wishes.min_tokens:
            return EOS
        return self._word()

    def _word(self) -> int:
        chance = self._hash ^ (self._wishes.salt * 0x9E3779B1)
        last = self._last
        period = self._loops[self.thinking]
        if period and self._pos >= _LOOPS_FROM:
            return FIRST_WORD + self._pos % period
        if self._half or (self._wide and chance % 3 == 0):
            return _next_byte(self._half, chance)
        if last == _FULL_STOP:
            return _FIRST_OPENER + _OPENERS + chance % _OPENERS
        if last < 256 or last == THINK_END:
            return _FIRST_OPENER + chance % _OPENERS if last != _COMMA else FIRST_WORD + chance % _LOWER
        if chance % 11 == 0:
            return _FULL_STOP
        return _COMMA if chance % 13 == 0 else FIRST_WORD + (chance >> 4) % _LOWER


def _half_character(ids: Sequence[int]) -> bytes:
    """The bytes at the end of `ids` that are the beginning of a character."""
    half = b""
    for token in ids[-_LONGEST:]:
        half = _grown(half, token)
    return half


def _grown(half: bytes, token: int) -> bytes:
    """The beginning of a character with one more token; empty once it is whole, or where it will never be."""
    more = half + bytes((token,)) if 0x80 <= token < 0x100 else b""
    return more if any(len(more) < len(wide) and wide.startswith(more) for wide in _WIDE) else b""


def _next_byte(half: bytes, chance: int) -> int:
    choices = [wide[len(half)] for wide in _WIDE if wide.startswith(half)]
    return choices[(chance >> 4) % len(choices)]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a prompt leaves the model: which part of its turn, how far in, and what the last user turn asked; `opening`
    is what it has to write before it answers."""

    thinking: bool = False
    position: int = 0
    raw: bool = True
    low_effort: bool = False
    steer: Mapping[str, int] = field(default_factory=dict)
    script: tuple[int, ...] | None = None
    opening: tuple[int, ...] = ()


def _last_index(ids: Sequence[int], token: int, end: int) -> int:
    for i in range(end - 1, -1, -1):
        if ids[i] == token:
            return i
    return -1


def _place(tokenizer: Tokenizer, ids: Sequence[int]) -> _Place:
    start = _last_index(ids, IM_START, len(ids))
    head = tokenizer.encode("assistant\n")
    tail = list(ids[start + 1 + len(head) :])
    if start < 0:
        return _Place()
    said = list(ids[start + 1 : start + 1 + len(head)])
    mine, over = said == head, EOS in ids[start:]
    opens = not mine and not over and said == head[: len(said)]
    if not (mine or over or opens):
        return _Place()
    if over:
        asked = tokenizer.decode(ids[start:])
        steer, script = read_steering(tokenizer, ids, len(ids), asked)
        opening = (EOS,) if mine else (IM_START, *head)
        return _Place(False, 0, False, LOW_EFFORT in asked, steer, script, opening)
    thinking = THINK in tail and THINK_END not in tail
    mark = THINK if thinking else THINK_END
    position = len(tail) - tail.index(mark) - 1 if mark in tail else len(tail)
    asked = tokenizer.decode(ids[_last_index(ids, IM_START, start) : start]) if start else ""
    steer, script = read_steering(tokenizer, ids, start, asked)
    opening = tuple(head[len(said) :]) if opens else ()
    return _Place(thinking, position, False, LOW_EFFORT in asked, steer, script, opening)
