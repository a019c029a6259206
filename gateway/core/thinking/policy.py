"""Which rules hold for a tenant on a model: four layers of the config, the closest one that says something wins.

From the closest to the farthest: the tenant on this model, the tenant, the model, the gateway.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.thinking.caps import OutputRules
from gateway.core.thinking.decision import ThinkingRules
from gateway.core.thinking.loops import LoopRules
from gateway.core.thinking.resolved import Resolved, resolve

REMEMBERED = 10_000
"""Pairs of tenant and model whose terms are kept; beyond it they are put together anew."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLayer:
    """One layer. A tenant's may say something else for single models (by the nodes' names)."""

    thinking: ThinkingRules = field(default_factory=ThinkingRules)
    output: OutputRules = field(default_factory=OutputRules)
    per_model: Mapping[str, "PolicyLayer"] = field(default_factory=dict)
    loops: LoopRules = field(default_factory=LoopRules)

    @property
    def empty(self) -> bool:
        silent = self.thinking == ThinkingRules() and self.output == OutputRules() and self.loops == LoopRules()
        return silent and not self.per_model


class Policy(NamedTuple):
    """What holds for a tenant on a model; None where no layer says anything."""

    thinking: Resolved[ThinkingRules] | None
    output: Resolved[OutputRules] | None
    loops: Resolved[LoopRules] | None = None


class PolicyBook:
    """The layers of the gateway and its models, and the terms that come of them with a tenant's."""

    def __init__(self, gateway: PolicyLayer | None = None, models: Mapping[str, PolicyLayer] | None = None) -> None:
        """`gateway`: for everybody on every model; `models`: by the nodes' names."""
        self._gateway = gateway or PolicyLayer()
        self._models = models or {}
        self.silent = self._gateway.empty and all(rules.empty for rules in self._models.values())
        """Whether nothing is said here, so that a tenant without rules has no terms."""
        self._known: dict[tuple[PolicyLayer | None, str], Policy | None] = {}

    def of(self, tenant: PolicyLayer | None, model: str) -> Policy | None:
        """The terms for a tenant with these rules on `model`; None where nobody says anything."""
        key = (tenant, model)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        terms = self._known[key] = self._merge(tenant or PolicyLayer(), model)
        return terms

    def may_hide(self, tenant: PolicyLayer | None) -> bool:
        """Whether a tenant with these rules has its reasoning hidden on any model at all."""
        layers = [self._gateway, *self._models.values()]
        if tenant is not None:
            layers += [tenant, *tenant.per_model.values()]
        return any(rules.thinking.hide for rules in layers)

    def _merge(self, tenant: PolicyLayer, model: str) -> Policy | None:
        layers = [
            ("tenant-model", tenant.per_model.get(model, PolicyLayer())),
            ("tenant", tenant),
            ("model", self._models.get(model, PolicyLayer())),
            ("gateway", self._gateway),
        ]
        thinking = resolve(ThinkingRules(), [(name, rules.thinking) for name, rules in layers])
        output = resolve(OutputRules(), [(name, rules.output) for name, rules in layers])
        loops = resolve(LoopRules(), [(name, rules.loops) for name, rules in layers])
        return None if thinking is None and output is None and loops is None else Policy(thinking, output, loops)
