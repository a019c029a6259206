"""Settings of how thinking budgets are held where a node does not hold them by itself."""

from typing import Annotated

from pydantic import Field

from gateway.config.types import Section


class Budgets(Section):
    """`canary`: each node is asked, once after each of its starts, for a few tokens with a small budget; without it
    nodes are believed to hold budgets until one overruns one, and is asked then. `native` false: the gateway holds
    them all, whatever nodes can do. A node that is past `overshoot` (share of the budget) and `overshoot_tokens` on
    top of it is asked again whether it holds them."""

    canary: bool = True
    native: bool = True
    overshoot: Annotated[float, Field(ge=0, le=10)] = 0.05
    overshoot_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 16
