"""Checks between settings on the raw tree: what pydantic does not come to while a section beside has a mistake.

All problems of a file are to be told in one round, so these are sought whether the rest is valid or not. What a section
with mistakes says is taken as far as it can be read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.config.access import is_digest
from gateway.config.models import ModelNames
from gateway.config.types import node_url
from gateway.core.setting_names import TreePath

Problem = tuple[TreePath, str]


def cross_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Names of models that there are not, and what is given twice, each with its path."""
    yield from _unknown_models(tree)
    yield from _given_twice(tree)


def _unknown_models(tree: Mapping[str, Any]) -> Iterator[Problem]:
    models = _listed(tree.get("models"))
    if any(not isinstance(model.get("name"), str) for _, model in models):
        return  # its name may be the one that seems to be missing
    known = ModelNames(pair for _, model in models for pair in _names(model))
    for path, name in _named_models(tree):
        problem = known.problem(name)
        if problem is not None:
            yield path, problem
    for at, tenant in _listed(tree.get("tenants")):
        allowed = [name for _, name in _texts(tenant.get("models"))]
        for number, key in _listed(tenant.get("keys")):
            for place, name in _texts(key.get("models")):
                if allowed and name not in allowed and known.problem(name) is None:
                    path = ("tenants", at, "keys", number, "models", place)
                    yield path, f"{name} is not in the tenant's models: {', '.join(allowed)}"


def _named_models(tree: Mapping[str, Any]) -> Iterator[tuple[TreePath, str]]:
    for at, tenant in _listed(tree.get("tenants")):
        for place, name in _texts(tenant.get("models")):
            yield ("tenants", at, "models", place), name
        for place, rules in _listed(tenant.get("per_model")):
            if isinstance(rules.get("model"), str):
                yield ("tenants", at, "per_model", place, "model"), rules["model"]
        for number, key in _listed(tenant.get("keys")):
            for place, name in _texts(key.get("models")):
                yield ("tenants", at, "keys", number, "models", place), name
    discovery = tree.get("discovery")
    registrations = discovery.get("registrations") if isinstance(discovery, Mapping) else None
    for place, name in _texts(registrations.get("models") if isinstance(registrations, Mapping) else None):
        yield ("discovery", "registrations", "models", place), name


def _given_twice(tree: Mapping[str, Any]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for kind, value, path in _identities(tree):
        if (kind, value) in seen:
            yield path, f"{kind} {value} is given twice"
        seen.add((kind, value))


def _identities(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, TreePath]]:
    """What has to be unique: the kind, the value, and where `Config` tells it."""
    for at, node in _listed(tree.get("nodes")):
        url = node.get("url")
        if isinstance(url, str):
            try:
                yield "the node URL", node_url(url), ("nodes", at)
            except ValueError:
                continue
    for at, model in _listed(tree.get("models")):
        for name, _ in _names(model):
            yield "the model name or alias", name, ("models", at)
    for at, tenant in _listed(tree.get("tenants")):
        if isinstance(tenant.get("name"), str):
            yield "the tenant", tenant["name"], ("tenants", at)
        for number, each in _listed(tenant.get("per_model")):
            path = ("tenants", at, "per_model", number, "model")
            yield "the tenant's model", f"{tenant.get('name')}: {each.get('model')}", path
        for number, key in _listed(tenant.get("keys")):
            if isinstance(key.get("sha256"), str) and is_digest(key["sha256"]):  # it may be a key itself
                yield "the key with the SHA-256", key["sha256"], ("tenants", at, "keys", number, "sha256")


def _names(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All names of a model, each with the nodes' name for it."""
    aliases = model.get("aliases")
    named = (
        [each.get("name") if isinstance(each, Mapping) else each for each in aliases]
        if isinstance(aliases, list)
        else []
    )
    return [(name, str(model.get("name"))) for name in (model.get("name"), *named) if isinstance(name, str)]


def _listed(value: Any) -> list[tuple[int, Mapping[str, Any]]]:
    """The mappings of a list, each with its index."""
    return [(at, item) for at, item in enumerate(value) if isinstance(item, Mapping)] if isinstance(value, list) else []


def _texts(value: Any) -> list[tuple[int, str]]:
    return [(at, item) for at, item in enumerate(value) if isinstance(item, str)] if isinstance(value, list) else []
