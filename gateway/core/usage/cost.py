"""What a request costs in US dollars, from what it used and what a model's tokens cost.

    cost = ((input - cached) * price.input + cached * price.cached + output * price.output) / 1,000,000

Prices are in US dollars per million tokens, as providers quote them; thinking tokens are output tokens. Where
nobody has set a price, a node's hourly price and its measured throughput make one: a node that turns out T tokens
a second makes 3600 T of them an hour, so

    price per million = hourly * 1,000,000 / (3600 * T)

with one T for prefill and one for decoding, each measured with the node busy with that alone. Tokens out of the
prefix cache are not computed: from a node's price they cost nothing.

Sums are kept as whole billionths of a dollar ("nano-dollars"): a token costs thousands of them, so nothing that
matters is rounded away, and no sum ever depends on its order.
"""

from dataclasses import dataclass

from gateway.core.usage.token_usage import Usage

NANO = 1_000_000_000
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. `cached`: input tokens that the node found in its prefix cache."""

    input: float
    cached: float
    output: float


def price_of_node(hourly: float, input_per_second: float, output_per_second: float) -> Price:
    """The price that pays for a node of `hourly` US dollars at a measured throughput in tokens a second."""
    million_seconds = hourly * _MILLION / 3600
    return Price(million_seconds / input_per_second, 0.0, million_seconds / output_per_second)


def cost_of(usage: Usage, price: Price) -> int:
    """What `usage` costs, in nano-dollars."""
    return cost_of_tokens(usage.input, usage.cached or 0, usage.output, price)


def cost_of_tokens(reads: int, cached: int, writes: int, price: Price) -> int:
    """What `reads` tokens of input, so many of them `cached`, and `writes` of output cost, in nano-dollars."""
    if cached > reads:
        cached = reads
    dollars = ((reads - cached) * price.input + cached * price.cached + writes * price.output) / _MILLION
    return round(dollars * NANO)
