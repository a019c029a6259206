"""Settings of pressure: how thinking budgets shrink while requests wait."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.config.queue import ClassName
from gateway.config.types import Count, Seconds, Section
from gateway.core.pressure.early_ends import EarlyEndRules
from gateway.core.pressure.factor import FactorRules
from gateway.core.pressure.rules import PressureRules
from gateway.core.pressure.squeeze import SqueezeRules

Weight = Annotated[float, Field(ge=0, le=10)]
Wait = Annotated[float, Field(ge=0, le=86_400)]


USUAL_WEIGHTS = {"interactive": 0.5, "standard": 1.0, "batch": 2.0}


class Pressure(Section):
    """`begin`, `end`, `full`: expected waits of a model: above `begin` budgets shrink, at `full` the factor is at its
    `floor`, below `end` they grow back. `hold`: how long a wait has to ask for a turn. `shrink`, `grow`: what the
    factor moves by in a second, at the most. `default_budget`: for thinking requests without one, while the factor is
    below 1. `budget_floor`: the smallest budget that is left. `cut`: the expected wait above which running thoughts of
    `cut_classes` are ended, one every `cut_interval`, the first class first. Waits and intervals are seconds, budgets
    tokens. For what each one does see docs/pressure.md."""

    enabled: bool = False
    begin: Wait = 2.0
    end: Wait = 0.5
    full: Seconds = 10.0
    hold: Wait = 5.0
    floor: Annotated[float, Field(ge=0.05, le=1)] = 0.15
    shrink: Annotated[float, Field(gt=0, le=1)] = 0.2
    grow: Annotated[float, Field(gt=0, le=1)] = 0.005
    default_budget: Count = 8192
    budget_floor: Count = 512
    weights: dict[ClassName, Weight] = Field(default_factory=lambda: dict(USUAL_WEIGHTS))
    """How strongly the budgets of a class shrink: by the factor to this power. 0: not at all. A class without one has
    1."""
    cut: Seconds | None = None
    """None: running thoughts are left alone."""
    cut_interval: Annotated[float, Field(ge=1, le=3600)] = 1.0
    cut_classes: tuple[ClassName, ...] = ("batch",)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.end < self.begin < self.full:
            raise ValueError(f"needs end < begin < full, and they are {self.end:g}, {self.begin:g}, {self.full:g}")
        if self.cut is not None and self.cut < self.full:
            raise ValueError(
                f"cut ({self.cut:g}) is less than full ({self.full:g}): budgets shrink before thoughts end"
            )
        return self

    def rules(self) -> PressureRules:
        return PressureRules(
            enabled=self.enabled,
            factor=FactorRules(self.begin, self.end, self.full, self.hold, self.floor, self.shrink, self.grow),
            squeeze=SqueezeRules(self.default_budget, self.budget_floor, dict(self.weights)),
            early_ends=EarlyEndRules(self.cut, self.cut_interval, self.cut_classes),
        )
