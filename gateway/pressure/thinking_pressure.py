"""The pressure on thinking: once a second each model's factor follows its expected wait, and where that does not do,
one running thought after the other ends early.

Requests read `squeezes`, which is empty unless pressure is on. What runs keeps the budget that it was granted, but for
early ends.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from gateway.core.pressure.early_ends import EarlyEnds, order_of_ends
from gateway.core.pressure.rules import PressureRules
from gateway.core.pressure.squeeze import Squeeze
from gateway.fleet.fleet import Fleet
from gateway.pressure.shared_factor import SharedFactor
from gateway.redis.client import RedisClient
from gateway.upstream.relay import Relay

log = structlog.get_logger("fleetgate.pressure")

SECONDS = 1.0
TRIED = 8
"""Thoughts that are tried in one go, until one can be ended: each costs a parse of its request."""

ExpectedWait = Callable[[str], float]
"""Seconds that a request for a model, by its name, waits for a place if it comes now."""


def _no_wait(model: str) -> float:
    return 0.0


class ThinkingPressure:
    """`squeezes` has every model's, by its name; none while pressure is off. `ended` counts early ends."""

    def __init__(
        self,
        rules: PressureRules,
        fleet: Fleet,
        relay: Relay,
        redis: RedisClient | None,
        expected_wait: ExpectedWait = _no_wait,
    ) -> None:
        self.squeezes: Mapping[str, Squeeze] = {}
        self.ended: dict[str, int] = {}
        self.expected_wait = expected_wait
        self._rules = rules
        self._fleet = fleet
        self._relay = relay
        self._redis = redis
        self._factors: dict[str, SharedFactor] = {}
        self._ends: dict[str, EarlyEnds] = {}

    def configure(self, rules: PressureRules) -> None:
        """Go by `rules` from now on. Where they are off, no budget is smaller and no thought ends from now on."""
        self._rules = rules
        if not rules.enabled:
            self._forget()

    @property
    def factors(self) -> dict[str, float]:
        """Of each model; empty while pressure is off."""
        return {model: squeeze.factor for model, squeeze in self.squeezes.items()}

    async def run(self) -> None:
        """Refresh every `SECONDS`, for ever."""
        while True:
            try:
                await self.refresh(asyncio.get_running_loop().time())
            except Exception:
                log.exception("background_task_failed", task="pressure")
            await asyncio.sleep(SECONDS)

    async def refresh(self, now: float) -> None:
        """Bring all models up to date at loop time `now`."""
        rules = self._rules
        if not rules.enabled:
            return
        models = list(self._fleet.served)
        for model in models:
            self._factors.setdefault(model, SharedFactor(model, self._redis))
        for gone in self._factors.keys() - models:
            del self._factors[gone]
            self._ends.pop(gone, None)
        waits = {model: self.expected_wait(model) for model in models}
        factors = dict(self._factors)
        await asyncio.gather(*(factors[model].refresh(rules.factor, waits[model], now) for model in models))
        if self._rules is not rules:  # a reload came meanwhile: the next round goes by it
            return
        self.squeezes = {model: self._squeeze(model, factors[model].state.factor) for model in models}
        for model in models:
            self._end_one(model, waits[model], now)

    def _squeeze(self, model: str, factor: float) -> Squeeze:
        """By what the nodes of `model` have shown."""
        known = [node.capabilities for node in self._fleet.nodes_of(model)]
        return Squeeze(
            factor,
            self._rules.squeeze,
            thinks=any(each.native_budget or each.think_end for each in known),
            native=bool(known) and all(each.native_budget for each in known),
        )

    def _end_one(self, model: str, wait: float, now: float) -> None:
        """End the next running thought of `model`, if one is due."""
        rules, squeeze = self._rules.early_ends, self.squeezes[model]
        ends = self._ends.setdefault(model, EarlyEnds())
        if not ends.due(rules, squeeze, self._rules.factor.floor, wait, now):
            return
        found = [
            (exchange, thought)
            for exchange in self._relay.exchanges_for(model)
            if (thought := exchange.running_thought) is not None
        ]
        for at in order_of_ends([thought for _, thought in found], rules, squeeze)[:TRIED]:
            exchange, thought = found[at]
            if exchange.end_thinking():
                ends.ended(rules, self._fleet.gateways, now)
                self.ended[model] = self.ended.get(model, 0) + 1
                log.info("thinking_ended_early", model=model, tokens=thought.tokens, wait_s=round(wait, 1))
                return

    def _forget(self) -> None:
        self.squeezes = {}
        self._factors.clear()
        self._ends.clear()
