"""How limits are told to clients: in headers on every answer, and in the error of one that has to wait.

`x-ratelimit-*` are OpenAI's: of requests and of tokens the limit that has least left, and how long until it is full.
`anthropic-ratelimit-*` are Anthropic's, which tell input and output tokens apart and name moments instead of spans.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.errors import LimitExceeded, LimitTooSmall, QuotaExceeded
from gateway.core.limits.rules import UNIT, LimitKind, LimitResult, Measure, Rule, Rules, civil_of
from gateway.core.thinking.grant import Headers
from gateway.core.usage.cost import NANO

_REQUESTS = (Measure.REQUESTS,)
_TOKENS = (Measure.TOKENS, Measure.INPUT, Measure.OUTPUT)

_OPENAI = ((_REQUESTS, b"x-ratelimit-%s-requests"), (_TOKENS, b"x-ratelimit-%s-tokens"))
_ANTHROPIC = (
    (_REQUESTS, b"anthropic-ratelimit-requests-%s"),
    (_TOKENS, b"anthropic-ratelimit-tokens-%s"),
    ((Measure.INPUT,), b"anthropic-ratelimit-input-tokens-%s"),
    ((Measure.OUTPUT,), b"anthropic-ratelimit-output-tokens-%s"),
)
LIMIT_HEADERS = tuple(
    (pattern % what).decode() for _, pattern in (*_OPENAI, *_ANTHROPIC) for what in (b"limit", b"remaining", b"reset")
)
"""All that an answer can tell of limits."""


@dataclass(frozen=True, slots=True)
class LimitHeaders:
    """One kind of header: the names for limit, remaining and reset, and the rules (by index) that they can be of.

    `limits`: for each of these the header that tells it, which is always the same.
    """

    limits: Mapping[int, tuple[bytes, bytes]]
    remaining: bytes
    reset: bytes
    indices: tuple[int, ...]
    moments: bool


def shown_of(rules: Rules, anthropic: bool) -> tuple[LimitHeaders, ...]:
    """Which headers answers to requests under `rules` carry; worked out once."""
    shown = []
    for kinds, moments in ((_OPENAI, False), (_ANTHROPIC if anthropic else (), True)):
        for measures, pattern in kinds:
            indices = tuple(
                i for i, rule in enumerate(rules) if rule.kind is LimitKind.BUCKET and rule.measure in measures
            )
            if indices:
                limits = {i: (pattern % b"limit", b"%d" % (rules[i].capacity // UNIT)) for i in indices}
                shown.append(LimitHeaders(limits, pattern % b"remaining", pattern % b"reset", indices, moments))
    return tuple(shown)


def headers_of(rules: Rules, taken: LimitResult, shown: tuple[LimitHeaders, ...]) -> Headers:
    """The headers that tell what is left after `taken`."""
    headers: list[tuple[bytes, bytes]] = []
    left = taken.left
    for kind in shown:
        index = kind.indices[0]
        for other in kind.indices[1:]:
            if left[other] < left[index]:
                index = other
        rule = rules[index]
        microseconds = -(-(rule.capacity - left[index]) // rule.limit)
        reset = moment(taken.now + microseconds) if kind.moments else span(microseconds)
        remaining = (kind.remaining, b"%d" % rule.whole(left[index]))
        headers += (kind.limits[index], remaining, (kind.reset, reset.encode()))
    return tuple(headers)


def refusal(rules: Rules, costs: tuple[int, ...], taken: LimitResult, tenant: str) -> LimitExceeded:
    """The error for a request that does not fit now: of the limits in its way, the one it has to wait for longest."""
    waits = [
        (rule.wait(left, cost, taken.now), index)
        for index, (rule, cost, left) in enumerate(zip(rules, costs, taken.left, strict=True))
        if 0 < cost > left
    ]
    wait, index = max(waits)
    rule = rules[index]
    asked, left = _amount(rule, costs[index]), _amount(rule, taken.left[index])
    amounts = f"{_limit_text(rule)}, requested {asked}, remaining {left}. Retry in {_words(wait)}."
    if rule.kind in (LimitKind.DAY, LimitKind.MONTH):
        words = f"Quota reached for {_whose(rule, tenant)}: {amounts}"
        return QuotaExceeded(words, retry_after=wait, limit=limit_name(rule))
    words = f"Rate limit reached for {_whose(rule, tenant)}: {amounts}"
    return LimitExceeded(words, retry_after=wait, limit=limit_name(rule))


def limit_name(rule: Rule) -> str:
    """A limit in the words of the config file, behind whose it is: `tenant.requests_per_minute`, `key.usd_per_day`,
    `per_model.output_tokens_per_minute`."""
    whose = {"t": "tenant", "k": "key", "m": "per_model"}[rule.scope.partition(":")[0]]
    return f"{whose}.{setting_of(rule)}"


def check_capacities(rules: Rules, costs: tuple[int, ...], tenant: str) -> None:
    """Raises `LimitTooSmall` for a request that takes more than a limit can ever hold, so that no waiting helps."""
    for rule, cost in zip(rules, costs, strict=True):
        if cost > rule.capacity:
            message = (
                f"The request exceeds a limit of {_whose(rule, tenant)}: {_limit_text(rule)}, requested "
                f"{_amount(rule, cost)}. Shorten the prompt, or lower max_tokens."
            )
            raise LimitTooSmall(message, limit=limit_name(rule))


def span(microseconds: int) -> str:
    """A duration as OpenAI writes it: `250ms`, `2.5s`, `6m0s`."""
    milliseconds = max(0, -(-microseconds // 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:g}s"
    return f"{minutes}m{seconds}" if minutes else seconds


def moment(now: int) -> str:
    """RFC 3339 in UTC, up to the next whole second."""
    seconds = -(-now // 1_000_000)
    year, month, day = civil_of(seconds * 1_000_000)
    hours, rest = divmod(seconds % 86_400, 3600)
    return f"{year:04}-{month:02}-{day:02}T{hours:02}:{rest // 60:02}:{rest % 60:02}Z"


def _whose(rule: Rule, tenant: str) -> str:
    kind, _, name = rule.scope.partition(":")
    return {"t": f"tenant {tenant}", "k": "this API key", "m": f"tenant {tenant} on model {name}"}[kind]


def setting_of(rule: Rule) -> str:
    """A limit as the config file names it: `requests_per_minute`, `usd_per_day`."""
    return rule.name.replace("nanodollars", "usd")


def _limit_text(rule: Rule) -> str:
    return f"{setting_of(rule)} {_amount(rule, rule.capacity)}"


def _amount(rule: Rule, amount: int) -> str:
    return f"${amount / NANO:.4f}" if rule.measure is Measure.COST else str(rule.whole(amount))


def _words(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 3600:.1f} h"
