"""Rules as they hold: of several layers the closest one that says something wins, field by field."""

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class Layer(Protocol):
    """A dataclass of rules. Every field can be None: then the layer says nothing of it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


RulesT = TypeVar("RulesT", bound=Layer)


@dataclass(frozen=True, slots=True, eq=False)
class Resolved(Generic[RulesT]):
    """The rules that hold for one tenant on one model, and for each (by field) the layer that it comes from.

    Two are the same where they are one object: what was decided by them is remembered under it.
    """

    rules: RulesT
    layers: Mapping[str, str]

    def by(self, field: str, rule: str) -> str:
        """The source of a decision, such as `tenant-max`. Some layer has to say `field`."""
        return f"{self.layers[field]}-{rule}"


def resolve(silent: RulesT, layers: Iterable[tuple[str, RulesT]]) -> Resolved[RulesT] | None:
    """Of named layers, the closest first; None where none says anything. `silent` are rules that say nothing."""
    values: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for name, rules in layers:
        for each in fields(rules):
            value = getattr(rules, each.name)
            if value is not None and each.name not in values:
                values[each.name] = value
                said_by[each.name] = name
    return Resolved(replace(silent, **values), said_by) if said_by else None
