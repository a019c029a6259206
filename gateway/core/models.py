"""Which model a request means: the name that nodes serve, an alias of it, or the only one there is."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from gateway.core.errors import InvalidRequest, ModelNotFound, NoNodeReady


class ModelAccess(Protocol):
    """A tenant, or a caller by one of its keys."""

    def may_use(self, model: str) -> bool: ...


class ModelDescription(NamedTuple):
    """What the operator says of a model, for clients that let people choose one. `display_name` None: its id."""

    display_name: str | None = None
    thinking: bool = True
    tools: bool = True
    structured_outputs: bool = True
    images: bool = False


UNDESCRIBED = ModelDescription()


class Models:
    """The names that clients may use.

    `listed`: the models of the config; where there are any, only these are offered. `aliases`: further name ->
    the name that nodes serve. `described`: what is said of models and aliases, by each name.
    """

    def __init__(
        self,
        listed: Collection[str] = (),
        aliases: Mapping[str, str] | None = None,
        described: Mapping[str, ModelDescription] | None = None,
    ) -> None:
        self._listed = frozenset(listed)
        self._aliases = dict(aliases or {})
        self._described = dict(described or {})

    def described(self, name: str) -> ModelDescription | None:
        """What the operator says of the model with this public name; None where the config does not list it."""
        return self._described.get(name)

    def offered(self, caller: ModelAccess, served: Collection[str]) -> list[tuple[str, str]]:
        """All (public name, name on the node) pairs that `caller` may use, of the models in `served`."""
        names = [(name, name) for name in served] + list(self._aliases.items())
        return [(public, model) for public, model in names if model in served and self._allowed(model, caller)]

    def resolve(self, name: str | None, caller: ModelAccess, served: Collection[str]) -> str:
        """The name on the node that `name` stands for.

        `served`: what the nodes of the fleet serve, as far as they have said. Raises `ModelNotFound` for a
        name that does not exist or is not the caller's to use (told apart for nobody), `NoNodeReady` while no
        node has said yet what it serves, `InvalidRequest` where no name was given and several could be meant.
        """
        if name is None:
            return self._only_model(caller, served)
        model = self._aliases.get(name, name)
        if (model in self._listed if self._listed else model in served) and caller.may_use(model):
            return model
        if not served and not self._listed:
            raise _starting()
        raise model_not_found(name)

    def on_nodes(self, name: str) -> str:
        """The name that nodes know `name` by: itself, or what it is an alias of."""
        return self._aliases.get(name, name)

    def _only_model(self, caller: ModelAccess, served: Collection[str]) -> str:
        models = {model for _, model in self.offered(caller, served)}
        if len(models) == 1:
            return models.pop()
        if not served:
            raise _starting()
        raise InvalidRequest(
            "The field 'model' is missing: name one of the models that GET /v1/models lists.",
            param="model",
            code="missing_model",
        )

    def _allowed(self, model: str, caller: ModelAccess) -> bool:
        return (not self._listed or model in self._listed) and caller.may_use(model)


def _starting() -> NoNodeReady:
    return NoNodeReady("No node has answered yet: the fleet is starting.", retry_after=2.0)


def model_not_found(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"The model {name!r} does not exist or you may not use it: GET /v1/models lists yours.",
        param="model",
        code="model_not_found",
    )
