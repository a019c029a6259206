"""What pressure leaves of a thinking budget.

    budget' = min(budget, max(budget_floor, least, round(budget x factor ^ weight of the class)))

`least` is what the request keeps in any case: its tenant's `guaranteed_budget`, and the floors under which its rules
would switch thinking off. So pressure raises no budget, breaks no promise, and switches no thinking off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

STANDARD = "standard"
"""The class of requests that name none."""


@dataclass(frozen=True, slots=True)
class SqueezeRules:
    """`default_budget`: what a thinking request without a budget is taken to have, `budget_floor`: the smallest budget
    that pressure leaves, both in tokens. `weights`: by class, 1 where a class has none; a weight of 0 keeps its
    budgets."""

    default_budget: int = 8192
    budget_floor: int = 512
    weights: Mapping[str, float] = field(default_factory=dict)


class ThinkingClaim(NamedTuple):
    """What one request may be left: the `full` budget that it has without pressure, the `least` that it keeps, both in
    tokens, and the class that it is of."""

    full: int
    least: int
    traffic_class: str


@dataclass(frozen=True, slots=True)
class Squeeze:
    """The pressure on one model's budgets now.

    `thinks`: the model is known to think, so that a request without a budget may get one. `native`: all its nodes hold
    budgets, also where the gateway could not go on with an answer.
    """

    factor: float
    rules: SqueezeRules
    thinks: bool = True
    native: bool = False

    def budget(self, claim: ThinkingClaim) -> int:
        """The tokens that are left of `claim`."""
        weight = self.rules.weights.get(claim.traffic_class, 1.0)
        shrunk = round(claim.full * float(self.factor**weight))
        return min(claim.full, max(self.rules.budget_floor, claim.least, shrunk))
