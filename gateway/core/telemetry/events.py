"""What happened to one request: the facts that logs, metrics and the usage ledger are told at its end."""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.usage.token_usage import Usage


class RequestEnded(NamedTuple):
    """One request, seen from its end. `at` is seconds since 1970, all other times are seconds.

    `ttft` is None where no byte of an answer went out. `ending` is `ok`, the code of an error, or `client_gone`;
    `status` the HTTP status that the client saw (0 where it left before one was sent). `attempts` counts tries on
    nodes, 0 where none was reached; `failures` are node and outcome of those that failed (see `attempts.outcome`), and
    `retry_refused` says that one more would have been made but for the retry budget. `route` is why the node was chosen
    (`NodeScore.reason`; None where there was no choice) and `expected_cached` the prompt tokens expected in its cache.
    `wasted` are tokens of thinking that a node made beyond its budget and nobody got; `overran` says that the node was
    trusted to hold it. `lost` are the tokens of failed attempts, as far as they can be estimated. `counted` is the
    prompt's length as the model's tokenizer had it here: 0 where it had to be estimated, None where there is none.
    `usage` is what the request is charged (see `limits.charge`), `estimated` where its node did not say so; `computed`
    is False where no model worked for it, so that it has no price. `stranger` is the address of a client that was not
    let in, None of all others.
    """

    at: float
    request_id: str
    dialect: str
    tenant: str | None
    key: str | None
    model: str | None
    node: str | None
    stream: bool
    status: int
    ending: str
    attempts: int
    request_bytes: int
    usage: Usage | None
    ttft: float | None
    duration: float
    failures: tuple[tuple[str, str], ...] = ()
    retry_refused: bool = False
    route: str | None = None
    expected_cached: int | None = None
    wasted: int = 0
    overran: bool = False
    counted: int | None = None
    lost: int = 0
    estimated: bool = False
    computed: bool = True
    stranger: str | None = None


class NodeFacts(NamedTuple):
    """One node as a process sees it. `breaker` is its state (see `BreakerState`), `opened` how often it opened by
    cause; `in_flight` what this process has there."""

    name: str
    ready: bool
    breaker: str
    opened: Mapping[str, int]
    draining: bool
    in_flight: int
