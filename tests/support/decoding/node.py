"""One node that computes prompts and decodes answers, in simulated time: vLLM's scheduler as far as routing can tell.

A step gives each decoding sequence one token, and computes what its token budget leaves of waiting prompts (chunked
prefill), in order of their coming:

    seconds of a step = fixed + per_sequence x decoding + per_kv_token x KV tokens held + prompt tokens / prefill

So prompts and answers slow each other down. A prompt begins where a sequence and its KV are free. Where the KV cache
is full, the sequence that came last is preempted: it gives up its KV, and computes prompt and answer so far again.
Steps in which nothing changes but lengths are taken at once, so a run costs by its requests and not by its tokens.
With speculative decoding a step here is the time of one accepted token.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.decoding.speeds import NodeSpeed
from tests.support.replay import BLOCK

NEVER = math.inf


@dataclass(slots=True, eq=False)
class Sequence:
    """A request on a node: `prompt` tokens and their `blocks`, `answer` tokens to make, of which `made` are made."""

    number: int
    prompt: int
    answer: int
    blocks: tuple[int, ...]
    made: int = 0
    uncomputed: int = 0
    ends: int = 0
    """The node's step at which its answer ends."""
    computed: int = 0
    """Prompt tokens that were computed at its first prefill."""


class Happened(NamedTuple):
    """`first`: the answer's first token came, else its last one."""

    at: float
    sequence: Sequence
    first: bool


