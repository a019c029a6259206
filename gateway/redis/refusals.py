"""Error replies of Redis: what each means, and which refusals stand. No other module reads their texts.

    error                                        means             then
    LOADING, READONLY, OOM, BUSY, NOAUTH ...     `RedisRefusesAll`  down for all, until a probe is answered
    NOPERM, and the same from within a script    `ScriptFailed`     this call alone; the next one asks again
    WRONGTYPE, MOVED without a cluster, others   `ScriptFailed`     likewise
    a reply of another shape                     `ScriptFailed`     likewise

A refusal is logged once, with its remedy, and stands until the same call is answered or it was not met for `FORGOTTEN`
seconds; `fleetgate status` and the metrics show those that stand.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from redis import exceptions as redis_py

from gateway.redis.script import RedisRefusesAll, RedisUnavailable, ScriptFailed
from gateway.redis.settings import spell

log = structlog.get_logger("fleetgate.redis")

FORGOTTEN = 60.0

MAX_STANDING = 100
"""Kinds of refusals that are kept. More are only counted."""

_LOGIN = ("refusing the login", "set user and password in redis.url")
FOR_ALL: Mapping[str, tuple[str, str]] = {
    "BUSY": ("busy with a script", "wait for its end, or send it SCRIPT KILL"),
    "CLUSTERDOWN": ("a cluster of which servers are missing", "see CLUSTER INFO and CLUSTER NODES"),
    "LOADING": ("loading its data", "wait until it has read them"),
    "MASTERDOWN": ("a replica without its primary", "set redis.url to the primary"),
    "MAXCLIENTS": ("at its limit of connections", "raise its maxclients"),
    "MISCONF": ("unable to save its data", "read its log (most often its disk is full)"),
    "NOAUTH": _LOGIN,
    "NOREPLICAS": ("short of replicas", "start them, or lower its min-replicas-to-write"),
    "NOTREADY": ("not ready", "wait until it is"),
    "OOM": ("full", "raise its maxmemory, or keep less there (usage.hours, responses.tenant_bytes)"),
    "READONLY": ("read-only", "set redis.url to the primary"),
    "WRONGPASS": _LOGIN,
}
"""Codes that any call would get, a probe too: what Redis is then, and the remedy."""

_MAX_CLIENTS = "max number of clients reached"
"""What Redis says to a new connection before it closes it."""

_AFTER = re.compile(r"\.?( script: .*)?\.?$")
"""What Redis adds to an error: a full stop, and the script's line."""

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
            return _refuses_all(code, text)
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
            return f"The Redis user {lacks}: docs/redis.md lists the rights that it needs"
        if code == "WRONGTYPE":
            return f"A key that begins with {key} has another type: delete it, or set another redis.prefix"
        if code in ("MOVED", "ASK"):
            return "It is a Redis Cluster: set redis.cluster: true"
        if code == "TRYAGAIN":
            return "The cluster is moving the slot of this key: nothing needs to be done"
        if code == "SHAPE":
            return "Another program has written to this key, or this is not Redis: delete the key"
        return "This is a bug of the gateway, or of a proxy in front of Redis: report it"


def code_of(text: str) -> str:
    """The kind of an error reply: its first word, or `NOPERM` for a right that a script's command lacks."""
    if any(words in text for words in _IN_SCRIPT) and text.startswith("ERR"):
        return "NOPERM"
    if text.removeprefix("ERR ").startswith(_MAX_CLIENTS):
        return "MAXCLIENTS"
    code = text.partition(" ")[0]
    return code if code.isupper() else "ERR"


_CODES: tuple[tuple[type[Exception], str], ...] = (
    (redis_py.OutOfMemoryError, "OOM"),
    (redis_py.BusyLoadingError, "LOADING"),
    (redis_py.ReadOnlyError, "READONLY"),
    (redis_py.NoPermissionError, "NOPERM"),
    (redis_py.AuthenticationError, "NOAUTH"),
    (redis_py.MasterDownError, "MASTERDOWN"),
    (redis_py.ClusterDownError, "CLUSTERDOWN"),
    (redis_py.TryAgainError, "TRYAGAIN"),
)
"""Errors from which redis-py takes the code off. Versions up to 7.1 do not say which one that was."""


def text_of(error: BaseException) -> str:
    """The text of an error reply. redis-py takes the code off, which is put back."""
    code: Any = getattr(error, "status_code", None)
    if not isinstance(code, str):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "")
    text = str(error)
    return text if text.startswith(code) else f"{code} {text}"


def unavailable(error: BaseException) -> RedisUnavailable:
    """The error for callers where Redis was not reached. redis-py also raises that for some refusals."""
    if isinstance(error, RedisUnavailable):
        return error
    if isinstance(error, redis_py.RedisError):
        text = text_of(error)
        if (code := code_of(text)) in FOR_ALL:
            return _refuses_all(code, text)
    return RedisUnavailable(spell(error))


def _refuses_all(code: str, text: str) -> RedisRefusesAll:
    state, remedy = FOR_ALL[code]
    return RedisRefusesAll(state, _AFTER.sub("", text), remedy)
