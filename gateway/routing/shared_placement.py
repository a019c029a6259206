"""What all gateways together know for placing requests: the same facts as `core.placement`, kept in Redis.

Choosing and adding is one script call, so that two gateways that choose at the same time see each other: the call takes
one of the node's places, and charges the request to its tenant's turn (`core/admission/fair_order.py`). Everything has
a time to live: the pending work of a gateway that died stops to count by itself. That of one that lives is taken back
by it: what Redis did not hear of is told again when Redis is back, or a node would seem busy for half a minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.admission.fair_order import Turn
from gateway.core.routing.selection import IDLE, THRIFT, Candidate, NodeScore, PlacedPrompt
from gateway.redis.client import RedisClient, RedisUnavailable, Script, ScriptFailed, Value
from gateway.redis.replies import integer

_LUA = Path(__file__).parent / "lua"

SAMPLED = "|s"
"""Behind the number of candidates that are a sample."""

CANDIDATES_AT = 3 + 8 + 11
"""Where an EVALSHA of choose.lua has the number of its candidates."""

PER_CANDIDATE = 8
"""Arguments of one."""


def _chosen(reply: Any, command: Sequence[Any]) -> bool:
    """As choose.lua says."""
    if type(reply) is not list or len(reply) != 9 or set(map(type, [*reply[:4], reply[8]])) != {int}:
        return False
    number, cached, ahead, reason, counters, floors, others, last, crowd = reply
    candidates = int(str(command[CANDIDATES_AT]).removesuffix(SAMPLED))
    if type(last) is not bytes:
        return False
    if not all(type(each) is list for each in (counters, floors, others)) or len(floors) != 2:
        return False
    if set(map(type, [*counters, *floors])) - {int} or set(map(type, others)) - {bytes}:
        return False
    if len(counters) != (len(command) - CANDIDATES_AT - 3 - PER_CANDIDATE * candidates) // 2:
        return False
    if number == 0:
        return reason in (FULL, NOT_ITS_TURN, UNKNOWN_GATEWAY, LAST_IS_ELSEWHERE)
    prompt = int(command[3 + 8 + 1])
    if not 0 <= cached <= prompt or ahead < 0 or crowd < 0:
        return False
    return bool(1 <= number <= candidates and 0 <= reason < len(REASONS))


_SHARED = (_LUA / "pending.lua", _LUA / "places.lua")
CHOOSE = Script.read(*_SHARED, _LUA / "choose.lua", fits=_chosen)
PREFILLED = Script.read(_LUA / "pending.lua", _LUA / "prefilled.lua", fits=integer)

REASONS = ("new", "home", "moved")
FULL, NOT_ITS_TURN, UNKNOWN_GATEWAY, LAST_IS_ELSEWHERE = 3, 4, 5, 6

OWED = 4096
"""Requests, the latest, of which Redis is told when it is back: more cannot have been waiting for a first byte."""

AT_ONCE = 256
"""Requests told in one call: a script stops everybody else."""

LONG_AGO = 10**9
"""Seconds, for a node whose beginning was not seen: a number that Lua reads."""


@dataclass(frozen=True, slots=True)
class SharedTurn:
    """A request's turn among those of all gateways. `names`: the counters to be told, and whether each has begun to
    wait. `waiting`: how many of its tenant wait here, by how much counters may differ and count as equal, and facts for
    other gateways; empty for a request that has just come."""

    model: str
    turn: Turn
    waiting: str = ""
    names: Mapping[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class SharedChoice:
    """`score` is None where no node was chosen; `known`: whether this gateway's requests count. `counters` and
    `floors` as in `FairOrder.refresh`, `others`: what other gateways said of those that wait there. `full`: all that
    were candidates are. `last`: the conversation's last node, where it was none of them and might be better."""

    score: NodeScore | None
    known: bool
    counters: Mapping[str, int]
    floors: Mapping[str, int]
    others: tuple[bytes, ...]
    full: bool = False
    last: str | None = None


