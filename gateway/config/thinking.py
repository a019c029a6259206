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

_WITHIN_MAX_BUDGET = ("default_budget", "floor", "floor_with_tools", "guaranteed_budget")


class Efforts(Section):
    """Tokens for each effort that clients ask for by name; a word without a number has that of the next weaker one."""

    minimal: Tokens | None = None
    """Tokens for `minimal`."""
    low: Tokens | None = None
    """Tokens for `low`."""
    medium: Tokens | None = None
    """Tokens for `medium`."""
    high: Tokens | None = None
    """Tokens for `high`."""
    xhigh: Tokens | None = None
    """Tokens for `xhigh`."""
    max: Tokens | None = None
    """Tokens for `max`."""


class ThinkingConfig(Section):
    """Budgets, reserve and floors are in tokens. For what each one does see docs/thinking.md."""

    mode: Literal["allowed", "forbidden", "required"] | None = None
    """`required`: clients cannot switch thinking off. `forbidden`: they cannot switch it on."""
    default: bool | None = None
    """`on` or `off`: for requests that do not say."""
    default_budget: Tokens | None = None
    """Tokens for requests that name no budget."""
    max_budget: Tokens | None = None
    """Tokens that a request may have at most."""
    efforts: Efforts | None = None
    """Budgets for the words that clients use. Without them words go to the model's template."""
    answer_reserve: Tokens | None = None
    """Tokens of `max_tokens` that are kept for the answer. Unset: 0."""
    floor: Tokens | None = None
    """Tokens below which a budget is not worth it: thinking is switched off. Unset: 0."""
    floor_with_tools: Tokens | None = None
    """Tokens for the same beside tools, where a forced end could land in a call's arguments. Unset: 0."""
    below_floor_with_tools: Literal["raise", "refuse"] | None = None
    """`raise` a budget to that floor where it fits, or `refuse` the request (400)."""
    hide_reasoning: bool | None = None
    """Whether reasoning is taken out of answers; it is paid for all the same."""
    guaranteed_budget: Tokens | None = None
    """Tokens of a budget that pressure leaves in any case. Unset: 0."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        most = self.max_budget
        if most is None:
            return self
        budgets = {name: getattr(self, name) for name in _WITHIN_MAX_BUDGET}
        above = [f"{name} ({value})" for name, value in budgets.items() if value is not None and value > most]
        if above:
            verb = "is" if len(above) == 1 else "are"
            raise ValueError(f"{' and '.join(above)} {verb} more than max_budget ({most})")
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
    """Tokens for requests that name no bound. Unset: what the context window leaves."""
    max_tokens: Count | None = None
    """Tokens that an answer may have at most, its thinking included."""
    on_excess: Literal["clamp", "reject"] | None = None
    """Of a request for more: `clamp` it, or `reject` it (400). Unset: `clamp`."""

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
    """Whether the thinking is ended at a loop, and the answer follows. Unset: true."""
    answer: bool | None = None
    """Whether the answer itself ends at a loop, with `finish_reason` stop. Unset: false."""
    repeats: Annotated[int, Field(ge=2, le=50)] | None = None
    """Times in a row that the same 4 to 128 tokens come, and 48 tokens besides. Unset: 3."""

    def rules(self) -> LoopRules:
        return LoopRules(self.reasoning, self.answer, self.repeats)


class Ruled(Section):
    """A section with rules for thinking, output and loops."""

    thinking: ThinkingConfig = ThinkingConfig()
    """Rules for thinking in this layer."""
    output: OutputConfig = OutputConfig()
    """Rules for the length of answers in this layer."""
    loops: LoopsConfig = LoopsConfig()
    """Rules for loops in this layer."""

    def rules(self) -> PolicyLayer:
        return PolicyLayer(self.thinking.rules(), self.output.rules(), loops=self.loops.rules())


class OnModelConfig(Ruled):
    """What holds for a tenant on one model, by the nodes' name for it."""

    model: Name
    """The nodes' name for the model."""
    limits: LimitSettings = LimitSettings()
    """Further ones, of its use of this model."""
