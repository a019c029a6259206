"""What all gateways together know for placing requests: the same facts as `core.placement`, kept in Redis.

Choosing and adding is one script call, so that two gateways that choose at the same time see each other. Everything
has a time to live: the pending work of a gateway that died stops to count by itself. That of one that lives is taken
back by it: what Redis did not hear of is told again when Redis is back, or a node would seem busy for half a minute.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.aio.inline_future import InlineFuture
from gateway.core.routing.selection import THRIFT, Candidate, NodeScore, PlacedPrompt
from gateway.redis.client import RedisClient, RedisUnavailable, Script, ScriptFailed, Value
from gateway.redis.replies import integer, integers

_LUA = Path(__file__).parent / "lua"


def _chosen(reply: Any, command: Sequence[Any]) -> bool:
    """A candidate's number, tokens in its cache and ahead of it, the reason: see choose.lua."""
    if not integers(4)(reply, command):
        return False
    number, cached, ahead, reason = reply
    candidates = (len(command) - 3 - 4 - 5) // 4
    return bool(
        1 <= number <= candidates and 0 <= cached <= int(command[8]) and ahead >= 0 and 0 <= reason < len(REASONS)
    )


CHOOSE = Script.read(_LUA / "pending.lua", _LUA / "choose.lua", fits=_chosen)
PREFILLED = Script.read(_LUA / "pending.lua", _LUA / "prefilled.lua", fits=integer)

REASONS = ("new", "home", "moved")
OWED = 4096
"""Requests, the latest, of which Redis is told when it is back: more cannot have been waiting for a first byte."""

AT_ONCE = 256
"""Requests told in one call: a script stops everybody else."""

LONG_AGO = 10**9
"""Seconds, for a node whose beginning was not seen: a number that Lua reads."""


class SharedPlacement:
    """The script calls. Keys carry one tag, so that in a cluster they are in one place."""

    def __init__(self, redis: RedisClient, affinity_ttl: float, load_penalty: float) -> None:
        """`affinity_ttl` and `load_penalty` as in `Placement`."""
        self.affinity_ttl = affinity_ttl
        self.load_penalty = load_penalty
        self._redis = redis
        self._owed: dict[bytes, None] = {}
        redis.on_change(self._changed)
        self._keys = [f"{redis.schema.live}:{{route}}:{name}" for name in ("pending", "entries", "expiry")]

    @property
    def up(self) -> bool:
        return self._redis.up

    @property
    def troubles(self) -> list[str]:
        """What is wrong with Redis, in words: why it is down, or what it refuses now."""
        down = [] if self._redis.reason is None else [self._redis.reason]
        return down + [str(refusal) for refusal in self._redis.refusals.standing.values()]

    def choose(self, request: bytes, liked: Sequence[Candidate], prompt: PlacedPrompt) -> InlineFuture[Any]:
        """Ask for one of `liked` (in rendezvous order) for the request named `request`; `read` makes sense of the
        reply, `prefilled` takes back what was chosen."""
        args: list[Value] = [request, prompt.tokens, self.affinity_ttl, self.load_penalty, THRIFT]
        for candidate in liked:
            warm = min(candidate.warm, LONG_AGO)
            args += (candidate.name, candidate.pace, round(candidate.crowd, 4), round(warm, 3))
        last = f"{self._redis.schema.live}:{{route}}:last:{prompt.conversation.hex()}"
        keys = (*self._keys, last)
        return self._redis.submit(("EVALSHA", CHOOSE.sha, len(keys), *keys, *args), CHOOSE)

    def read(self, reply: Sequence[int], liked: Sequence[Candidate], prompt: PlacedPrompt) -> NodeScore:
        number, cached, ahead, reason = reply
        return NodeScore(liked[number - 1].name, prompt.tokens - cached, cached, ahead, REASONS[reason])

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
