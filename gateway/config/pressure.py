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
    """How thinking budgets shrink: above a wait of `begin` they do, at `full` they are at their smallest, below `end`
    they grow back. docs/pressure.md has more."""

    enabled: bool = False
    """Whether budgets follow the expected wait."""
    begin: Wait = 2.0
    """Seconds of wait above which budgets shrink."""
    end: Wait = 0.5
    """Seconds of wait below which they grow back."""
    full: Seconds = 10.0
    """Seconds of wait at which they are at their smallest."""
    hold: Wait = 5.0
    """Seconds for which a wait has to ask for a turn, from growing to shrinking or back."""
    floor: Annotated[float, Field(ge=0.05, le=1)] = 0.15
    """Factor of a budget that is left at the least."""
    shrink: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Factor by which budgets fall in a second, at the most."""
    grow: Annotated[float, Field(gt=0, le=1)] = 0.005
    """Factor by which they rise in a second, at the most."""
    default_budget: Count = 8192
    """Tokens that a thinking request without a budget is taken to have, while others shrink."""
    budget_floor: Count = 512
    """Tokens: the smallest budget that is left."""
    weights: dict[ClassName, Weight] = Field(default_factory=lambda: dict(USUAL_WEIGHTS))
    """How strongly the budgets of a class shrink: by the factor to this power. 0: not at all. A class without one has
    1."""
    cut: Seconds | None = None
    """Seconds of wait above which running thoughts are ended, at least `full`. Unset: none is."""
    cut_interval: Annotated[float, Field(ge=1, le=3600)] = 1.0
    """Seconds between two that are ended, of one model in all gateways."""
    cut_classes: tuple[ClassName, ...] = ("batch",)
    """The classes whose thoughts are ended, the first class first."""

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
