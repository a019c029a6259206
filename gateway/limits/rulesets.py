"""The rules that one caller's requests to one model are measured by, made once and kept."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.core.access.tenants import Identity
from gateway.core.limits.rules import (
    Amounts,
    LimitKind,
    Limits,
    Measure,
    Rules,
    Weights,
    costs_of,
    rules_of,
    share,
    weights_of,
)
from gateway.core.limits.words import LimitHeaders, shown_of

_DAY = 25 * 3600
_MONTH = 32 * 86_400
"""Seconds for which Redis keeps the keys of a tenant that sends no requests."""

MAX_KEPT = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Ruleset:
    """Rules, and what is derived from them.

    `wire` is the rules as the scripts get them, a JSON list: scope, field, kind, limit, capacity of each. It is one
    argument, since packing five for each rule would cost more than all the rest. `keep` is their keys' TTL in ms.

    `capacities` are the most that a request may ever take of each; `concurrency_scopes` the scopes that bound
    how many requests run at once. `shown` are the headers that OpenAI's clients read,
    `shown_to_anthropic` those and Anthropic's.
    """

    rules: Rules
    weights: Weights
    capacities: tuple[int, ...]
    concurrency_scopes: tuple[str, ...]
    wire: str
    keep: int
    shown: tuple[LimitHeaders, ...]
    shown_to_anthropic: tuple[LimitHeaders, ...]

    @classmethod
    def of(cls, rules: Rules) -> "Ruleset":
        wire: list[str | int] = []
        for rule in rules:
            wire += (rule.scope, rule.field, rule.kind.value, rule.limit, rule.capacity)
        months = any(rule.kind is LimitKind.MONTH for rule in rules)
        keep = (_MONTH if months else _DAY) * 1000
        shown, shown_to_anthropic = shown_of(rules, anthropic=False), shown_of(rules, anthropic=True)
        capacities = tuple(rule.capacity for rule in rules)
        scopes = tuple(rule.scope for rule in rules if rule.kind is LimitKind.LEASES)
        return cls(rules, weights_of(rules), capacities, scopes, json.dumps(wire), keep, shown, shown_to_anthropic)

    @property
    def counts_tokens(self) -> bool:
        """Whether any of them is of tokens, or of what they cost."""
        return any(rule.measure not in (Measure.REQUESTS, Measure.PLACES) for rule in self.rules)

    def costs(self, amounts: Amounts) -> tuple[int, ...]:
        """What `amounts` take of each rule."""
        return costs_of(self.weights, amounts)

    def share(self, replicas: int) -> "Ruleset":
        """What one of `replicas` gateways enforces by itself."""
        return self if replicas <= 1 else Ruleset.of(share(self.rules, replicas))


class Rulesets:
    """All rulesets, by tenant, key and model. A caller whose limits have changed gets a new one."""

    def __init__(self, default: Limits | None = None) -> None:
        """`default`: for tenants that have no limits of their own."""
        self._default = default
        self._kept: dict[tuple[str, str | None, str], tuple[Identity, Ruleset | None]] = {}

    def of(self, who: Identity, model: str) -> Ruleset | None:
        """The rules for `who` asking `model`, None where nothing is limited."""
        name = (who.tenant.name, who.key, model)
        kept = self._kept.get(name)
        if kept is not None and kept[0] is who:
            return kept[1]
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        made = _compile(who, model, self._default)
        self._kept[name] = (who, made)
        return made

    def kept(self) -> Iterator[tuple[str, Ruleset]]:
        """The rulesets of requests so far, each with its tenant's name."""
        return ((who.tenant.name, rules) for who, rules in self._kept.values() if rules is not None)


def _compile(who: Identity, model: str, default: Limits | None) -> Ruleset | None:
    tenant = who.tenant
    scopes: Mapping[str, Limits | None] = {
        "t": tenant.limits or default,
        f"m:{model}": tenant.model_limits.get(model),
        f"k:{who.key}": who.limits,
    }
    rules = [rule for scope, limits in scopes.items() if limits is not None for rule in rules_of(limits, scope)]
    return Ruleset.of(tuple(rules)) if rules else None