@dataclass(slots=True)
class DecodingNode:
    """`clock` is the end of its last step; `step_number` counts steps since the beginning."""

    name: str
    speed: NodeSpeed
    clock: float = 0.0
    step_number: int = 0
    held: int = 0
    """KV tokens of its sequences."""
    preempted: int = 0
    waiting: deque[Sequence] = field(default_factory=deque)
    prefilling: deque[Sequence] = field(default_factory=deque)
    decoding: dict[int, Sequence] = field(default_factory=dict)
    """In the order in which their prompts were computed, by number."""
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)
    _ends: list[tuple[int, int]] = field(default_factory=list)
    _next: float | None = None

    def hit(self, blocks: tuple[int, ...]) -> int:
        """Blocks of a prompt that are in its prefix cache."""
        for count, block in enumerate(blocks):
            if block not in self.cache:
                return count
        return len(blocks)

    def uncached(self, prompt: int, blocks: tuple[int, ...]) -> int:
        return max(prompt - self.hit(blocks) * BLOCK, 1)

    def add(self, sequence: Sequence, now: float) -> None:
        self.advance(now)
        if not self.decoding and not self.prefilling and not self.waiting:
            self.clock = max(self.clock, now)
        self.waiting.append(sequence)
        self._admit()
        self._next = None

    @property
    def next(self) -> float:
        """When something happens next, if nothing comes."""
        if self._next is None:
            self._next = self._find_next()
        return self._next

    def advance(self, now: float) -> None:
        """Decode up to the first end of a step that is not before `now`. Nothing may happen before it."""
        if self.prefilling or not self.decoding or self.clock >= now:
            return
        steps = min(math.ceil(self._steps_in(now - self.clock)), self._steps_to_event() - 1)
        if steps > 0:
            self._decode(steps)
            self._next = None

    def happen(self) -> list[Happened]:
        """Go on to `next`, and tell what came then."""
        if not self.prefilling:
            steps = self._steps_to_event()
            self._decode(steps)
        else:
            self._prefill_step()
        happened = self._finish()
        while self.held + len(self.decoding) > self.speed.kv and len(self.decoding) + len(self.prefilling) > 1:
            self._preempt()
        self._admit()
        self._next = None
        return happened

    def _find_next(self) -> float:
        if self.prefilling:
            return self.clock + self._step_seconds()[0]
        if not self.decoding:
            return NEVER
        return self.clock + self._seconds(self._steps_to_event())

    def _steps_to_event(self) -> int:
        """Steps until an answer ends, or the KV cache is full."""
        while self._ends and self._ends[0][1] not in self.decoding:
            heapq.heappop(self._ends)
        steps = self._ends[0][0] - self.step_number
        if len(self.decoding) > 1:
            steps = min(steps, (self.speed.kv - self.held) // len(self.decoding))
        return max(1, steps)

    def _seconds(self, steps: int) -> float:
        decoding = len(self.decoding)
        grown = self.speed.per_kv_token * decoding * steps * (steps - 1) / 2
        return steps * self.speed.step(decoding, self.held) + grown

    def _steps_in(self, seconds: float) -> float:
        """The inverse of `_seconds`."""
        slope = self.speed.per_kv_token * len(self.decoding) / 2
        step = self.speed.step(len(self.decoding), self.held) - slope
        return (math.sqrt(step * step + 4 * slope * seconds) - step) / (2 * slope) if slope else seconds / step

    def _decode(self, steps: int) -> None:
        self.clock += self._seconds(steps)
        self.step_number += steps
        self.held += steps * len(self.decoding)

    def _step_seconds(self) -> tuple[float, int]:
        """Of the next step with prompts in it: seconds, and prompt tokens."""
        waiting = sum(each.uncomputed for each in self.prefilling)
        tokens = max(1, min(waiting, self.speed.chunk - len(self.decoding)))
        return self.speed.step(len(self.decoding), self.held) + tokens / self.speed.prefill, tokens

    def _prefill_step(self) -> None:
        seconds, tokens = self._step_seconds()
        self.clock += seconds
        self.step_number += 1
        self.held += len(self.decoding)
        for each in self.prefilling:
            taken = min(tokens, each.uncomputed)
            each.uncomputed -= taken
            tokens -= taken

    def _finish(self) -> list[Happened]:
        happened = []
        while self.prefilling and self.prefilling[0].uncomputed == 0:
            sequence = self.prefilling.popleft()
            self._keep(reversed(sequence.blocks))
            if sequence.made == 0:
                happened.append(Happened(self.clock, sequence, True))
            sequence.made += 1
            sequence.ends = self.step_number + sequence.answer - sequence.made
            self.held += 1
            self.decoding[sequence.number] = sequence
            heapq.heappush(self._ends, (sequence.ends, sequence.number))
        while self._ends and (self._ends[0][0] <= self.step_number or self._ends[0][1] not in self.decoding):
            _, number = heapq.heappop(self._ends)
            ended = self.decoding.get(number)
            if ended is not None and ended.ends <= self.step_number:
                del self.decoding[number]
                self.held -= ended.prompt + ended.answer
                self._keep_ended(ended)
                happened.append(Happened(self.clock, ended, False))
        return happened

    def _preempt(self) -> None:
        if self.prefilling:
            sequence = self.prefilling.pop()
        else:
            sequence = self.decoding.pop(next(reversed(self.decoding)))
            sequence.made = sequence.answer - (sequence.ends - self.step_number)
        self.held -= sequence.prompt + sequence.made
        self.waiting.appendleft(sequence)
        self.preempted += 1

    def _admit(self) -> None:
        while self.waiting and len(self.decoding) + len(self.prefilling) < self.speed.sequences:
            sequence = self.waiting[0]
            tokens = sequence.prompt + sequence.made
            if self.held + tokens > self.speed.kv and (self.decoding or self.prefilling):
                return
            self.waiting.popleft()
            self.held += tokens
            sequence.uncomputed = max(1, tokens - self.hit(sequence.blocks) * BLOCK)
            if sequence.made == 0:
                sequence.computed = sequence.uncomputed
            self.prefilling.append(sequence)

    def _keep(self, blocks: Iterable[int]) -> None:
        """In the cache they are the last to go. What running sequences hold beside their prompts is no room for it."""
        for block in blocks:
            self.cache[block] = None
            self.cache.move_to_end(block)
        grown = self.held - sum(each.prompt for each in self.decoding.values())
        room = max(0, self.speed.kv - grown) // BLOCK
        while len(self.cache) > room:
            self.cache.popitem(last=False)

    def _keep_ended(self, ended: Sequence) -> None:
        """Its prompt and its answer stay in the cache; no other prompt begins with the answer here."""
        first = -(ended.number << 20)
        self._keep([*reversed(ended.blocks), *range(first - ended.answer // BLOCK, first)])

    # What an oracle sees

    def remaining(self, now: float) -> list[tuple[int, int]]:
        """Of each of its sequences the tokens that it has yet to make, and its KV tokens."""
        self.advance(now)
        found = [(each.answer - each.made, each.prompt + each.made) for each in (*self.prefilling, *self.waiting)]
        for each in self.decoding.values():
            left = each.ends - self.step_number
            found.append((left, each.prompt + each.answer - left))
        return found

    def backlog(self) -> int:
        """Prompt tokens that are yet to be computed."""
        ahead = sum(self.uncached(each.prompt, each.blocks) + each.made for each in self.waiting)
        return ahead + sum(each.uncomputed for each in self.prefilling)

    def wait_for_room(self, prompt: int) -> float:
        """About how many seconds it takes until a prompt has a place and KV."""
        queued = sum(each.prompt + each.made for each in self.waiting)
        places = self.speed.sequences - len(self.decoding) - len(self.prefilling) - len(self.waiting)
        room = self.speed.kv - self.held - queued - prompt
        if places > 0 and room >= 0:
            return 0.0
        step = self.speed.step(len(self.decoding), self.held)
        for ends, each in sorted((each.ends, each.number) for each in self.decoding.values()):
            sequence = self.decoding[each]
            room += sequence.prompt + sequence.answer
            places += 1
            if places > 0 and room >= 0:
                return (ends - self.step_number) * step
        return 1e4
