"""Finds loops in the token ids of an answer, as they come.

A loop is a run of tokens with a smallest period of 4 to 128 tokens that is `repeats` periods and `GUARD` tokens long.
The guard keeps short blocks apart from rows that are alike: four tokens have to come 15 times with 3 repeats, a row of
ten nearly 8 times. What has a period below 4 is no loop: a rule of dashes, spaces, zeros with commas.

Theory. The ids are looked at in the form in which they are kept (`AnswerTokens`): as decimal numbers, each with a
separator before it. As no number is longer than seven digits, a period in tokens is one in bytes and the other way
round, where it begins at a separator. A suffix that is repeated `shift` bytes before is a run with that period; a
longer suffix than `shift` proves by the theorem of Fine and Wilf (Uniqueness theorems for periodic functions, 1965)
that it is the smallest one. So suffixes of 32, 64, ... 1024 bytes are searched for in the bytes before them:

    the suffix of `size` bytes                     next
    occurs nowhere in the 1024 bytes before        no loop: a longer one does not occur either
    occurs more than `size` bytes before           a suffix as long as that
    occurs `shift` bytes before, up to `size`      the run of that period is measured, and then a suffix twice as long,
                                                   since a rule of dashes may be a part of a larger period

Text without repeats costs one search of 1 KB, and one look in `LOOK_BYTES` is enough: a period is found once its run is
three periods long, before it is a loop (but for ids of one digit: up to eight tokens later). Then the next look is made
at the very token that would complete the loop. So it costs O(1) a token, and keeps nothing of its own.
"""

SHORTEST, LONGEST = 4, 128
"""Tokens of a period."""

GUARD = 48
"""Tokens that a loop has beside its repeats."""

LOOK_BYTES = 96
"""Bytes between two looks: at most 48 tokens, of ordinary ids 16 to 20. A look costs 2 µs, a token so 0.1 µs, of the 15
to 25 that an event costs the gateway (docs/benchmarks.md)."""

NEVER = 1 << 62
"""A length that no answer has."""

_SUFFIX = 32
"""The shortest suffix that is searched for: of ordinary ids five or six."""
_REACH = LONGEST * 8
"""Bytes of the longest period, of ids up to seven digits with a separator each."""
_SEPARATOR = b"["
_OTHER = b","
_SEPARATOR_BYTE = _SEPARATOR[0]


class LoopDetector:
    """The detector of one answer. `next_look`: the length of the kept ids from which `look` is to be called again.
    `period`: tokens of the loop that was found."""

    __slots__ = ("_repeats", "next_look", "period")

    def __init__(self, repeats: int) -> None:
        self._repeats = repeats
        self.next_look = LOOK_BYTES
        self.period = 0

    def look(self, kept: bytearray) -> bool:
        """Whether `kept` ends in a loop."""
        self.next_look = len(kept) + LOOK_BYTES
        recent = kept[-2 * _REACH :]
        if _OTHER in recent:  # of events with several ids
            recent = recent.replace(_OTHER, _SEPARATOR)
        end, size, known = len(recent), _SUFFIX, 0
        while size <= _REACH:
            at = recent.rfind(recent[-size:], max(0, end - size - _REACH), end - 1)
            if at < 0:
                return False
            shift = end - size - at
            if shift <= size:
                if shift != known:
                    found = self._measure(kept, recent[end - shift :])
                    if found or recent[shift:] == recent[: end - shift]:  # all of it: there is no other period
                        return found
                    known = shift
                size *= 2
            while size < shift:
                size *= 2
        return False

    def _measure(self, kept: bytearray, block: bytearray) -> bool:
        """Whether `kept` ends in a loop of `block`; otherwise the next look is made when it may."""
        period, size = block.count(_SEPARATOR), len(block)
        if not SHORTEST <= period <= LONGEST or block[0] != _SEPARATOR_BYTE:
            return False
        least = self._repeats * period + GUARD
        tail = kept[-_bytes_of(block, least + period) :].replace(_OTHER, _SEPARATOR)
        missing = least - tail.count(_SEPARATOR, len(tail) - _run(tail, size))
        if missing <= 0:
            self.period = period
            return True
        self.next_look = min(self.next_look, len(kept) + _bytes_of(block, missing))
        return False


def _bytes_of(block: bytearray, tokens: int) -> int:
    """The bytes of so many tokens of a loop that goes on behind `block`."""
    whole, part = divmod(tokens, block.count(_SEPARATOR))
    rest = block.split(_SEPARATOR, part + 1)[-1]
    return whole * len(block) + len(block) - len(rest) - 1


def _run(tail: bytearray, shift: int) -> int:
    """The bytes of the longest suffix of `tail` that has the period `shift`."""
    end = len(tail)
    least, most = min(shift, end), end
    while least < most:
        size = (least + most + 1) // 2
        if tail[end - size : end - shift] == tail[end - size + shift :]:
            least = size
        else:
            most = size - 1
    return least
