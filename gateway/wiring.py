"""From the configuration to the parts that the gateway is made of: plain values in, plain values or one part out."""

import ipaddress
import ssl
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path

from gateway.access.directory import Directory
from gateway.access.keyring import Keyring, RecordReaders
from gateway.admin.auth import AdminAccess
from gateway.config.access import read_grant, read_tenant
from gateway.config.discovery import DnsConfig, RegistrationsConfig
from gateway.config.fleet import NodeConfig
from gateway.config.listen import Tls
from gateway.config.tree import Config
from gateway.config.types import is_loopback, load_certificate
from gateway.config.usage import prices_of
from gateway.core.access.browser_guard import BrowserGuard
from gateway.core.access.tenants import Tenants
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.budgets.continuation import Overshoot
from gateway.core.fleet.breaker import BreakerRules
from gateway.core.fleet.registration import RegistrationTrust
from gateway.core.limits.metering import Meters
from gateway.core.models import Models
from gateway.core.routing.conversations import ConversationNaming
from gateway.core.routing.placement import Placement
from gateway.core.thinking.policy import PolicyBook, PolicyLayer
from gateway.core.upstream.attempts import RetryRules
from gateway.counting.counter import PromptCounter
from gateway.fleet.discovery import DiscoverySettings
from gateway.fleet.dns import DnsName
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import NodeSpec
from gateway.fleet.prober import ProbeTiming
from gateway.fleet.registrations import RegistrationRules
from gateway.limits.limiter import Limiter, LimiterSettings
from gateway.pipeline import RequestSettings
from gateway.redis.client import RedisClient, RedisSettings
from gateway.redis.presence import Presence
from gateway.redis.schema import KeySchema
from gateway.routing.router import Router, RoutingRules
from gateway.routing.shared_placement import SharedPlacement
from gateway.upstream.timeouts import UpstreamTimeouts
from gateway.usage.ledger import Ledger, UsageRetention

READ_AT_START = (
    "listen",
    "admin",
    "workers",
    "log",
    "redis",
    "access.stored",
    "access.cached_keys",
    "access.outage",
    "access.audit_lines",
    "usage",
    "discovery",
    "response_secret",
    "requests.max_headers",
    "timeouts.headers",
    "timeouts.client_stall",
    "timeouts.shutdown",
)
"""Settings that a reload does not change. docs/configuration.md names them."""


def policy(config: Config, response_key: bytes) -> RequestSettings:
    aliases = {alias: model.name for model in config.models for alias in model.aliases}
    return RequestSettings(
        models=Models([model.name for model in config.models], aliases),
        response_key=response_key,
        terms=PolicyBook(
            PolicyLayer(config.thinking.rules(), config.output.rules()),
            {model.name: model.rules() for model in config.models},
        ),
        over_chat=frozenset(model.name for model in config.models if model.over_chat),
    )


def counters(config: Config) -> dict[str, PromptCounter]:
    """By the nodes' names, for the models that have a tokenizer here."""
    paths = _tokenizers(config)
    if not paths:
        return {}
    from gateway.counting.files import load_counters  # its libraries are an optional extra

    return load_counters(paths)


def _tokenizers(config: Config) -> dict[str, Path]:
    return {model.name: model.tokenizer for model in config.models if model.tokenizer is not None}


def ledger(config: Config, redis: RedisClient | None) -> Ledger | None:
    usage = config.usage
    if redis is None or not usage.stored:
        return None
    return Ledger(redis, UsageRetention(usage.records, usage.hours, usage.days), prices_of(config.models))


def keyring(config: Config, redis: RedisClient | None, response_key: bytes, tenants: Tenants) -> Keyring | None:
    """The keys that were created at run time; None where there can be none."""
    access = config.access
    if redis is None or not access.stored:
        return None
    reading = RecordReaders(partial(read_tenant, response_key), read_grant)
    return Keyring(redis, reading, tenants, access.cached_keys, access.outage)


def directory(config: Config, redis: RedisClient | None) -> Directory | None:
    """Where such keys are created, and their tenants; None as for `keyring`."""
    return None if redis is None or not config.access.stored else Directory(redis, config.access.audit_lines)


def admin_access(config: Config) -> AdminAccess:
    admin = config.admin
    tokens = {named.name: named.token.reveal() for named in admin.tokens}
    if admin.token is not None:
        tokens = {"admin": admin.token.reveal(), **tokens}
    open_paths = ["/health", "/ready"]
    if admin.open_metrics and tokens:
        open_paths.append("/metrics")
    return AdminAccess(
        tokens, BrowserGuard("admin", admin.hosts), WrongKeyThrottle(config.access.wrong_keys_per_minute), open_paths
    )


def public_guard(config: Config) -> BrowserGuard:
    listen = config.listen
    return BrowserGuard("listen", listen.hosts, listen.cors_origins, beyond=not is_loopback(listen.host))


