"""Which node gets a request: pure functions over the candidates' facts. The fleet holds the state.

Theory. A prompt waits for the prompts before it, then for the part of itself that the node does not have in its
prefix cache. Both are tokens to be computed, so affinity and load are weighed in one currency:

    expected wait = (ahead(node) + THRIFT x (prompt - left(node))) x pace(node) + crowd(node) x load_penalty
                    + answer(node) x (IDLE + 2 x (1 - IDLE) x crowd(node))

`ahead` is what was sent to the node and has not come to its first byte (uncached prompt tokens), less half of a
prompt, since the one that is being computed is half done on average. `left` is what this conversation left in that
node's cache at its last turn. What has to be computed makes those wait who come after, too, so it weighs more than
what is waited for (`THRIFT`). `pace` is the node's measured seconds per prompt token over its weight. The next term
keeps nodes alike where nothing is pending: a node full of running answers computes prompts and tokens more slowly. The
last one is the answer itself, and counts among nodes that make tokens at different speeds (see `decode_speed`).

A cache holds whole blocks, of hundreds of tokens where a model has Mamba layers. What a conversation left there is gone
once as much has been written into the cache as it takes.
Ties go to the rendezvous order of the conversation, which every gateway computes alike. docs/routing.md shows what
the policies are worth on a real trace.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

ENDLESS = float("inf")

THRIFT = 2.0
"""What a token that is computed costs against one that is waited for. In the replay 1 has the lower hit rate and the
longer median, 3 the longer tail."""

IDLE = 0.25
"""What a token of an answer takes on an empty node, against a full one: 9 of 35 ms on 8x H200 (docs/routing.md)."""

ALIKE = 0.3
"""Paces that differ by less than this share of the usual one count as equal."""


class Candidate(NamedTuple):
    """A node that may be chosen.

    `name`: how the gateways call it. `pace`: seconds per uncached prompt token, weight and slow start included.
    `crowd`: the share of its places that is taken (1: full). `weight`: its share of work against others.
    `warm`: seconds since it is known to have started with empty caches, endless where that was never seen.
    `bound`: requests that it may have at once of all gateways together, 0 for any number.
    `answer`: what this request's answer costs there if it is full, in seconds until a first byte (see `decode_speed`).
    `block`: tokens of one block of its cache. `lasting`: tokens that are written into its cache until what was there
    before is gone, 0 where that is not known.
    """

    name: str
    pace: float
    crowd: float = 0.0
    weight: float = 1.0
    warm: float = ENDLESS
    bound: int = 0
    answer: float = 0.0
    block: int = 1
    lasting: int = 0


class PlacedPrompt(NamedTuple):
    """What is to be placed: `tokens` by estimate, and the conversation that it belongs to (see `conversations`).
    `answer`: the tokens that its answer is expected to have, 0 where that is not known."""

    tokens: int
    conversation: bytes
    answer: int = 0


class PrefillBacklog(NamedTuple):
    """What was sent to a node and has not come to its first byte: uncached prompt tokens, and of how many prompts."""

    tokens: int = 0
    prompts: int = 0

    @property
    def ahead(self) -> float:
        """The tokens that a prompt waits for which comes now: the first is half done on average."""
        return self.tokens - self.tokens / (2 * self.prompts) if self.prompts else 0.0


NOTHING = PrefillBacklog()


class LastTurn(NamedTuple):
    """A conversation's last turn: the node it went to, the tokens it left there, how long ago (seconds), and the tokens
    that were written into the node's cache since."""

    node: str
    tokens: int
    age: float = 0.0
    passed: int = 0


class RandomDraw(NamedTuple):
    """What a policy may roll: `turn` counts up by one a request, `draw` is uniform in [0, 1)."""

    turn: int
    draw: float


class NodeScore(NamedTuple):
    """A choice: the node's name, the `work` that it adds there (uncached prompt tokens), the tokens expected in its
    cache, and the tokens `ahead` of it. `reason`: `home` where the conversation was last, `moved` away from there,
    `new` where it was nowhere. `crowd`: the node's, before this request."""

    node: str
    work: int
    cached: int
    ahead: float
    reason: str
    crowd: float = 0.0


def rendezvous(candidates: Sequence[Candidate], conversation: bytes) -> list[Candidate]:
    """The candidates in the order in which `conversation` likes them: the same in every gateway, and the loss of
    one moves nobody else. Weighted by -w/ln(u) (Schindelhauer and Schomaker, 2005)."""

    def score(candidate: Candidate) -> float:
        digest = blake2b(candidate.name.encode(), digest_size=8, key=conversation[:64]).digest()
        return -candidate.weight / math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 2))

    return sorted(candidates, key=score, reverse=True)


