"""Which loops of an answer are ended: rules in four layers, as those of thinking.

A loop is an exact repeat of the same few tokens (see `loop_detector`). In reasoning the thinking is ended and the
answer follows; in the answer itself the answer ends.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.core.thinking.resolved import Resolved

LOOP_HEADER = "x-fleetgate-loop-ended"
"""The header that tells of a loop that was ended, on plain answers: the heads of streams have gone by then."""


@dataclass(frozen=True, slots=True)
class LoopRules:
    """What one layer of the config says; None leaves it to the layer below. The fields as in `LoopBounds`."""

    reasoning: bool | None = None
    answer: bool | None = None
    repeats: int | None = None


@dataclass(frozen=True, slots=True)
class LoopNote:
    """What is told of a loop that was ended. `part`: `reasoning` or `answer`. `period`: its tokens. `token`: output
    tokens that the answer had."""

    part: str
    period: int
    token: int

    def header(self) -> bytes:
        """`reasoning; period=12; tokens=480`: the value of `LOOP_HEADER`."""
        return f"{self.part}; period={self.period}; tokens={self.token}".encode()

    def comment(self) -> bytes:
        """The line of a stream that tells it."""
        where = "thinking" if self.part == "reasoning" else "answer"
        return b": %b ended after %d tokens: the same %d came again and again\n" % (
            where.encode(),
            self.token,
            self.period,
        )


class LoopBounds(NamedTuple):
    """`reasoning`, `answer`: whether loops are ended there. `repeats`: how often the same tokens come in a row before
    it is a loop."""

    reasoning: bool = True
    answer: bool = False
    repeats: int = 3

    @property
    def any(self) -> bool:
        """Whether loops are ended at all."""
        return self.reasoning or self.answer


USUAL_BOUNDS: Final = LoopBounds()
NO_BOUNDS: Final = LoopBounds(reasoning=False, answer=False)


def loop_bounds(terms: Resolved[LoopRules] | None) -> LoopBounds:
    """The bounds by the rules that hold for a tenant on a model (None: there are none)."""
    if terms is None:
        return USUAL_BOUNDS
    rules, usual = terms.rules, USUAL_BOUNDS
    return LoopBounds(
        usual.reasoning if rules.reasoning is None else rules.reasoning,
        usual.answer if rules.answer is None else rules.answer,
        usual.repeats if rules.repeats is None else rules.repeats,
    )
