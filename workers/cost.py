"""What a node costs, per hour, month and million tokens, and when it beats an API's price.

Formulas: month = hour x 730; per million tokens = hourly / (tokens per second x 3600) x 10^6; break-even
tokens per month = monthly cost / API price. An API also charges for the prompt: its price is that of a million output
tokens with the input that belongs to them (`RequestShape`). The break-even hides an assumption that the tool spells
out: it treats the node as one that serves any number of tokens. A node that makes 700 tokens/s serves at most 1.84
billion in a month. All money in US dollars, all token counts are output tokens.
"""

import math
from dataclasses import dataclass

from workers.catalog.prices import ApiPrice

HOURS_PER_MONTH = 730
SECONDS_PER_HOUR = 3600
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class RequestShape:
    """The tokens of one request: its prompt, how many of them a cache has, its output with the thinking.

    The default is the chat that NVIDIA's figures were measured with: 8k in, 70% of it cached, 1k out.
    """

    input: float = 8192
    cached: float = 0.7 * 8192
    output: float = 1024

    def api_usd_per_million(self, api: ApiPrice) -> float:
        """What an API takes for a million output tokens and the input that belongs to them."""
        return api.usd(self.input - self.cached, self.cached, self.output) / self.output * MILLION


@dataclass(frozen=True, slots=True)
class BreakEven:
    """When a node pays against an API that takes `api_usd_per_million` output tokens, their input included.

    `nodes` is how many nodes it takes to serve the break-even volume at all (None without a throughput).
    `reachable` says whether one node can reach it; if not, more nodes do not help, because each brings its
    own cost. What would help is `needed_tokens_per_second` on this node, or a lower price.
    """

    api_usd_per_million: float
    tokens_per_month: float
    needed_tokens_per_second: float
    nodes: int | None
    reachable: bool | None
    api: ApiPrice | None = None


@dataclass(frozen=True, slots=True)
class CostPlan:
    """The cost of one node at one price. `tokens_per_second` None where nobody has measured or guessed it.

    `age_days` is how long ago the price was seen, `date` when.
    """

    kind: str
    source: str
    hourly: float
    tokens_per_second: float | None
    date: str = ""
    age_days: int = 0

    @property
    def monthly(self) -> float:
        """US dollars for 730 hours."""
        return self.hourly * HOURS_PER_MONTH

    @property
    def per_million(self) -> float | None:
        """US dollars per million output tokens with the node busy all the time."""
        if self.tokens_per_second is None:
            return None
        return self.hourly / (self.tokens_per_second * SECONDS_PER_HOUR) * MILLION

    @property
    def tokens_per_month(self) -> float | None:
        """The most output tokens that this node can serve in a month, busy all the time."""
        if self.tokens_per_second is None:
            return None
        return self.tokens_per_second * SECONDS_PER_HOUR * HOURS_PER_MONTH

    def break_even(self, api_usd_per_million: float, api: ApiPrice | None = None) -> BreakEven:
        """Tokens per month from which the node is cheaper than the API, and whether it can serve them."""
        tokens = self.monthly / api_usd_per_million * MILLION
        capacity = self.tokens_per_month
        return BreakEven(
            api_usd_per_million=api_usd_per_million,
            tokens_per_month=tokens,
            needed_tokens_per_second=self.hourly / SECONDS_PER_HOUR / api_usd_per_million * MILLION,
            nodes=None if capacity is None else math.ceil(tokens / capacity),
            reachable=None if capacity is None else tokens <= capacity,
            api=api,
        )
