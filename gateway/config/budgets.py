"""Settings of thinking budgets: who holds them, and when a node is checked."""

from typing import Annotated

from pydantic import Field

from gateway.config.types import Section


class Budgets(Section):
    """Who holds thinking budgets. A node that overruns one by `overshoot` and `overshoot_tokens` is checked again."""

    canary: bool = True
    """Whether each node is asked, once a start, for a few tokens with a small budget; else it is trusted until it
    overruns one."""
    native: bool = True
    """Whether nodes that passed are relied on; else the gateway holds all budgets."""
    overshoot: Annotated[float, Field(ge=0, le=10)] = 0.05
    """Share of a budget that a node may think beyond it before it is checked again."""
    overshoot_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 16
    """Tokens on top of that share."""