def expected_wait(
    candidates: Sequence[Candidate],
    prompt: PlacedPrompt,
    pending: Mapping[str, PrefillBacklog],
    left: LastTurn | None,
    load_penalty: float,
) -> Candidate:
    """The least expected wait; of equal ones the first in rendezvous order.

    `pending` by node name. `load_penalty`: seconds that a full node is worse than an empty one.
    `routing/lua/choose.lua` is the same formula where Redis holds the facts; a test holds the two alike.
    """
    best, shortest = [candidates[0]], ENDLESS
    home = None if left is None else left.node
    for candidate in candidates:
        name = candidate.name
        ahead = pending[name].ahead if name in pending else 0.0
        cached = in_cache(candidate, prompt, left) if name == home else 0
        crowd = candidate.crowd
        wait = (ahead + THRIFT * (prompt.tokens - cached)) * candidate.pace + crowd * load_penalty
        wait += candidate.answer * (IDLE + 2 * (1 - IDLE) * crowd)
        if wait < shortest:
            best, shortest = [candidate], wait
        elif wait == shortest:
            best.append(candidate)
    return best[0] if len(best) == 1 else rendezvous(best, prompt.conversation)[0]


def in_cache(candidate: Candidate, prompt: PlacedPrompt, left: LastTurn | None) -> int:
    """The tokens of `prompt` that its conversation left in the candidate's cache, in whole blocks, if they are still
    there: it did not start afresh since, and others did not take their place."""
    if left is None or left.node != candidate.name or left.age > candidate.warm:
        return 0
    if 0 < candidate.lasting < left.passed:
        return 0
    tokens = min(left.tokens, prompt.tokens)
    return tokens - tokens % candidate.block


def placed(chosen: Candidate, prompt: PlacedPrompt, backlog: PrefillBacklog, left: LastTurn | None) -> NodeScore:
    """The choice of `chosen`, however it came about."""
    cached = in_cache(chosen, prompt, left)
    reason = "new" if left is None else "home" if left.node == chosen.name else "moved"
    return NodeScore(chosen.name, prompt.tokens - cached, cached, backlog.ahead, reason, chosen.crowd)


def usual_pace(paces: Sequence[float | None], guess: float) -> float:
    """The median of the measured seconds per token, `guess` where nothing was measured."""
    known = sorted(pace for pace in paces if pace is not None)
    return known[len(known) // 2] if known else guess


def level(paces: Sequence[float | None], guess: float, usual: float | None = None) -> list[float]:
    """Measured seconds per token as they are to be believed: nodes that are about as fast count as equally fast
    (a measurement's noise would move conversations), and one that was not measured yet is like the others. `usual`:
    the pace of the usual node; None where `paces` are of all nodes."""
    if usual is None:
        usual = usual_pace(paces, guess)
    return [usual if pace is None or abs(pace / usual - 1) < ALIKE else pace for pace in paces]


def affinity(candidates: Sequence[Candidate], prompt: PlacedPrompt, chance: RandomDraw) -> Candidate:
    """The conversation's own node, whatever waits there: the most cache hits, the worst tail."""
    return rendezvous(candidates, prompt.conversation)[0]


def least_loaded(candidates: Sequence[Candidate], prompt: PlacedPrompt, chance: RandomDraw) -> Candidate:
    """The node with the most free places for its weight; of equal ones the next in turn."""
    start = chance.turn % len(candidates)
    return min([*candidates[start:], *candidates[:start]], key=_load)


def power_of_two(candidates: Sequence[Candidate], prompt: PlacedPrompt, chance: RandomDraw) -> Candidate:
    """The less loaded of two at random: nearly as good as the least loaded, and no two gateways rush one node."""
    count = len(candidates)
    if count == 1:
        return candidates[0]
    first, step = divmod(int(chance.draw * count * (count - 1)), count - 1)
    second = (first + 1 + step) % count
    return min(candidates[first], candidates[second], key=_load)


def round_robin(candidates: Sequence[Candidate], prompt: PlacedPrompt, chance: RandomDraw) -> Candidate:
    """The candidate whose turn it is."""
    return candidates[chance.turn % len(candidates)]


def _load(candidate: Candidate) -> float:
    return candidate.crowd / candidate.weight


EXPECTED_WAIT = "expected_wait"

Policy = Callable[[Sequence[Candidate], PlacedPrompt, RandomDraw], Candidate]

POLICIES: Mapping[str, Policy] = {
    "affinity": affinity,
    "least_loaded": least_loaded,
    "power_of_two": power_of_two,
    "round_robin": round_robin,
}
"""The policies that need no facts but the candidates' own; `EXPECTED_WAIT` is the one that does."""
