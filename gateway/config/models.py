"""The models of the configuration: their names, their rules, their prices."""

from collections.abc import Iterable

from gateway.config.counting import TokenizerPath
from gateway.config.routing import RoutingPolicy
from gateway.config.thinking import Ruled
from gateway.config.types import Name
from gateway.config.usage import PriceConfig
from gateway.core.usage.cost import Price


class ModelConfig(Ruled):
    """A model by the name that nodes serve it under, and further names that clients may use."""

    name: Name
    aliases: tuple[Name, ...] = ()
    price: PriceConfig | None = None
    over_chat: bool = False
    """Whether responses and messages are translated to chat for its nodes."""
    tokenizer: TokenizerPath | None = None
    """The folder of its tokenizer, or the `tokenizer.json` in it: then prompts are counted and not estimated."""
    routing: RoutingPolicy | None = None
    """How its requests are spread over its nodes; `routing.policy` where it says nothing."""


class ModelNames:
    """The nodes' names of the models that the configuration lists. Where it lists none, every name is valid."""

    def __init__(self, models: Iterable[ModelConfig]) -> None:
        self._known = {alias: model.name for model in models for alias in (model.name, *model.aliases)}

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
