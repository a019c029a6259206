"""Settings of the queue: what waits where all nodes are at capacity, for how long, and in which order."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from gateway.config.types import CLASS_PATTERN, Count, Seconds, Section
from gateway.core.admission.service_classes import USUAL_CLASSES

ClassName = Annotated[str, Field(pattern=CLASS_PATTERN)]
Share = Annotated[float, Field(ge=0.001, le=1000)]
TokenWeight = Annotated[float, Field(ge=0, le=1000)]


class ServiceClassConfig(Section):
    """One class of requests that wait."""

    name: ClassName
    """What tenants, keys and the header `x-fleetgate-class` name it by."""
    share: Share = 1.0
    """Share of the tokens against other classes that wait."""
    service_tiers: tuple[ClassName, ...] = ()
    """OpenAI's names for it (`service_tier`)."""
    yields_at: Seconds | None = None
    """Seconds of the expected wait of higher classes from which it gets no place. Unset: never."""
    priority: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] = 0
    """Number that nodes are told, lower first."""


class TokenCostsConfig(Section):
    """What a token of each kind costs in the fair order."""

    input: TokenWeight = 1.0
    """Weight of a token of a prompt."""
    cached_input: TokenWeight = 0.1
    """Weight of a token of a prompt that is in the node's cache."""
    reasoning: TokenWeight = 2.0
    """Weight of a token of thinking."""
    output: TokenWeight = 2.0
    """Weight of a token of an answer."""


def _usual() -> tuple[ServiceClassConfig, ...]:
    return tuple(
        ServiceClassConfig(
            name=each.name,
            share=each.share,
            service_tiers=each.tiers,
            yields_at=each.yields_at,
            priority=each.priority,
        )
        for each in USUAL_CLASSES.all
    )


class QueueConfig(Section):
    """What waits for a place."""

    max_wait: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds that a request may wait; 0: it is refused at once."""
    max_waiting: Count = 4096
    """Requests that may wait in one process."""
    max_bytes: Count = 256 * 1024 * 1024
    """Bytes of their bodies."""
    tenant_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of both that one tenant may have."""
    find_concurrency: bool = True
    """Whether a node without `max_concurrency` gets the one that its metrics show it to work best with."""
    costs: TokenCostsConfig = TokenCostsConfig()
    """What a token of each kind costs in the fair order."""
    classes: tuple[ServiceClassConfig, ...] = Field(default_factory=_usual, min_length=1, max_length=16)
    """The highest first. Where they are listed, these are all."""
    default_class: ClassName = USUAL_CLASSES.default.name
    """The class of tenants that have none."""

    def problem(self, name: str | None) -> str | None:
        """What is wrong with a class name that other settings use; None where nothing is."""
        names = [each.name for each in self.classes]
        return None if name is None or name in names else f"{name!r} is none of the classes: {', '.join(names)}"

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [each.name for each in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        if problem := self.problem(self.default_class):
            raise ValueError(f"default_class {problem}")
        return self
