"""What a request costs in the fair order: its tokens, each kind at its weight.

Weights as in Sheng et al. (OSDI 2024): a token that is made costs twice one that is read. A token that is found in the
prefix cache costs next to nothing.

What a request will make is not known when its turn is decided. It is charged what requests of its tenant have made
lately, or all requests for its model where the tenant is new, and corrected when it ends ("VTC with length prediction",
ibid.).
"""

from collections import OrderedDict
from dataclasses import dataclass

from gateway.core.usage.token_usage import Usage

FIRST_OUTPUT = 64.0
"""Tokens that the first requests for a model are expected to make. Few: who begins to wait is lifted to the counters of
those that are served, and what these were charged too much would later go before it."""

WEIGHT = 0.1
"""Of the last request, in the averages."""

MAX_KNOWN = 4096
"""Averages that are kept."""


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """The weights of one token of each kind."""

    input: float = 1.0
    cached_input: float = 0.1
    reasoning: float = 2.0
    output: float = 2.0

    def of(self, usage: Usage) -> float:
        """What `usage` costs. All output counts as answer where its reasoning is not known."""
        cached = min(usage.cached or 0, usage.input)
        reasoning = min(usage.reasoning or 0, usage.output)
        return (
            (usage.input - cached) * self.input
            + cached * self.cached_input
            + reasoning * self.reasoning
            + (usage.output - reasoning) * self.output
        )


class CostForecast:
    """What the next request of a tenant on a model, in one class, is expected to cost."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], tuple[float, float, float]] = OrderedDict()
        """By model, tenant and class: averages of the share of input that was cached, and of thinking and answer
        tokens made."""

    def of(self, name: tuple[str, str, str], reads: int, most: int | None, costs: TokenCosts) -> float:
        """`reads`: tokens of the prompt. `most`: tokens that it may make, None where nothing bounds it."""
        known = self._known.get(name) or self._known.get((name[0], "", ""))
        cached, reasoning, output = known or (0.0, 0.0, FIRST_OUTPUT)
        made = reasoning + output
        part = 1.0 if most is None or made <= most else most / made
        return (
            reads * ((1.0 - cached) * costs.input + cached * costs.cached_input)
            + reasoning * part * costs.reasoning
            + output * part * costs.output
        )

    def made(self, name: tuple[str, str, str], most: int | None) -> int:
        """Tokens that it is expected to make, thinking included; arguments as in `of`."""
        _, reasoning, output = self._known.get(name) or self._known.get((name[0], "", "")) or (0.0, 0.0, FIRST_OUTPUT)
        made = round(reasoning + output)
        return made if most is None else min(made, most)

    def learn(self, name: tuple[str, str, str], usage: Usage) -> None:
        """A request has ended well, and used this."""
        reasoning = min(usage.reasoning or 0, usage.output)
        cached = min(usage.cached or 0, usage.input) / usage.input if usage.input else 0.0
        seen = (cached, float(reasoning), float(usage.output - reasoning))
        for each in (name, (name[0], "", "")):
            before = self._known.get(each)
            if before is None:
                self._known[each] = seen
            else:
                a, b, c = (old + WEIGHT * (new - old) for old, new in zip(before, seen, strict=True))
                self._known[each] = (a, b, c)
            self._known.move_to_end(each)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
