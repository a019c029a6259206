"""The composition root: makes every part of a gateway once, and hands it to the parts that need it."""

import asyncio
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from gateway.access.audit import Audit
from gateway.access.blocks import Blocks
from gateway.access.directory import Directory
from gateway.access.gate import Gate
from gateway.access.records import TenantRecord
from gateway.admin.app import MetricsPage, RouteGroup, build_admin
from gateway.admin.blocks import BlockRoutes
from gateway.admin.drains import DrainRoutes
from gateway.admin.fleet import FleetRoutes
from gateway.admin.fleet_sources import FleetSources
from gateway.admin.keys import KeyRoutes
from gateway.admin.limits import LimitRoutes
from gateway.admin.reload import ReloadRoutes
from gateway.admin.tenants import TenantRoutes
from gateway.admin.transfer import TransferRoutes
from gateway.admin.usage import UsageRoutes
from gateway.admission.admission import Admission
from gateway.admission.queue import RequestQueue
from gateway.api.body import RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.dispatcher import Dispatcher
from gateway.api.listener_settings import ListenerSettings
from gateway.api.middleware import Middleware
from gateway.api.open_files import bound_connections
from gateway.api.public import build_public
from gateway.config.access import read_tenant
from gateway.config.models import ModelNames
from gateway.config.tree import Config
from gateway.config.watch import ConfigWatch
from gateway.console.exchange import ConsoleExchange
from gateway.console.feed import ConsoleFeed
from gateway.console.fleet_state import FleetState
from gateway.console.live import EndRoutes
from gateway.console.open_requests import OpenRequests
from gateway.console.open_sessions import OpenSessions
from gateway.console.session_routes import SessionRoutes
from gateway.console.sessions import session_keys
from gateway.console.tenant_figures import TenantFigures
from gateway.console.tenant_list import TenantList
from gateway.core.access.tenants import Tenant
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.console.session_token import session_mark
from gateway.core.limits.metering import Meters
from gateway.fleet.discovery import Discovery
from gateway.fleet.drains import Drains
from gateway.fleet.fleet import Fleet
from gateway.fleet.model_watch import ModelWatch
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.peer_views import PeerViews
from gateway.fleet.prober import Prober
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.reading.reader import BodyReader
from gateway.redis.presence import Presence
from gateway.request_record import Observer
from gateway.resume.moves import Moves
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.logs import RequestLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.process_facts import read_process_facts
from gateway.telemetry.shortages import ResourceShortages
from gateway.upstream.relay import Relay
from gateway.usage.report import UsageReport
from gateway.usage.request_lookup import RequestLookup
from gateway.wiring import parts
from gateway.wiring.gauges import Gauges
from gateway.wiring.reload import ConfigReload
from gateway.wiring.reloadable import ReloadableSettings, reloadable

log = structlog.get_logger("fleetgate")

ADMIN_CONNECTIONS = 48
"""Connections open at once on the admin listener of a process, half of them from one address: scrapes, probes and
people. `open_files` keeps files back for them."""


