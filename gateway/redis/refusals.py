"""Error replies of Redis: what each means, and which refusals stand. No other module reads their texts.

    error                                        means             then
    LOADING, READONLY, OOM, BUSY, NOAUTH ...     `RedisUnavailable`     down for all, until a probe is answered
    NOPERM, and the same from within a script    `ScriptFailed`    this call alone; the next one asks again
    WRONGTYPE, MOVED without a cluster, others   `ScriptFailed`    likewise
    a reply of another shape                     `ScriptFailed`    likewise

A refusal is logged once, with its remedy, and stands until the same call is answered or it was not met for `FORGOTTEN`
seconds; `fleetgate status` and the metrics show those that stand.
"""

import re
import time
from dataclasses import dataclass
from typing import Any

import structlog

from gateway.redis.script import RedisUnavailable, ScriptFailed

log = structlog.get_logger("fleetgate.redis")

FORGOTTEN = 60.0

MAX_STANDING = 100
"""Kinds of refusals that are kept. More are only counted."""

FOR_ALL = frozenset(
    (
        *("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "READONLY", "OOM", "BUSY"),
        *("NOAUTH", "WRONGPASS", "NOTREADY"),
    )
)
"""Codes that any call would get, a probe too."""

_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""The words of Valkey and of Redis for a right that a command within a script lacks."""

_COMMAND = re.compile(r"run the '([^']+)' command")


@dataclass(slots=True)
class RedisRefusal:
    """One kind: `call` is a script or command, `key` what it was last refused for. `seen` in monotonic seconds."""

    call: str
    code: str
    key: str
    reason: str
    remedy: str
    seen: float

    def __str__(self) -> str:
        return f"{self.call}: {self.reason}. {self.remedy}."


class RedisRefusals:
    """The refusals that stand. `prefix` begins our keys, for remedies; `count` is of all calls since the start."""

    def __init__(self, prefix: str) -> None:
        self.count = 0
        self.standing: dict[tuple[str, str], RedisRefusal] = {}
        self._prefix = prefix

    def understand(self, call: str, key: str, text: str) -> RedisUnavailable:
        """The error for the caller of `call`; `ScriptFailed` where it concerns this call alone."""
        code = code_of(text)
        if code in FOR_ALL:
            return RedisUnavailable(f"{text}: {_CREDENTIALS}" if code in ("NOAUTH", "WRONGPASS") else text)
        self.note(call, code, key, text)
        return ScriptFailed(f"{call}: {text}")

    def misshapen(self, call: str, key: str, reply: Any) -> ScriptFailed:
        """The error for a `reply` of another shape."""
        reason = f"unexpected reply {repr(reply)[:80]}"
        self.note(call, "SHAPE", key, reason)
        return ScriptFailed(f"{call}: {reason}")

    def note(self, call: str, code: str, key: str, reason: str) -> None:
        self.count += 1
        stands = self.standing.get((call, code))
        if stands is not None:
            stands.key, stands.seen = key, time.monotonic()
        elif len(self.standing) < MAX_STANDING:
            refusal = RedisRefusal(call, code, key, reason, self._remedy(call, code, key, reason), time.monotonic())
            self.standing[call, code] = refusal
            log.error("redis_refused", call=call, key=key, reason=reason, remedy=refusal.remedy)

    def answered(self, call: str, key: str) -> None:
        """`call` was answered for `key`: its refusal does not stand any more."""
        for kind, refusal in list(self.standing.items()):
            if refusal.call == call and refusal.key == key:
                self._drop(kind)

    def forget_old(self) -> None:
        """Drop refusals that have not recurred for `FORGOTTEN` seconds."""
        oldest = time.monotonic() - FORGOTTEN
        for kind, refusal in list(self.standing.items()):
            if refusal.seen < oldest:
                self._drop(kind)

    def _drop(self, kind: tuple[str, str]) -> None:
        refusal = self.standing.pop(kind)
        log.info("redis_refusal_ended", call=refusal.call, key=refusal.key, code=refusal.code)

    def _remedy(self, call: str, code: str, key: str, reason: str) -> str:
        if code == "NOPERM":
            found = _COMMAND.search(reason)
            lacks = f"lacks {found[1].upper().replace('|', ' ')} on {self._prefix}*" if found else "lacks a right"
            return f"The Redis user {lacks}: docs/configuration.md lists the rights that it needs"
        if code == "WRONGTYPE":
            return f"A key that begins with {key} has another type: delete it, or set another redis.prefix"
        if code in ("MOVED", "ASK"):
            return "It is a Redis Cluster: set redis.cluster: true"
        if code == "TRYAGAIN":
            return "The cluster is moving the slot of this key: nothing needs to be done"
        if code == "SHAPE":
            return "Another program has written to this key, or this is not Redis: delete the key"
        return "This is a bug of the gateway, or of a proxy in front of Redis: report it"


_CREDENTIALS = "set user and password in redis.url"


def code_of(text: str) -> str:
    """The kind of an error reply: its first word, or `NOPERM` for a right that a script's command lacks."""
    if any(words in text for words in _IN_SCRIPT) and text.startswith("ERR"):
        return "NOPERM"
    code = text.partition(" ")[0]
    return code if code.isupper() else "ERR"


def text_of(error: BaseException) -> str:
    """The text of an error reply. redis-py takes the code off, which is put back."""
    code: Any = getattr(error, "status_code", None)
    text = str(error)
    return text if not isinstance(code, str) or text.startswith(code) else f"{code} {text}"