def redis_client(config: Config) -> RedisClient | None:
    redis = config.redis
    if redis is None:
        return None
    settings = RedisSettings(
        url=redis.url.reveal(),
        cluster=redis.cluster,
        ca_file=redis.ca_file,
        cert_file=redis.cert_file,
        key_file=redis.key_file,
        timeout=redis.timeout,
        connect_timeout=redis.connect_timeout,
        schema=KeySchema(redis.prefix),
    )
    return RedisClient(settings)


def limiter(config: Config, redis: RedisClient | None, presence: Presence, meters: Meters) -> Limiter | None:
    """None where nothing is limited and, without Redis, nothing can come to be."""
    limited = config.limits.default.limits is not None or any(tenant.limited for tenant in config.tenants)
    if redis is None and not limited:
        return None
    return Limiter(limit_terms(config), meters, redis, presence)


def limit_terms(config: Config) -> LimiterSettings:
    limits = config.limits
    return LimiterSettings(limits.on_failure, limits.assumed_output_tokens, limits.lease, limits.default.limits)


def timing(config: Config) -> UpstreamTimeouts:
    timeouts = config.timeouts
    return UpstreamTimeouts(
        connect=timeouts.connect,
        first_byte=timeouts.first_byte,
        silence=timeouts.silence,
        prefill=timeouts.prefill,
        plain=timeouts.plain,
        idle=timeouts.idle,
        keep_alive=timeouts.keep_alive or inf,
    )


def overshoot(config: Config) -> Overshoot:
    return Overshoot(config.budgets.overshoot, config.budgets.overshoot_tokens)


def probe_timing(config: Config) -> ProbeTiming:
    return ProbeTiming(config.health.interval, config.health.timeout, config.health.tolerated)


def breaker_rules(config: Config) -> BreakerRules:
    return BreakerRules(failures=config.health.failures, slow_start=config.health.slow_start)


def retry_rules(config: Config) -> RetryRules:
    return RetryRules(config.retries.share, config.retries.minimum)


def router(config: Config, fleet: Fleet, redis: RedisClient | None) -> Router:
    remember, crowding = config.routing.remember, config.routing.crowding
    shared = SharedPlacement(redis, remember, crowding) if redis is not None else None
    return Router(fleet, routing_rules(config), Placement(remember, crowding), shared)


def routing_rules(config: Config) -> RoutingRules:
    routing = config.routing
    return RoutingRules(
        policy=routing.policy,
        policies={model.name: model.routing for model in config.models if model.routing is not None},
        naming=ConversationNaming(tuple(name.lower().encode() for name in routing.session_headers), routing.by_user),
    )


def discovery(config: Config) -> DiscoverySettings:
    registrations = config.discovery.registrations
    return DiscoverySettings(
        names=tuple(_dns_name(name) for name in config.discovery.dns),
        registrations=None if registrations is None else _registration_rules(registrations),
    )


def node_specs(config: Config) -> list[NodeSpec]:
    """The nodes of the config's own list."""
    return [_node_spec(node) for node in config.nodes]


def _node_spec(node: NodeConfig) -> NodeSpec:
    return NodeSpec(
        url=node.url,
        api_key=node.api_key.reveal() if node.api_key is not None else None,
        ca_file=str(node.ca_file) if node.ca_file is not None else None,
        max_concurrency=node.max_concurrency,
        weight=node.weight,
        price=node.price,
        labels=tuple(node.labels.items()),
    )


def _dns_name(name: DnsConfig) -> DnsName:
    spec = NodeSpec(
        url=f"{name.scheme}://{name.host}",
        api_key=name.api_key.reveal() if name.api_key is not None else None,
        ca_file=str(name.ca_file) if name.ca_file is not None else None,
        max_concurrency=name.max_concurrency,
        weight=name.weight,
    )
    return DnsName(name.host, name.port, name.interval, spec)


def _registration_rules(given: RegistrationsConfig) -> RegistrationRules:
    belief = RegistrationTrust(
        secret=given.secret.reveal() if given.secret is not None else None,
        networks=tuple(ipaddress.ip_network(network) for network in given.networks),
        models=frozenset(given.models),
        skew=given.skew,
    )
    return RegistrationRules(
        belief=belief,
        interval=given.interval,
        api_key=given.api_key.reveal() if given.api_key is not None else None,
        ca_file=str(given.ca_file) if given.ca_file is not None else None,
    )


def needs_restart(old: Config, new: Config) -> list[str]:
    """The settings that changed but are only read at start."""
    changed = [name for name in READ_AT_START if attrgetter(name)(old) != attrgetter(name)(new)]
    return changed if _tokenizers(old) == _tokenizers(new) else [*changed, "models.tokenizer"]


def tls(files: Tls | None) -> ssl.SSLContext | None:
    """What the listeners' handshakes are made with; None where they speak plain HTTP."""
    if files is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, files.cert, files.key)
    return context