class SharedPlacement:
    """The script calls. Keys of one group carry one tag, so that in a cluster they are in one place."""

    def __init__(
        self, redis: RedisClient, gateway: bytes, affinity_ttl: float, load_penalty: float, group: str = ""
    ) -> None:
        """`gateway`: this process's name. `affinity_ttl` and `load_penalty` as in `Placement`."""
        self.affinity_ttl = affinity_ttl
        self.load_penalty = load_penalty
        self._redis = redis
        self._gateway = gateway
        self._owed: dict[bytes, None] = {}
        redis.on_change(self._changed)
        self._base = redis.schema.routing(group)
        self._keys = [f"{self._base}:{name}" for name in ("pending", "entries", "expiry")]

    @property
    def up(self) -> bool:
        return self._redis.up

    @property
    def troubles(self) -> list[str]:
        """What is wrong with Redis, in words: why it is down, or what it refuses now."""
        down = [] if self._redis.reason is None else [self._redis.reason]
        return down + [str(refusal) for refusal in self._redis.refusals.standing.values()]

    def choose(
        self,
        request: bytes,
        liked: Sequence[Candidate],
        prompt: PlacedPrompt,
        shared: SharedTurn,
        sampled: bool = False,
    ) -> InlineFuture[Any]:
        """Ask for one of `liked` (the first one where all else is equal) for the request named `request`; `read` makes
        sense of the reply, `Places.give_back` takes back what was chosen. `sampled`: the conversation's last node may
        be another one, which is to be told then."""
        turn = shared.turn
        args: list[Value] = [request, prompt.tokens, self.affinity_ttl, self.load_penalty, THRIFT]
        args += (self._gateway, turn.service_class, turn.member, turn.of_class, turn.of_tenant)
        args += (shared.waiting, f"{len(liked)}{SAMPLED}" if sampled else len(liked), prompt.answer, IDLE)
        for candidate in liked:
            warm = min(candidate.warm, LONG_AGO)
            args += (candidate.name, candidate.pace, round(candidate.crowd, 4), round(warm, 3), candidate.bound)
            args += (round(candidate.answer, 4), candidate.block, candidate.lasting)
        for name, begun in (shared.names or {}).items():
            args += (name, int(begun))
        base, model = self._base, shared.model
        keys = (*self._keys, f"{base}:places", f"{base}:gateways", f"{base}:waiting:{model}", f"{base}:turns:{model}")
        last = f"{base}:last:{prompt.conversation.hex()}"
        return self._redis.submit(("EVALSHA", CHOOSE.sha, 8, *keys, last, *args), CHOOSE)

    def read(
        self, reply: Sequence[Any], liked: Sequence[Candidate], prompt: PlacedPrompt, shared: SharedTurn
    ) -> SharedChoice:
        number, cached, ahead, reason, counters, floors, others, last, crowd = reply
        score = None
        if number:
            name = liked[number - 1].name
            score = NodeScore(name, prompt.tokens - cached, cached, ahead, REASONS[reason], crowd / 1000)
        return SharedChoice(
            score,
            reason != UNKNOWN_GATEWAY,
            dict(zip(shared.names or {}, counters, strict=True)),
            {"": floors[0], shared.turn.service_class: floors[1]},
            tuple(others),
            reason == FULL,
            last.decode() if reason == LAST_IS_ELSEWHERE else None,
        )

    def prefilled(self, request: bytes) -> None:
        """The first byte came, or will not come. Nobody waits for it; Redis hears of it, if later."""
        if self._redis.up:
            self._send_prefilled((request,))
        else:
            self._owe((request,))

    def _send_prefilled(self, requests: tuple[bytes, ...]) -> None:
        reply = self._redis.submit(("EVALSHA", PREFILLED.sha, 3, *self._keys, *requests), PREFILLED)
        reply.add_done_callback(partial(self._sent, requests))

    def _sent(self, requests: tuple[bytes, ...], reply: InlineFuture[Any]) -> None:
        """Whether Redis has done what it did not answer is not known, and does not matter. What it refuses runs out."""
        error = reply.exception()
        if error is not None and not isinstance(error, ScriptFailed):
            self._owe(requests)

    def _owe(self, requests: Iterable[bytes]) -> None:
        self._owed.update(dict.fromkeys(requests))
        while len(self._owed) > OWED:
            del self._owed[next(iter(self._owed))]

    def _changed(self, up: bool) -> None:
        """Redis went, or is back."""
        if not up:
            return
        owed, self._owed = tuple(self._owed), {}
        for start in range(0, len(owed), AT_ONCE):
            self._send_prefilled(owed[start : start + AT_ONCE])


def forget(reply: InlineFuture[Any]) -> None:
    """Nobody will ask for `reply`; a failure was told by the link."""
    reply.add_done_callback(_swallow)


def _swallow(reply: InlineFuture[Any]) -> None:
    reply.exception()


__all__ = ["RedisUnavailable", "SharedPlacement", "forget"]
