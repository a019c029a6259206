"""The models of the configuration: their names, their rules, their prices."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, model_validator

from gateway.config.counting import TokenizerPath
from gateway.config.routing import RoutingGroupName, RoutingPolicy
from gateway.config.thinking import Ruled
from gateway.config.types import SHOWN_PATTERN, Name, Section
from gateway.config.usage import PriceConfig
from gateway.core.models import ModelDescription
from gateway.core.usage.cost import Price

DisplayName = Annotated[str, Field(min_length=1, max_length=128, pattern=SHOWN_PATTERN)]


class AliasConfig(Section):
    """A further name that clients may use; a name alone stands for one without settings."""

    name: Name
    """The name that clients may use."""
    display_name: DisplayName | None = None
    """What people are shown in its place; the model's where it says nothing."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class CapabilitiesConfig(Section):
    """What clients are told that the model can do. Nodes are not asked: vLLM does all of it for a model that can."""

    thinking: bool = True
    """Whether it thinks, as far as its rules allow."""
    tools: bool = True
    """Whether it calls tools."""
    structured_outputs: bool = True
    """Whether it answers by a JSON schema."""
    images: bool = False
    """Whether it takes pictures."""


class ModelConfig(Ruled):
    """A model by the name that nodes serve it under, and further names that clients may use."""

    name: Name
    """The nodes' name for it (`--served-model-name`)."""
    aliases: tuple[AliasConfig, ...] = ()
    """Further names that clients may use."""
    display_name: DisplayName | None = None
    """What people are shown in place of its name."""
    capabilities: CapabilitiesConfig = CapabilitiesConfig()
    """What clients are told that it can do."""
    price: PriceConfig | None = None
    """For usage and limits in dollars. Without one it costs 0."""
    over_chat: bool = False
    """Whether responses and messages are translated to chat for its nodes."""
    tokenizer: TokenizerPath | None = None
    """The folder of its tokenizer, or the `tokenizer.json` in it: then prompts are counted and not estimated."""
    routing: RoutingPolicy | None = None
    """How its requests are spread over its nodes; `routing.policy` where it says nothing."""
    routing_group: RoutingGroupName | None = None
    """Models whose facts for routing lie together in a Redis Cluster: those that nodes serve together. Models that name
    none are a group."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that clients may use, the nodes' first."""
        return (self.name, *(alias.name for alias in self.aliases))

    def descriptions(self) -> dict[str, ModelDescription]:
        """What clients are told of it, by each of its names."""
        told = ModelDescription(self.display_name, **self.capabilities.model_dump())
        shown = {alias.name: alias.display_name or self.display_name for alias in self.aliases}
        return {self.name: told} | {name: told._replace(display_name=shown[name]) for name in shown}


class ModelNames:
    """The nodes' names of the models that the configuration lists. Where it lists none, every name is valid."""

    def __init__(self, names: Iterable[tuple[str, str]]) -> None:
        """`names`: every name or alias, with the nodes' name for its model."""
        self._known = dict(names)

    @classmethod
    def of(cls, models: Iterable[ModelConfig]) -> "ModelNames":
        return cls((alias, model.name) for model in models for alias in model.names)

    def problem(self, name: str) -> str | None:
        """Why settings for the model `name` would have no effect, and what to do; None where they have one."""
        if not self._known or self._known.get(name) == name:
            return None
        meant = self._known.get(name)
        hint = (
            f"is an alias: name {meant}"
            if meant
            else f"is not in models: {', '.join(dict.fromkeys(self._known.values()))}"
        )
        return f"{name} {hint}"


def prices_of(models: Iterable[ModelConfig]) -> dict[str, Price]:
    """The prices of the models that have one, by the nodes' names for the models."""
    return {model.name: model.price.price for model in models if model.price is not None}