class Gateway:
    """One gateway process: two ASGI applications, and the background work behind them."""

    def __init__(
        self,
        config: Config,
        watch: ConfigWatch | None,
        response_key: bytes,
        shared: Path | None,
        log_stream: LogStream,
    ) -> None:
        self.config = self._started_with = config
        self._response_key = response_key
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._started = False
        settings = reloadable(config, config, response_key)
        self.shortages = ResourceShortages()
        self.redis = parts.redis_client(config)
        self.fleet = Fleet((), settings.breaker)
        self.router = parts.router(settings.routing, self.fleet, self.redis)
        self.queue = RequestQueue(self.router, settings.queue)
        self.prober = Prober(self.fleet, settings.probes, self.shortages, self.redis)
        self.relay = Relay(self.fleet, settings.relay, self.shortages)
        self.queue.is_wanted = self.relay.resumes.wants_place
        self.moves = Moves(self.fleet, self.relay)
        self.pressure = ThinkingPressure(
            settings.pressure, self.fleet, self.relay, self.redis, self.queue.expected_wait_for
        )
        self.drains = Drains(self.fleet, self.redis, shared, self.moves.follow)
        self.discovery = Discovery(parts.discovery(config), self.fleet, self.redis, self._update_fleet)
        self.discovery.configure(settings.nodes)
        self.metrics = Metrics(parts.label_bounds(config), shared)
        self.metrics.known_tenants(tenant.name for tenant in config.tenants)
        self._request_log = RequestLog(config.log.format, config.log.level, log_stream)
        self.ledger = parts.ledger(config, settings.prices, self.redis)
        self.blocks = None if self.redis is None else Blocks(self.redis)
        on_blocked = None if self.blocks is None else self.blocks.learn
        self.keyring = parts.keyring(config, self.redis, response_key, settings.tenants, on_blocked)
        self._wrong_keys = WrongKeyThrottle(settings.wrong_keys_per_minute)
        self._wrong_tokens = WrongKeyThrottle(settings.wrong_keys_per_minute)
        self.gate = Gate(settings.tenants, self._wrong_keys, self.keyring, parts.public_guard(config), self.blocks)
        self.audit = Audit(self.redis, config.access.audit_lines)
        self.presence = Presence(self.redis)
        self.presence.on_change(self.fleet.share_with)
        if self.redis is None:  # the other gateways are unknown, but not this one's own processes
            self.fleet.share_with(config.workers)
        self.peer_views = PeerViews(self.fleet, self.redis, shared)
        self.models = ModelWatch(self.fleet, settings.models)
        self.models.configure(settings.models, settings.named_models)
        self.fleet_sources = FleetSources(
            self.router, self.metrics, self.peer_views, self.models, self.queue, self.pressure, self.presence
        )
        self.meters = Meters(settings.prices)
        self.admission = Admission(None, self.router, self.queue)
        self.reader = BodyReader()
        traces = parts.traces(config)
        self._tracer = None if traces is None else traces[0]
        self.trace_export = None if traces is None else traces[1]
        self.kept = parts.kept_responses(config, self.redis, response_key, settings.responses)
        self.pipeline = Pipeline(
            settings.requests,
            self.gate,
            self.admission,
            self.fleet,
            self.relay,
            self._observers(),
            parts.counters(config),
            self.meters,
            self.pressure,
            self.reader,
            self._tracer,
            self.kept,
        )
        self._configure_limits(settings)
        self._bounds = RequestBounds(settings.bodies)
        self.memory = self._bounds.memory
        middleware = Middleware(
            build_public(self.pipeline, self.fleet), config.listen.cors_origins, config.listen.trusted_proxies
        )
        self.dispatcher = Dispatcher(self.pipeline, self._bounds, middleware)
        self.public = middleware.app
        self._gauges = Gauges(
            self.metrics,
            self.fleet,
            self.models,
            self.relay,
            self.admission,
            self.memory,
            self.shortages,
            self.presence,
            self.redis,
            self.ledger,
            log_stream,
            self.pressure,
            self.trace_export,
        )
        self.config_reload = ConfigReload(watch, config, self.apply, self.metrics.reloaded, self.audit.note)
        self._directory = parts.directory(config, self.redis)
        keys = session_keys(parts.admin_tokens(config), response_key)
        marks = {name: session_mark(key) for name, key in keys.items()}
        self.open_sessions = OpenSessions(self.redis, shared, marks)
        console = parts.console(config, keys, self.open_sessions)
        self.console_feed = self._make_console_feed(shared)
        self.open_sessions.on_end = self.console_feed.viewers.drop_session
        access = parts.admin_access(config, self._wrong_tokens, console)
        page = MetricsPage(self.metrics, self._gauges.refresh)
        self.admin = build_admin(self.pipeline, self.fleet, access, page, *self._admin_routes())
        console.add_to(self.admin, access, self.console_feed)
        self.dispatcher.may_play = console.may_play

    def apply(self, config: Config) -> None:
        """Bring `config` into force for requests that come from now on, but for `READ_AT_START`. All values are made
        before the first part takes one: where that fails, the old configuration stays in force."""
        settings = reloadable(config, self._started_with, self._response_key)
        self.config = config
        self._configure(settings)

    def _configure(self, settings: ReloadableSettings) -> None:
        """Hand every part its settings, as its constructor got them."""
        if self.redis is not None and settings.redis is not None:
            self.redis.configure(settings.redis)
        self.pipeline.settings = settings.requests
        self.gate.configure(settings.tenants)
        self._wrong_keys.configure(settings.wrong_keys_per_minute)
        self._wrong_tokens.configure(settings.wrong_keys_per_minute)
        self._configure_limits(settings)
        self.meters.prices = settings.prices
        if self.ledger is not None:
            self.ledger.prices = settings.prices
        self.relay.configure(settings.relay)
        self._bounds.configure(settings.bodies)
        self.prober.configure(settings.probes)
        self.fleet.configure(settings.breaker)
        self.router.configure(settings.routing)
        self.queue.configure(settings.queue)
        self.models.configure(settings.models, settings.named_models)
        self.pressure.configure(settings.pressure)
        if self.kept is not None:
            self.kept.rules = settings.responses
        self.discovery.configure(settings.nodes)

    def _configure_limits(self, settings: ReloadableSettings) -> None:
        """There is no limiter while nothing is limited and, without Redis, nothing can come to be."""
        if self.limiter is not None:
            self.limiter.configure(settings.limits)
        elif self.redis is not None or settings.limited:
            limiter = self.admission.limiter = Limiter(settings.limits, self.meters, self.redis, self.presence)
            if self._started:
                limiter.start()

    @property
    def limiter(self) -> Limiter | None:
        """None while nothing can be limited."""
        return self.admission.limiter

    def _observers(self) -> tuple[Observer, ...]:
        found: list[Observer] = [
            self.metrics.request_ended,
            self._request_log.request_ended,
            self.models.dialects.request_ended,
        ]
        if self.ledger is not None:
            found.append(self.ledger.request_ended)
        return tuple(found)

    def _admin_routes(self) -> Iterable[RouteGroup]:
        directory = self._directory
        yield TenantRoutes(
            directory, lambda: self.config.tenants, lambda: ModelNames.of(self.config.models), self.audit
        )
        yield KeyRoutes(directory, lambda: self.config.tenants, lambda: ModelNames.of(self.config.models))
        find = partial(self._find_tenant, directory)
        yield LimitRoutes(find, lambda: self.limiter)
        yield BlockRoutes(self.blocks, find, self.audit)
        yield DrainRoutes(self.fleet, self.drains, self.audit)
        kept = self.redis if self.ledger is not None else None
        yield UsageRoutes(None if kept is None else UsageReport(kept), None if kept is None else RequestLookup(kept))
        usage = parts.usage_transfer(self.config, self.redis)
        yield TransferRoutes(
            directory,
            self.blocks,
            usage,
            lambda: self.config.tenants,
            lambda: ModelNames.of(self.config.models),
            self.audit,
        )
        yield EndRoutes(self.console_feed, self.audit)
        yield SessionRoutes(self.open_sessions, self.audit)
        yield FleetRoutes(self.fleet_sources)
        yield ReloadRoutes(self.config_reload.reload)

    def _make_console_feed(self, shared: Path | None) -> ConsoleFeed:
        report = None if self.redis is None or self.ledger is None else UsageReport(self.redis)
        state = FleetState(self.fleet_sources)
        name = secrets.token_hex(8)
        figures = TenantFigures(
            TenantList(lambda: self.gate.tenants, self._directory, self._read_record).all,
            lambda: self.limiter,
            lambda: frozenset() if self.blocks is None else self.blocks.subjects,
            report,
            lambda: bool(self.meters.prices),
        )
        exchange = ConsoleExchange(self.fleet, self.redis, shared, name)
        requests = OpenRequests(self.pipeline, name)
        feed = ConsoleFeed(name, state, requests, figures, exchange, self.metrics.flush, self._console_facts)
        self.metrics.readers.append(feed.note)
        return feed

    def _console_facts(self) -> dict[str, Any]:
        """What the console is told of this gateway's configuration."""
        listen = self._started_with.listen
        return {
            "version": read_process_facts().version,
            "public": {"port": listen.port, "tls": listen.tls is not None},
            "keys_needed": self.gate.tenants.anonymous is None,
            "stores_tenants": self._directory is not None,
            "stores_usage": self.ledger is not None,
            "has_file": self.config_reload.has_file,
            "prices": {model: asdict(price) for model, price in self.meters.prices.items()},
            "aliases": sorted(alias.name for model in self.config.models for alias in model.aliases),
        }

    async def _find_tenant(self, directory: Directory | None, name: str) -> Tenant | None:
        """A tenant of the config file, or else of Redis. Raises `RedisUnavailable`."""
        tenants = self.gate.tenants
        if tenants.anonymous is not None and tenants.anonymous.tenant.name == name:
            return tenants.anonymous.tenant
        record = None if name in tenants.by_name or directory is None else await directory.tenant(name)
        return tenants.by_name.get(name) if record is None else self._read_record(record)

    def _read_record(self, record: TenantRecord) -> Tenant | None:
        return read_tenant(self._response_key, record.name, record.settings)

    def listener_settings(self, admin_port: int | None) -> ListenerSettings:
        """The settings of the listeners' protocol."""
        config = self._started_with
        return ListenerSettings(
            admin_port=admin_port,
            connections=ConnectionBounds(
                bound_connections(config.listen.max_connections),
                config.listen.max_connections_per_address,
                self.dispatcher.middleware.proxies,
            ),
            admin_connections=ConnectionBounds(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS // 2, ()),
            max_headers=config.requests.max_headers,
            headers_timeout=config.timeouts.headers,
            client_stall=config.timeouts.client_stall,
            bounds=self._bounds,
            tls=parts.tls(config.listen.tls),
            dispatcher=self.dispatcher,
            on_shutdown=self.begin_shutdown,
        )

    async def start(self) -> None:
        """Connect to Redis, and begin all background work."""
        if self.redis is not None:
            await self.redis.start()
            await self.presence.start()
        if self.router.groups is not None:
            await self.router.groups.start()
        for part in (self.limiter, self.keyring, self.blocks, self.ledger):
            if part is not None:
                part.start()
        if self.trace_export is not None:
            self.trace_export.start()
        self._started = True
        self.prober.sync()
        self.discovery.start()
        for name, work in (
            ("drains", self.drains.run()),
            ("gauges", self._gauges.run()),
            ("probe sharing", self.prober.share()),
            ("models", self.models.run()),
            ("pressure", self.pressure.run()),
            ("peer views", self.peer_views.run(self.fleet_sources.own)),
            ("config watch", self.config_reload.run()),
            ("console", self.console_feed.run()),
            ("console sessions", self.open_sessions.run()),
        ):
            self._tasks.append(asyncio.create_task(work, name=name))
        if self.router.peer_loads is not None:
            self._tasks.append(asyncio.create_task(self.router.peer_loads.run(), name="peer loads"))

    async def stop(self) -> None:
        """End the background work and close idle connections. Requests have ended before. Also called after a `start`
        that failed or was cancelled."""
        self._started = False  # from now on, an update of the fleet begins no probes
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.moves.stop()
        await self.queue.stop()
        await self.reader.stop()
        await self.peer_views.withdraw()
        await self.console_feed.stop()
        await self.discovery.stop()
        await self.prober.stop()
        self.relay.pools.close()
        for part in (self.keyring, self.blocks, self.limiter, self.ledger):
            if part is not None:
                await part.stop()
        if self.redis is not None:
            if self.router.groups is not None:
                await self.router.groups.stop()
            await self.presence.stop()
            await self.redis.stop()
        if self.trace_export is not None:
            await self.trace_export.stop()
        self._request_log.close()
        self.metrics.flush()

    def announce_shutdown(self) -> float:
        """Have `/ready` answer 503 and answers close their connections; for how many seconds requests are still served
        as before."""
        self.pipeline.leaving = True
        seconds = self.config.timeouts.shutdown_delay
        log.info("shutdown_announced", delay_s=seconds)
        return seconds

    def begin_shutdown(self) -> None:
        """Streams may finish until the deadline; what is still open then is ended with an error event."""
        if not self._draining:
            self._draining = True
            self.console_feed.close()
            seconds = self._started_with.timeouts.shutdown
            log.info("shutdown_started", open_requests=self.relay.open_exchanges, deadline_s=seconds)
            asyncio.get_running_loop().call_later(seconds, self._end_requests)

    def _end_requests(self) -> None:
        """The shutdown's deadline has passed."""
        self.queue.close()
        self.relay.close_all()

    def _update_fleet(self, specs: list[NodeSpec]) -> None:
        """Make the fleet these nodes. Requests that run on a node that has left go on to their end."""
        self.fleet.update(specs)
        self.relay.pools.keep_only(self.fleet.nodes)
        if self._started:
            self.prober.sync()


def build_app(
    config: Config,
    watch: ConfigWatch | None = None,
    response_key: bytes | None = None,
    shared: Path | None = None,
    log_stream: LogStream | None = None,
) -> Gateway:
    """Put a gateway together. Nothing runs before `start`.

    `response_key` seals response ids where the config has no `response_secret`; None makes a new one. `shared` is a
    directory that all worker processes of this gateway see; None where there is only one. `log_stream` is where request
    lines are written; None makes a new one.
    """
    secret = config.response_secret
    key = secret.reveal().encode() if secret is not None else response_key or os.urandom(32)
    return Gateway(config, watch, key, shared, log_stream or LogStream())
