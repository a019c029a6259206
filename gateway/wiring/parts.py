"""The parts of a gateway, made of the settings that are read at start."""

import ipaddress
import os
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from gateway.access.directory import Directory
from gateway.access.keyring import Keyring, RecordReaders
from gateway.admin.auth import AdminAccess
from gateway.admin.docs import OPEN_PATHS
from gateway.config.access import read_grant, read_tenant
from gateway.config.discovery import DnsConfig, RegistrationsConfig
from gateway.config.listen import Tls
from gateway.config.telemetry import library_installed
from gateway.config.tree import Config
from gateway.config.types import is_loopback, load_certificate
from gateway.console.console import Console
from gateway.console.open_sessions import OpenSessions
from gateway.console.sessions import Sessions
from gateway.core.access.browser_guard import BrowserGuard
from gateway.core.access.tenants import Tenants
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.fleet.registration import RegistrationTrust
from gateway.core.routing.placement import Placement
from gateway.core.usage.cost import Price
from gateway.counting.counter import PromptCounter
from gateway.fleet.discovery import DiscoverySettings
from gateway.fleet.dns import DnsName
from gateway.fleet.fleet import Fleet
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.registrations import RegistrationRules
from gateway.redis.client import RedisClient
from gateway.responses.kept_responses import KeptResponses, ResponseRules
from gateway.routing.router import Router, RoutingRules
from gateway.telemetry.metrics import LabelBounds
from gateway.telemetry.process_facts import read_process_facts
from gateway.telemetry.tracer import Tracer
from gateway.usage.ledger import Ledger, UsageRetention
from gateway.usage.transfer import UsageTransfer
from gateway.wiring.redis_settings import redis_settings
from gateway.wiring.reloadable import tokenizers

if TYPE_CHECKING:
    from gateway.telemetry.trace_export import TraceExport

log = structlog.get_logger("fleetgate")


def counters(config: Config) -> dict[str, PromptCounter]:
    """The counters of the models that have a tokenizer here, by the nodes' names for the models."""
    paths = tokenizers(config)
    if not paths:
        return {}
    from gateway.counting.files import load_counters  # its libraries are an optional extra

    return load_counters(paths)


def ledger(config: Config, prices: Mapping[str, Price], redis: RedisClient | None) -> Ledger | None:
    """None where usage is not stored."""
    if redis is None or not config.usage.stored:
        return None
    return Ledger(redis, _retention(config), prices)


def usage_transfer(config: Config, redis: RedisClient | None) -> UsageTransfer | None:
    """None where usage is not stored."""
    return None if redis is None or not config.usage.stored else UsageTransfer(redis, _retention(config))


def _retention(config: Config) -> UsageRetention:
    return UsageRetention(config.usage.records, config.usage.hours, config.usage.days)


def keyring(
    config: Config,
    redis: RedisClient | None,
    response_key: bytes,
    tenants: Tenants,
    on_blocked: Callable[[str], object] | None,
) -> Keyring | None:
    """The keys that are created at run time; None where none can be."""
    access = config.access
    if redis is None or not access.stored:
        return None
    reading = RecordReaders(partial(read_tenant, response_key), read_grant)
    return Keyring(redis, reading, tenants, access.cached_keys, access.outage, on_blocked)


def directory(config: Config, redis: RedisClient | None) -> Directory | None:
    """The tenants and keys that are created at run time; None as for `keyring`."""
    return None if redis is None or not config.access.stored else Directory(redis, config.access.audit_lines)


def kept_responses(
    config: Config, redis: RedisClient | None, response_key: bytes, rules: ResponseRules
) -> KeptResponses | None:
    """None where no responses are kept. A key that each start makes anew would open none of them after the next."""
    if redis is None or config.response_secret is None or config.responses.stored is False:
        return None
    return KeptResponses(redis, response_key, rules)


def admin_tokens(config: Config) -> dict[str, str]:
    """Name to token; empty where none is asked for."""
    admin = config.admin
    tokens = {named.name: named.token.reveal() for named in admin.tokens}
    return tokens if admin.token is None else {"admin": admin.token.reveal(), **tokens}


