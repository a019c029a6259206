"""What one request is charged in the fair order: forecast when it gets its place, and corrected when it has ended."""

from gateway.core.admission.fair_order import Turn
from gateway.core.admission.token_costs import CostForecast, TokenCosts
from gateway.core.telemetry.request_stats import RequestStats


class TurnCharge:
    """`turn` says whose counters are charged, and how much as planned. `reads`: tokens of the prompt; `most`: tokens
    that may be made, 0 where none are, None where nothing bounds them."""

    __slots__ = ("_costs", "_forecast", "_most", "_name", "_reads", "model", "shared", "turn")

    def __init__(
        self, forecast: CostForecast, costs: TokenCosts, model: str, turn: Turn, reads: int, most: int | None
    ) -> None:
        self.model = model
        self.turn = turn
        self.shared = False
        """Whether Redis has charged it, too."""
        self._forecast = forecast
        self._costs = costs
        self._name = (model, turn.tenant, turn.service_class)
        self._reads = reads
        self._most = most
        self.plan()

    def plan(self) -> None:
        """Forecast its cost by what is known now: others may have taught since it came."""
        self.turn.tokens = self._forecast.of(self._name, self._reads, self._most, self._costs)
        self.turn.answer = self._forecast.made(self._name, self._most)

    def used(self, stats: RequestStats) -> float:
        """What the request has cost in the end, from which later forecasts learn."""
        usage = stats.usage
        if usage is None:
            return 0.0
        if stats.ending == "ok" and self._most != 0:
            self._forecast.learn(self._name, usage)
        return self._costs.of(usage)
