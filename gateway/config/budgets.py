"""Settings of thinking budgets: who holds them, and when a node is checked."""

from typing import Annotated

from pydantic import Field

from gateway.config.types import Section


class Budgets(Section):
    """`canary`: after each start of a node it gets a few short requests with a small budget; without it, nodes are
    trusted to hold budgets until one overruns a budget, and are checked then. `native` false: the gateway holds all
    budgets, whatever nodes can do. A node that overruns a budget by more than `overshoot` (a share of it) and
    `overshoot_tokens` on top is checked again."""

    canary: bool = True
    native: bool = True
    overshoot: Annotated[float, Field(ge=0, le=10)] = 0.05
    overshoot_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 16