def admin_access(config: Config, throttle: WrongKeyThrottle, console: Console) -> AdminAccess:
    admin, tokens = config.admin, admin_tokens(config)
    open_paths = ["/health", "/ready", *console.open_paths]
    if tokens:  # without tokens all is open, but for pages of other sites
        open_paths += [*OPEN_PATHS, *(["/metrics"] if admin.open_metrics else [])]
    return AdminAccess(tokens, BrowserGuard("admin", admin.hosts), throttle, open_paths, console.sessions)


def console(config: Config, keys: Mapping[str, bytes], open_sessions: OpenSessions) -> Console:
    admin = config.admin
    because = "The console is for its own pages"
    guard = BrowserGuard("admin", admin.hosts, beyond=not is_loopback(admin.host), because=because)
    return Console(Sessions(keys, guard, open_sessions), guard, bool(admin_tokens(config)))


def public_guard(config: Config) -> BrowserGuard:
    listen = config.listen
    return BrowserGuard("listen", listen.hosts, listen.cors_origins, beyond=not is_loopback(listen.host))


def label_bounds(config: Config) -> LabelBounds:
    metrics = config.telemetry.metrics
    return LabelBounds(metrics.max_tenants, metrics.max_models, metrics.max_nodes)


def traces(config: Config) -> tuple[Tracer, "TraceExport"] | None:
    """Who records requests, and who sends their spans; None where none are recorded. Otherwise OpenTelemetry's library
    is not even loaded."""
    given = config.telemetry.traces
    if not given.enabled:
        return None
    if not library_installed():  # only variables asked for it, which may be meant for others
        log.warning("traces_unavailable", remedy="pip install 'fleetgate[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT")
        return None
    from gateway.telemetry.trace_export import ExportSettings, TraceExport  # its library is an optional extra

    endpoint = given.endpoint
    if endpoint is not None and urlsplit(endpoint).path in ("", "/"):
        endpoint = endpoint.rstrip("/") + "/v1/traces"
    export = TraceExport(
        ExportSettings(
            endpoint,
            {name: secret.reveal() for name, secret in given.headers.items()},
            given.timeout if "timeout" in given.model_fields_set or endpoint is not None else None,
            given.max_queue,
            given.flush,
            given.service_name or os.environ.get("OTEL_SERVICE_NAME") or "fleetgate",
            read_process_facts().version,
        )
    )
    content = given.content_bytes if given.content else 0
    return Tracer(given.share, given.follow_clients, content, export.export), export


def redis_client(config: Config) -> RedisClient | None:
    settings = redis_settings(config, config)
    return None if settings is None else RedisClient(settings)


def router(rules: RoutingRules, fleet: Fleet, redis: RedisClient | None) -> Router:
    return Router(fleet, rules, Placement(rules.affinity_ttl, rules.load_penalty), redis)


def discovery(config: Config) -> DiscoverySettings:
    registrations = config.discovery.registrations
    return DiscoverySettings(
        names=tuple(_dns_name(name) for name in config.discovery.dns),
        registrations=None if registrations is None else _registration_rules(registrations),
    )


def _dns_name(name: DnsConfig) -> DnsName:
    spec = NodeSpec(
        url=f"{name.scheme}://{name.host}",
        api_key=name.api_key.reveal() if name.api_key is not None else None,
        ca_file=str(name.ca_file) if name.ca_file is not None else None,
        max_concurrency=name.max_concurrency,
        weight=name.weight,
        priority_scheduling=name.priority_scheduling,
    )
    return DnsName(name.host, name.port, name.interval, spec)


def _registration_rules(given: RegistrationsConfig) -> RegistrationRules:
    trust = RegistrationTrust(
        secret=given.secret.reveal() if given.secret is not None else None,
        networks=tuple(ipaddress.ip_network(network) for network in given.networks),
        models=frozenset(given.models),
        skew=given.skew,
    )
    return RegistrationRules(
        trust=trust,
        interval=given.interval,
        api_key=given.api_key.reveal() if given.api_key is not None else None,
        ca_file=str(given.ca_file) if given.ca_file is not None else None,
    )


def tls(files: Tls | None) -> ssl.SSLContext | None:
    """The certificate that the listeners show; None where they speak plain HTTP."""
    if files is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, files.cert, files.key)
    return context
