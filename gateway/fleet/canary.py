"""The canary: finds out by requests of its own, after each start of a node, what the node can do.

Nodes differ in what they do with a thinking budget: some hold it, some ignore it, some refuse it, some die of it. So a
node gets a few short requests with a small budget, and the tokens of its answers are counted.

    read     /version and /tokenize, before the node is ready: the gateway needs the markers' token ids to hold a budget
             itself. No tokens are generated.
    prove    a chat with a small budget, a chat with thinking off, and the end marker as raw text: about 50 tokens; and
             whether it stores responses, without any. The node serves meanwhile; the gateway holds the budgets until
             the proof is there.
    recheck  the chat with a small budget again, after a request overran its budget: the request may be at fault. The
             node is trusted meanwhile, and the backstop cuts answers that overrun. A node that fails is rechecked
             later, and is trusted again once it passes.

A node that dies during a proof gets no request with a budget for `FIRST_PAUSE` seconds, twice as long after each death,
until its version changes: otherwise the proof would kill it at every start. The gateway holds its budgets meanwhile.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.core.budgets.continuation import END_TEXT, START_TEXT
from gateway.core.fleet.capabilities import UNKNOWN, Capabilities
from gateway.fleet.canary_questions import (
    BUDGET,
    ask_with_budget,
    ask_with_thinking_off,
    read_version,
    shows_marker,
    stores_responses,
    think,
    tokenize,
)
from gateway.fleet.node_client import NodeClient

FIRST_PAUSE, LONGEST_PAUSE = 600.0, 86_400.0
RECHECK_PAUSE, LONGEST_RECHECK_PAUSE = 30.0, 1800.0
"""Seconds between two rechecks; the pause doubles where the node goes on not holding budgets."""

_REFUSALS = (400, 422)
"""The statuses by which a node refuses budgets; any other error says nothing about them."""


class Canary:
    """What is known of one node's capabilities. Times are loop time, in seconds."""

    __slots__ = (
        "_lost",
        "_next_recheck",
        "_not_before",
        "_pause",
        "_proven",
        "_recheck_pause",
        "_rechecked",
        "_rechecking",
        "capabilities",
        "has_read",
        "starts",
    )

    def __init__(self) -> None:
        self.capabilities = UNKNOWN
        self.has_read = False
        self._proven = False
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self.starts = 0  # how often the node has restarted
        self._lost = False  # a recheck has failed
        self._rechecking = False
        self._rechecked = 0  # the value of `starts` when the recheck began
        self._next_recheck = 0.0
        self._recheck_pause = RECHECK_PAUSE

    def restarted(self) -> None:
        """The node was unreachable, or its counters began anew: what was found is void."""
        self.has_read = self._proven = False
        self.starts += 1

    @property
    def due(self) -> bool:
        """Whether the node has still to be proven since its start."""
        return self.has_read and not self._proven

    @property
    def lost(self) -> bool:
        """Whether a recheck has failed, so that another one waits for its time."""
        return self._lost

    async def read_capabilities(self, client: NodeClient, cards: Mapping[str, Mapping[str, Any]]) -> Capabilities:
        """Read the node's version, the markers' token ids and the context window of the first model in `cards`."""
        before = self.capabilities
        version = await read_version(client)
        if before.version is not None and version != before.version:
            self._not_before, self._pause = 0.0, FIRST_PAUSE
        model = next(iter(cards), "")
        window = cards.get(model, {}).get("max_model_len")  # checked by `read_cards`: a possible length, or None
        self.capabilities = Capabilities(
            version=version,
            think_start=await tokenize(client, model, START_TEXT),
            think_end=await tokenize(client, model, END_TEXT),
            window=window if type(window) is int else None,
        )
        self.has_read = True
        return self.capabilities

    async def prove(self, client: NodeClient, model: str, now: float) -> Capabilities:
        """Prove the node; `capabilities` are complete afterwards, as far as it answered."""
        self._proven = True
        self._lost = False
        start, found = self.starts, self.capabilities
        found = replace(found, **await ask_with_thinking_off(client, model, found))
        found = replace(found, stores_responses=await stores_responses(client, model))
        if now >= self._not_before:
            self._not_before = now + self._pause  # in case the next request kills it
            found = replace(found, native_budget=False)
            self._keep(found, start)
            found = replace(found, **await ask_with_budget(client, model, found))
            self._not_before = 0.0
        else:
            found = replace(found, native_budget=False)
        if found.splits_reasoning is None:
            found = replace(found, splits_reasoning=(await think(client, model, found, {})).split)
        self._keep(replace(found, marker_shown=await shows_marker(client, model, found)), start)
        return self.capabilities

    def adopt(self, found: Capabilities) -> None:
        """Another gateway process has had the node proven."""
        self._proven = True
        self._lost = False
        self.capabilities = found

    def _keep(self, found: Capabilities, start: int) -> None:
        """Keep what was found, unless the node has restarted since `start`."""
        if self.starts == start:
            self.capabilities = found

    def begin_recheck(self, now: float, suspected: bool) -> bool:
        """Whether a recheck is due; if so, `end_recheck` must follow."""
        if self._rechecking or not (suspected or self._lost) or now < max(self._next_recheck, self._not_before):
            return False
        self._rechecking = True
        self._rechecked = self.starts
        return True

    async def recheck(self, client: NodeClient, cards: Mapping[str, Mapping[str, Any]]) -> bool | None:
        """Whether the node holds a budget; None where it is too busy to answer."""
        if not self.has_read:  # it was trusted without a canary
            await self.read_capabilities(client, cards)
        seen = await think(client, next(iter(cards), ""), self.capabilities, {"thinking_token_budget": BUDGET})
        if seen.status != 200 and seen.status not in _REFUSALS:
            return None
        return seen.obeyed

    def end_recheck(self, now: float, holds: bool | None) -> None:
        self._rechecking = False
        if self.starts != self._rechecked:
            holds = None  # the answer is of the process before
        self._recheck_pause = RECHECK_PAUSE if holds else min(2 * self._recheck_pause, LONGEST_RECHECK_PAUSE)
        self._next_recheck = now + (RECHECK_PAUSE if holds else self._recheck_pause)
        if holds is not None:
            self._lost = not holds
            self.capabilities = replace(self.capabilities, native_budget=holds)

    def died(self) -> None:
        """The node was gone before it had answered. What was found before stays."""
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
