"""The settings that a reload brings into force, as plain values for each part."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from gateway.admission.queue_bounds import QueueRules
from gateway.api.body import BodyLimits
from gateway.config.access import named_models, tenants_of
from gateway.config.fleet import NodeConfig
from gateway.config.models import prices_of
from gateway.config.tree import Config
from gateway.core.access.tenants import Tenants
from gateway.core.admission.service_classes import ServiceClass, ServiceClasses
from gateway.core.admission.token_costs import TokenCosts
from gateway.core.budgets.continuation import Overshoot
from gateway.core.fleet.breaker import BreakerRules
from gateway.core.models import Models
from gateway.core.pressure.rules import PressureRules
from gateway.core.resume.resumability import ResumeRules
from gateway.core.routing.conversations import ConversationNaming
from gateway.core.thinking.policy import PolicyBook, PolicyLayer
from gateway.core.upstream.attempts import RetryRules
from gateway.core.usage.cost import Price
from gateway.fleet.named_models import NamedModel
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.probe_settings import ProbeSettings
from gateway.limits.limiter import LimiterSettings
from gateway.pipeline import RequestSettings
from gateway.redis.settings import RedisSettings
from gateway.responses.kept_responses import ResponseRules
from gateway.routing.router import RoutingRules
from gateway.upstream.relay import RelaySettings
from gateway.upstream.timeouts import UpstreamTimeouts
from gateway.wiring.redis_settings import redis_settings


def routing_groups(config: Config) -> dict[str, str]:
    """The routing groups of the models that name one, by the nodes' names for the models."""
    return {model.name: model.routing_group for model in config.models if model.routing_group is not None}


def tokenizers(config: Config) -> dict[str, Path]:
    """The tokenizers of the models that have one, by the nodes' names for the models."""
    return {model.name: model.tokenizer for model in config.models if model.tokenizer is not None}


@dataclass(frozen=True, slots=True)
class ReloadableSettings:
    """The values of one configuration, made whole before any part takes its own.

    Each part takes its value in its constructor and again in `Gateway.apply`, by the same method. `limited`:
    whether the file limits anything. `models`: those that the file lists, by the nodes' names; `named_models`: those
    that its tenants name, where it lists none.
    """

    requests: RequestSettings
    tenants: Tenants
    wrong_keys_per_minute: int
    limits: LimiterSettings
    limited: bool
    prices: Mapping[str, Price]
    relay: RelaySettings
    bodies: BodyLimits
    probes: ProbeSettings
    breaker: BreakerRules
    routing: RoutingRules
    queue: QueueRules
    nodes: tuple[NodeSpec, ...]
    models: tuple[str, ...]
    named_models: tuple[NamedModel, ...]
    pressure: PressureRules
    responses: ResponseRules
    redis: RedisSettings | None


def reloadable(config: Config, started_with: Config, response_key: bytes) -> ReloadableSettings:
    """The values of `config`, in a process that was started with `started_with`. Nothing is changed by making them."""
    return ReloadableSettings(
        requests=_requests(config, response_key),
        tenants=tenants_of(config.tenants, started_with.access.stored, response_key),
        wrong_keys_per_minute=config.access.wrong_keys_per_minute,
        limits=_limits(config),
        limited=config.limits.default.limits is not None or any(tenant.limited for tenant in config.tenants),
        prices=prices_of(config.models),
        relay=_relay(config, started_with),
        bodies=_bodies(config, started_with.workers),
        probes=_probes(config),
        breaker=BreakerRules(failures=config.health.failures, slow_start=config.health.slow_start),
        routing=_routing(config, started_with),
        queue=_queue(config),
        nodes=tuple(_node(node) for node in config.nodes),
        models=tuple(model.name for model in config.models),
        named_models=named_models_of(config),
        pressure=config.pressure.rules(),
        responses=_responses(config),
        redis=redis_settings(config, started_with),
    )


def named_models_of(config: Config) -> tuple[NamedModel, ...]:
    """What tenants of the file name, each once; none where the file lists its models, which it is checked against."""
    if config.models:
        return ()
    named = (NamedModel(tenant.name, model) for tenant in config.tenants for model, _ in named_models(tenant))
    return tuple(dict.fromkeys(named))


