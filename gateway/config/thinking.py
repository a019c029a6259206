"""Settings of thinking, output and loops: for the gateway, a model, a tenant, a tenant on a model.

Of the layers that set a field, the most specific one wins: tenant on a model, tenant, model, gateway.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.limits import LimitSettings
from gateway.config.types import MOST, Count, Name, Section
from gateway.core.thinking.caps import OutputRules
from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.loops import LoopRules
from gateway.core.thinking.policy import PolicyLayer

Tokens = Annotated[int, Field(ge=0, le=MOST)]


class Efforts(Section):
    """Tokens for each effort that clients ask for by name; a word without a number has that of the next weaker one."""

    minimal: Tokens | None = None
    low: Tokens | None = None
    medium: Tokens | None = None
    high: Tokens | None = None
    xhigh: Tokens | None = None
    max: Tokens | None = None


class ThinkingConfig(Section):
    """Budgets, reserve and floors are in tokens. For what each one does see docs/thinking.md."""

    mode: Literal["allowed", "forbidden", "required"] | None = None
    default: bool | None = None
    """`on` or `off`: for requests that do not say."""
    default_budget: Tokens | None = None
    max_budget: Tokens | None = None
    efforts: Efforts | None = None
    answer_reserve: Tokens | None = None
    floor: Tokens | None = None
    floor_with_tools: Tokens | None = None
    below_floor_with_tools: Literal["raise", "refuse"] | None = None
    hide_reasoning: bool | None = None
    guaranteed_budget: Tokens | None = None
    """What pressure leaves of a budget in any case (docs/pressure.md)."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        most = self.max_budget
        for name in ("default_budget", "floor", "floor_with_tools", "guaranteed_budget"):
            value = getattr(self, name)
            if most is not None and value is not None and value > most:
                raise ValueError(f"{name} ({value}) is more than max_budget ({most})")
        return self

    def rules(self) -> ThinkingRules:
        return ThinkingRules(
            mode=self.mode,
            default=self.default,
            default_budget=self.default_budget,
            max_budget=self.max_budget,
            efforts=self.efforts.model_dump(exclude_none=True) or None if self.efforts is not None else None,
            answer_reserve=self.answer_reserve,
            floor=self.floor,
            floor_with_tools=self.floor_with_tools,
            below=self.below_floor_with_tools,
            hide=self.hide_reasoning,
            guaranteed_budget=self.guaranteed_budget,
        )


class OutputConfig(Section):
    """Tokens of an answer, its thinking included."""

    default_tokens: Count | None = None
    max_tokens: Count | None = None
    on_excess: Literal["clamp", "reject"] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        default, most = self.default_tokens, self.max_tokens
        if default is not None and most is not None and default > most:
            raise ValueError(f"default_tokens ({default}) is more than max_tokens ({most})")
        return self

    def rules(self) -> OutputRules:
        return OutputRules(self.default_tokens, self.max_tokens, self.on_excess)


class LoopsConfig(Section):
    """Which loops are ended: an exact repeat of 4 to 128 tokens, `repeats` times in a row and 48 tokens besides."""

    reasoning: bool | None = None
    """Whether the thinking is ended at a loop, and the answer follows; `on` where nobody says."""
    answer: bool | None = None
    """Whether the answer itself ends at a loop, with `finish_reason` stop."""
    repeats: Annotated[int, Field(ge=2, le=50)] | None = None

    def rules(self) -> LoopRules:
        return LoopRules(self.reasoning, self.answer, self.repeats)


class Ruled(Section):
    """A section with rules for thinking, output and loops."""

    thinking: ThinkingConfig = ThinkingConfig()
    output: OutputConfig = OutputConfig()
    loops: LoopsConfig = LoopsConfig()

    def rules(self) -> PolicyLayer:
        return PolicyLayer(self.thinking.rules(), self.output.rules(), loops=self.loops.rules())


class OnModelConfig(Ruled):
    """What holds for a tenant on one model, by the nodes' name for it."""

    model: Name
    limits: LimitSettings = LimitSettings()
    """Further ones, of its use of this model."""
