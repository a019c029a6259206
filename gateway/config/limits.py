"""Settings of limits: what may be taken, and how it is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.config.types import Count, Seconds, Section
from gateway.core.limits.rules import MAX_BUCKET, Limits
from gateway.core.usage.cost import NANO

Dollars = Annotated[float, Field(gt=0, le=1_000_000)]
PerMinute = Annotated[int, Field(ge=1, le=MAX_BUCKET)]
PerDay = Annotated[int, Field(ge=1, le=10**15)]


class LimitSettings(Section):
    """What may be taken, any subset. Per minute: token buckets that refill all the time; per day and month: by the
    calendar in UTC."""

    requests_per_minute: PerMinute | None = None
    """Requests a minute."""
    input_tokens_per_minute: PerMinute | None = None
    """Tokens of prompts a minute."""
    output_tokens_per_minute: PerMinute | None = None
    """Tokens of answers a minute, thinking included."""
    tokens_per_minute: PerMinute | None = None
    """Tokens of prompts and answers together a minute."""
    reasoning_tokens_per_minute: PerMinute | None = None
    """Tokens of thinking a minute."""
    concurrent_requests: Count | None = None
    """Requests at once."""
    tokens_per_day: PerDay | None = None
    """Tokens of prompts and answers a day, from midnight UTC."""
    usd_per_day: Dollars | None = None
    """US dollars a day, at the models' prices."""
    usd_per_month: Dollars | None = None
    """US dollars a month, from its first day, at the models' prices."""
    burst_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds' worth that the buckets hold: what may be taken at once after a pause."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name.endswith("_per_minute") and value is not None and value * self.burst_seconds > MAX_BUCKET * 60:
                raise ValueError(f"{name} with burst_seconds {self.burst_seconds} holds more than {MAX_BUCKET}")
        return self

    @property
    def limits(self) -> Limits | None:
        """As the rules know them; None where nothing is limited."""
        given = self.model_dump(exclude_none=True, exclude={"burst_seconds", "usd_per_day", "usd_per_month"})
        for period in ("day", "month"):
            usd = getattr(self, f"usd_per_{period}")
            if usd is not None:
                given[f"nanodollars_per_{period}"] = round(usd * NANO)
        return Limits(**given, burst_seconds=self.burst_seconds) if given else None


class LimitsConfig(Section):
    """How limits are kept. What they are stands with the tenants and their keys."""

    default: LimitSettings = LimitSettings()
    """For every tenant that has none of its own."""
    on_failure: Literal["local", "open", "closed"] = "local"
    """While Redis does not answer: each gateway enforces its share by itself, nobody does, or nothing is served."""
    assumed_output_tokens: Annotated[int, Field(ge=1, le=MAX_BUCKET)] = 4096
    """Tokens that a request which bounds its answer nowhere is planned with."""
    lease: Seconds = 60.0
    """Seconds after which a gateway that died has given back what its requests held."""
