"""What many lines of the log say together: by tenant, requests, failures, tokens, cost and times."""

import random
from dataclasses import dataclass, field

from rich.table import Table

from gateway.cli.log_lines import LogLine, number_of
from gateway.cli.tables import new_table
from gateway.core.telemetry.folded import OTHER

MOST_TENANTS = 1000
MOST_TIMES = 10_000
"""Times of a tenant that are kept; of more requests, as many drawn at random."""


@dataclass(slots=True)
class TenantSums:
    requests: int = 0
    refused: int = 0
    failed: int = 0
    input: int = 0
    output: int = 0
    reasoning: int = 0
    cost: float = 0.0
    times: list[float] = field(default_factory=list)

    def add(self, line: LogLine) -> None:
        requests = _count(line.get("requests")) or 1  # several in a line: those without a valid key
        self.requests += requests
        self.refused += requests if line.get("level") == "warning" else 0
        self.failed += requests if line.get("level") == "error" else 0
        self.input += _count(line.get("input_tokens"))
        self.output += _count(line.get("output_tokens"))
        self.reasoning += _count(line.get("reasoning_tokens"))
        self.cost += number_of(line.get("cost_usd"))
        if isinstance(line.get("duration_ms"), int | float):
            time = number_of(line["duration_ms"])
            if len(self.times) < MOST_TIMES:
                self.times.append(time)
            elif (at := random.randrange(self.requests)) < MOST_TIMES:
                self.times[at] = time

    def quantile(self, share: float) -> str:
        if not self.times:
            return "-"
        times = sorted(self.times)
        return f"{times[min(len(times) - 1, int(share * len(times)))] / 1000:.1f}"


class LogSummary:
    """Adds up the lines of requests."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantSums] = {}

    def add(self, line: LogLine) -> None:
        if line["event"] != "request":
            return
        name = str(line.get("tenant") or "-")
        if name not in self._tenants and len(self._tenants) >= MOST_TENANTS:
            name = OTHER
        self._tenants.setdefault(name, TenantSums()).add(line)

    def table(self) -> Table:
        """The tenant with the most output first."""
        table = new_table("tenant")
        for name in ("requests", "refused", "failed", "input", "output", "reasoning", "USD", "p50 s", "p95 s", "p99 s"):
            table.add_column(name, justify="right")
        for name, sums in sorted(self._tenants.items(), key=lambda each: -each[1].output):
            counts = (sums.requests, sums.refused, sums.failed, sums.input, sums.output, sums.reasoning)
            quantiles = [sums.quantile(share) for share in (0.5, 0.95, 0.99)]
            table.add_row(name, *(f"{each:,}" for each in counts), f"{sums.cost:,.4f}", *quantiles)
        return table


def _count(value: object) -> int:
    return int(number_of(value)) if isinstance(value, int) and value > 0 else 0
