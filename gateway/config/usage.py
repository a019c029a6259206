"""Settings of prices, and of the usage that is kept."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.config.types import Count, Section
from gateway.core.usage.cost import Price, price_of_node

Dollars = Annotated[float, Field(ge=0, le=1_000_000)]
PerSecond = Annotated[float, Field(gt=0, le=100_000_000)]


class PriceConfig(Section):
    """What a model's tokens cost: US dollars per million, or those of a node's hour by its measured throughput."""

    input: Dollars | None = None
    """US dollars per million tokens of prompts."""
    cached: Dollars | None = None
    """US dollars per million tokens of prompts that the node had in its cache. Unset: as `input`."""
    output: Dollars | None = None
    """US dollars per million tokens of answers, thinking included."""
    node_hour: Dollars | None = None
    """US dollars that a node costs an hour, in place of `input`, `cached` and `output`."""
    input_per_second: PerSecond | None = None
    """Tokens a second that a busy node was measured to prefill."""
    output_per_second: PerSecond | None = None
    """Tokens a second that a busy node was measured to decode."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        by_token = (self.input, self.output)
        by_hour = (self.node_hour, self.input_per_second, self.output_per_second)
        whole = None not in by_token and by_hour == (None,) * 3
        rented = None not in by_hour and by_token == (None, None) and self.cached is None
        if not whole and not rented:
            raise ValueError(
                "a price has input and output (and cached), or node_hour, input_per_second and output_per_second"
            )
        return self

    @property
    def price(self) -> Price:
        if self.node_hour is not None and self.input_per_second is not None and self.output_per_second is not None:
            return price_of_node(self.node_hour, self.input_per_second, self.output_per_second)
        given = self.input or 0.0
        return Price(given, given if self.cached is None else self.cached, self.output or 0.0)


class UsageConfig(Section):
    """The usage that is kept in Redis, where there is one."""

    stored: bool = True
    """Whether anything is kept."""
    records: Count = 100_000
    """Requests that are kept one by one, the last ones."""
    hours: Annotated[int, Field(ge=1, le=100_000)] = 840
    """Hours for which sums by the hour are kept."""
    days: Annotated[int, Field(ge=1, le=10_000)] = 400
    """Days for which sums by the day are kept."""
