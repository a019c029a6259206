"""The gateway's own functions of choice, for decoding nodes."""

import random
from collections.abc import Sequence as Several
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.admission.token_costs import CostForecast
from gateway.core.routing.decode_speed import DecodeSpeed, answer_costs
from gateway.core.routing.placement import Placement
from gateway.core.routing.prefill_speed import PrefillSpeed
from gateway.core.routing.selection import EXPECTED_WAIT, Candidate, NodeScore, PlacedPrompt, RandomDraw, level
from gateway.core.usage.token_usage import Usage
from tests.support.decoding.node import DecodingNode, Happened
from tests.support.decoding.workload import Request
from tests.support.replay import BLOCK

GUESSED_PACE = 1 / 8000


@dataclass(slots=True)
class _Gateway:
    placement: Placement
    in_flight: dict[str, int] = field(default_factory=dict)
    prefill: dict[str, PrefillSpeed] = field(default_factory=dict)
    decode: dict[str, DecodeSpeed] = field(default_factory=dict)
    forecast: CostForecast = field(default_factory=CostForecast)


@dataclass(slots=True)
class _Sent:
    gateway: _Gateway
    request: Request
    chosen: NodeScore
    at: float
    first: float | None = None


class Knows(NamedTuple):
    """What gateways judge by beside prompts that wait. `crowd`: the requests of all of them on a node, where they share
    facts. `answers`: how long answers are, and how fast nodes make tokens. `blocks`: whole blocks of a cache count.
    `written`: what has been written into a cache since."""

    crowd: bool = True
    answers: bool = True
    blocks: bool = True
    written: bool = True


BEFORE = Knows(False, False, False, False)
"""As it was before answers counted."""


class Gateways:
    """The gateway's own functions. `shared`: all gateways see the same facts, as through Redis."""

    def __init__(
        self, gateways: int = 1, knows: Knows | None = None, shared: bool = True, policy: str = EXPECTED_WAIT
    ) -> None:
        one = Placement()
        self._team = [_Gateway(one if shared else Placement()) for _ in range(gateways)]
        self._knows = knows or Knows()
        self._shared = shared
        self._policy = policy
        self._dice = random.Random(5)
        self._sent: dict[int, _Sent] = {}

    def choose(self, request: Request, number: int, free: Several[DecodingNode], now: float) -> DecodingNode:
        gateway = self._team[number % len(self._team)]
        expected = gateway.forecast.made(_owner(request), request.granted) if self._knows.answers else 0
        prompt = PlacedPrompt(request.prompt, request.conversation, expected)
        chance = RandomDraw(number, self._dice.random())
        candidates = self._candidates(gateway, free, expected)
        chosen = gateway.placement.choose(self._policy, candidates, prompt, chance, now)
        gateway.placement.add(chosen, prompt, now)
        gateway.in_flight[chosen.node] = gateway.in_flight.get(chosen.node, 0) + 1
        self._sent[number] = _Sent(gateway, request, chosen, now)
        return next(node for node in free if node.name == chosen.node)

    def happened(self, event: Happened, now: float) -> None:
        sent = self._sent[event.sequence.number]
        gateway, chosen = sent.gateway, sent.chosen
        if event.first:
            if sent.first is None:
                gateway.placement.prefilled(chosen)
                gateway.prefill[chosen.node].learn(chosen.ahead, event.sequence.computed, now - sent.at)
                sent.first = now
            return
        assert sent.first is not None
        answer = event.sequence.answer
        gateway.decode[chosen.node].learn(chosen.crowd, answer - 1, now - sent.first)
        gateway.forecast.learn(_owner(sent.request), Usage(input=sent.request.prompt, output=answer))
        gateway.in_flight[chosen.node] -= 1
        del self._sent[event.sequence.number]

    def _candidates(self, gateway: _Gateway, free: Several[DecodingNode], expected: int) -> list[Candidate]:
        names, knows = [node.name for node in free], self._knows
        paces = level([gateway.prefill.setdefault(name, PrefillSpeed()).pace for name in names], GUESSED_PACE)
        decode = [gateway.decode.setdefault(name, DecodeSpeed()).pace for name in names]
        answers = answer_costs(decode, [1.0] * len(names), expected)
        counting = self._team if self._shared and knows.crowd else [gateway]
        return [
            Candidate(
                node.name,
                pace,
                sum(each.in_flight.get(node.name, 0) for each in counting) / node.speed.sequences,
                answer=costs,
                block=BLOCK if knows.blocks else 1,
                lasting=max(1, node.speed.kv - node.held) if knows.written else 0,
            )
            for node, pace, costs in zip(free, paces, answers, strict=True)
        ]


def _owner(request: Request) -> tuple[str, str, str]:
    return "model", request.tenant, "standard"
