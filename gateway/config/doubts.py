"""What is valid in a configuration and hardly meant: settings without effect, or weaker than they look.

`fleetgate check` prints each as a warning; `fleetgate serve` logs it (`config_warning`) and serves.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from gateway.config.access import TenantConfig
from gateway.config.limits import LimitSettings
from gateway.config.responses import ResponsesConfig
from gateway.config.thinking import Ruled
from gateway.config.tree import Config
from gateway.config.types import Secret
from gateway.core.setting_names import TreePath

SHORT_SECRET = 16
"""Characters below which a secret can be guessed, or has been made up by a person."""

FEW_CHARACTERS = 6
"""Different characters below which a secret is a pattern, however long."""

EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")


class Doubt(NamedTuple):
    """The setting at `path`, and what is odd about it, with the remedy."""

    path: TreePath
    words: str


class _PlacedRules(NamedTuple):
    """Rules for thinking and output, and where they stand."""

    path: TreePath
    rules: Ruled | Config


def find_doubts(config: Config, now: float) -> list[Doubt]:
    """All of them. `now` in seconds since 1970: keys may have expired since."""
    return list(
        dict.fromkeys(
            [
                *_weak_secrets(config),
                *_unsealed_responses(config),
                *_expired_keys(config, now),
                *_dollars_without_prices(config),
                *_no_room_for_thinking(config),
                *_efforts_out_of_order(config),
                *_groups_without_cluster(config),
            ]
        )
    )


def _weak_secrets(config: Config) -> Iterator[Doubt]:
    registrations = config.discovery.registrations
    named: list[tuple[TreePath, Secret | None]] = [
        (("admin", "token"), config.admin.token),
        *((("admin", "tokens", at, "token"), each.token) for at, each in enumerate(config.admin.tokens)),
        (("response_secret",), config.response_secret),
        (("discovery", "registrations", "secret"), None if registrations is None else registrations.secret),
    ]
    for path, secret in named:
        if secret is not None and _is_weak(secret.reveal()):
            yield Doubt(path, "can be guessed: make one with `openssl rand -hex 32`")


def _unsealed_responses(config: Config) -> Iterator[Doubt]:
    """Where nodes are asked in chat for want of a budget of their own, only the gateway could keep responses."""
    if config.redis is None or config.response_secret is not None or config.responses.stored is False:
        return
    paths: list[TreePath] = [("responses",)] if config.responses != ResponsesConfig() else []
    paths += [("models", at, "over_chat") for at, model in enumerate(config.models) if model.over_chat]
    for path in paths:
        yield Doubt(path, "keeps no responses, for want of a key to seal them: set response_secret")


def _is_weak(secret: str) -> bool:
    return len(secret) < SHORT_SECRET or len(set(secret)) < FEW_CHARACTERS


def _expired_keys(config: Config, now: float) -> Iterator[Doubt]:
    for at, tenant in enumerate(config.tenants):
        for number, key in enumerate(tenant.keys):
            if key.expires is not None and key.expires.timestamp() <= now:
                when = datetime.fromtimestamp(key.expires.timestamp(), UTC) if key.expires.year > 1 else key.expires
                path = ("tenants", at, "keys", number, "expires")
                yield Doubt(path, f"is past ({when:%Y-%m-%d}): the key opens nothing; remove it or move its end")


def _dollars_without_prices(config: Config) -> Iterator[Doubt]:
    """A model without a price costs nothing, so that a limit in dollars never ends its use."""
    priced = {model.name for model in config.models if model.price is not None}
    listed = [model.name for model in config.models]

    def problem(models: tuple[str, ...]) -> str | None:
        free = [name for name in models or listed if name not in priced]
        if priced and not free:
            return None
        free_of = f"of {', '.join(free)}" if free and priced else "of the models"
        return f"counts no use {free_of}, for want of a price: set models[].price"

    for path, limits, models in _limited(config):
        for name in ("usd_per_day", "usd_per_month"):
            if getattr(limits, name) is not None and (words := problem(models)):
                yield Doubt((*path, name), words)


def _limited(config: Config) -> Iterator[tuple[TreePath, LimitSettings, tuple[str, ...]]]:
    """All limits, and the models that they are for; none named: all."""
    yield ("limits", "default"), config.limits.default, ()
    for at, tenant in enumerate(config.tenants):
        yield ("tenants", at, "limits"), tenant.limits, tenant.models
        for number, each in enumerate(tenant.per_model):
            yield ("tenants", at, "per_model", number, "limits"), each.limits, (each.model,)
        for number, key in enumerate(tenant.keys):
            yield ("tenants", at, "keys", number, "limits"), key.limits, key.models or tenant.models


def _no_room_for_thinking(config: Config) -> Iterator[Doubt]:
    """Where the reserve for the answer is as much as an answer may have, no token is left to think."""
    for layers in _stacks(config):
        reserve = most = None
        at_reserve: TreePath = ()
        for path, rules in layers:
            if rules.thinking.answer_reserve is not None:
                reserve, at_reserve = rules.thinking.answer_reserve, (*path, "thinking", "answer_reserve")
            most = rules.output.max_tokens if rules.output.max_tokens is not None else most
        if reserve is not None and most is not None and reserve >= most:
            yield Doubt(at_reserve, f"({reserve}) leaves nothing of output.max_tokens ({most}): nobody can think")


def _stacks(config: Config) -> Iterator[list[_PlacedRules]]:
    """The layers of rules that hold together, the general ones first."""
    top = _PlacedRules((), config)
    models = {model.name: _PlacedRules(("models", at), model) for at, model in enumerate(config.models)}
    yield [top]
    yield from ([top, layer] for layer in models.values())
    for at, tenant in enumerate(config.tenants):
        own = _PlacedRules(("tenants", at), tenant)
        yield [top, own]
        on_model = _on_model(at, tenant)
        for name in {**models, **on_model}:
            if not tenant.models or name in tenant.models:
                yield [top, *(book[name] for book in (models,) if name in book), own, *on_model.get(name, [])]


def _on_model(at: int, tenant: TenantConfig) -> dict[str, list[_PlacedRules]]:
    return {
        each.model: [_PlacedRules(("tenants", at, "per_model", number), each)]
        for number, each in enumerate(tenant.per_model)
    }


def _efforts_out_of_order(config: Config) -> Iterator[Doubt]:
    for layers in _stacks(config):
        path, rules = layers[-1]
        efforts = rules.thinking.efforts
        given = [] if efforts is None else [(name, getattr(efforts, name)) for name in EFFORTS]
        for (weaker, less), (stronger, more) in pairwise([each for each in given if each[1] is not None]):
            if more < less:
                words = f"({more}) is less than {weaker} ({less}): a stronger effort thinks less"
                yield Doubt((*path, "thinking", "efforts", stronger), words)


def _groups_without_cluster(config: Config) -> Iterator[Doubt]:
    if config.redis is not None and config.redis.cluster:
        return
    for at, model in enumerate(config.models):
        if model.routing_group is not None:
            yield Doubt(("models", at, "routing_group"), "spreads nothing without redis.cluster: true; leave it out")