def _requests(config: Config, response_key: bytes) -> RequestSettings:
    aliases = {alias.name: model.name for model in config.models for alias in model.aliases}
    described = {name: told for model in config.models for name, told in model.descriptions().items()}
    return RequestSettings(
        models=Models([model.name for model in config.models], aliases, described),
        response_key=response_key,
        policies=PolicyBook(
            PolicyLayer(config.thinking.rules(), config.output.rules(), loops=config.loops.rules()),
            {model.name: model.rules() for model in config.models},
        ),
        over_chat=frozenset(model.name for model in config.models if model.over_chat),
        resumed=frozenset(config.resume.dialects if config.resume.enabled else ()),
    )


def _limits(config: Config) -> LimiterSettings:
    limits = config.limits
    return LimiterSettings(limits.on_failure, limits.assumed_output_tokens, limits.lease, limits.default.limits)


def _relay(config: Config, started_with: Config) -> RelaySettings:
    timeouts, budgets, retries = config.timeouts, config.budgets, config.retries
    return RelaySettings(
        timeouts=UpstreamTimeouts(
            connect=timeouts.connect,
            first_byte=timeouts.first_byte,
            node_hang=timeouts.node_hang,
            prefill=timeouts.prefill,
            non_streaming=timeouts.non_streaming,
            idle=timeouts.idle,
            stall=timeouts.stall,
            stall_confirmed=timeouts.stall_confirmed,
            keep_alive=timeouts.keep_alive or inf,
        ),
        max_attempts=config.requests.max_attempts,
        retries=RetryRules(retries.share, retries.minimum),
        overshoot=Overshoot(budgets.overshoot, budgets.overshoot_tokens),
        resume=ResumeRules(config.resume.max_resumes, config.resume.wait, config.resume.rate),
        request_ids=started_with.telemetry.node_request_ids,
    )


def _bodies(config: Config, workers: int) -> BodyLimits:
    requests = config.requests
    return BodyLimits(
        max_body=requests.max_body,
        body_timeout=config.timeouts.body,
        max_values=requests.max_json_values,
        max_answer=requests.max_answer,
        memory=requests.memory_for(workers),
    )


def _probes(config: Config) -> ProbeSettings:
    health, budgets = config.health, config.budgets
    return ProbeSettings(
        health.interval,
        health.timeout,
        health.failure_threshold,
        canary=budgets.canary,
        native=budgets.native,
        find_knee=config.queue.find_concurrency and config.queue.max_wait > 0,
    )


def _responses(config: Config) -> ResponseRules:
    given = config.responses
    return ResponseRules(given.kept_for, given.max_bytes, given.tenant_bytes, config.requests.max_body)


def _routing(config: Config, started_with: Config) -> RoutingRules:
    routing = config.routing
    return RoutingRules(
        policy=routing.policy,
        policies={model.name: model.routing for model in config.models if model.routing is not None},
        naming=ConversationNaming(tuple(name.lower().encode() for name in routing.session_headers), routing.by_user),
        affinity_ttl=routing.affinity_ttl,
        load_penalty=routing.load_penalty,
        groups=routing_groups(started_with),
        offered=frozenset(model.name for model in config.models),
    )


def _queue(config: Config) -> QueueRules:
    queue = config.queue
    classes = [
        ServiceClass(each.name, each.share, each.service_tiers, each.yields_at, each.priority, rank)
        for rank, each in enumerate(queue.classes)
    ]
    costs = queue.costs
    return QueueRules(
        max_wait=queue.max_wait,
        max_waiting=queue.max_waiting,
        max_bytes=queue.max_bytes,
        tenant_share=queue.tenant_share,
        comments=config.timeouts.keep_alive or inf,
        classes=ServiceClasses(classes, queue.default_class),
        costs=TokenCosts(costs.input, costs.cached_input, costs.reasoning, costs.output),
    )


def _node(node: NodeConfig) -> NodeSpec:
    return NodeSpec(
        url=node.url,
        api_key=node.api_key.reveal() if node.api_key is not None else None,
        ca_file=str(node.ca_file) if node.ca_file is not None else None,
        max_concurrency=node.max_concurrency,
        weight=node.weight,
        price=node.price,
        labels=tuple(node.labels.items()),
        priority_scheduling=node.priority_scheduling,
    )
