"""The composition root: everything is made here, once, and handed to whoever needs it."""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from gateway import wiring
from gateway.access.audit import Audit
from gateway.access.gate import Gate
from gateway.admin.app import MetricsPage, RouteGroup, build_admin
from gateway.admin.drains import DrainRoutes
from gateway.admin.fleet import FleetRoutes
from gateway.admin.keys import KeyRoutes
from gateway.admin.reload import ReloadResult, ReloadRoutes
from gateway.admin.tenants import TenantRoutes
from gateway.admin.usage import UsageRoutes
from gateway.admission.admission import Admission
from gateway.api.body import RequestBounds
from gateway.api.connection_bounds import ConnectionBounds
from gateway.api.dispatcher import Dispatcher
from gateway.api.listener_settings import ListenerSettings
from gateway.api.middleware import Middleware
from gateway.api.open_files import bound_connections
from gateway.api.public import build_public
from gateway.config.access import ModelNames, tenants_of
from gateway.config.tree import Config
from gateway.config.usage import prices_of
from gateway.config.watch import ConfigWatch
from gateway.core.access.wrong_key_throttle import WrongKeyThrottle
from gateway.core.limits.metering import Meters
from gateway.core.memory import MemoryBudget
from gateway.fleet.discovery import Discovery
from gateway.fleet.drains import Drains
from gateway.fleet.fleet import Fleet
from gateway.fleet.model_watch import ModelWatch
from gateway.fleet.node import NodeSpec
from gateway.fleet.peer_views import PeerViews
from gateway.fleet.prober import Prober
from gateway.pipeline import Observer, Pipeline
from gateway.redis.presence import Presence
from gateway.telemetry.log_stream import LOG
from gateway.telemetry.logs import RequestLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.shortages import ResourceShortages
from gateway.upstream.relay import Relay
from gateway.usage.report import UsageReport

log = structlog.get_logger("fleetgate")

GAUGE_SECONDS = 5.0

ADMIN_CONNECTIONS = 48
"""Open at once on the admin listener of a process, half of them from one address: scrapes, probes and people. They are
within the files that `open_files` keeps back."""


class Gateway:
    """A gateway process: two ASGI applications and what runs behind them."""

    def __init__(self, config: Config, watch: ConfigWatch | None, response_key: bytes, shared: Path | None) -> None:
        self.config = self._started_with = config
        self._watch = watch
        self._response_key = response_key
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._started = False
        self.shortages = ResourceShortages()
        self.redis = wiring.redis_client(config)
        self.fleet = Fleet((), wiring.breaker_rules(config))
        self.router = wiring.router(config, self.fleet, self.redis)
        budgets, retries = config.budgets, wiring.retry_rules(config)
        timing = wiring.probe_timing(config)
        self.prober = Prober(self.fleet, timing, budgets.canary, budgets.native, self.shortages)
        self.relay = Relay(self.fleet, wiring.timing(config), config.requests.max_attempts, retries, self.shortages)
        self.relay.overshoot = wiring.overshoot(config)
        self.drains = Drains(self.fleet, self.redis, shared, self.relay.end_on)
        self.discovery = Discovery(wiring.discovery(config), self.fleet, self.redis, self._update_fleet)
        self.discovery.list_nodes(wiring.node_specs(config))
        self.metrics = Metrics()
        self._request_log = RequestLog(config.log.format)
        self.ledger = wiring.ledger(config, self.redis)
        tenants = tenants_of(config.tenants, config.access, response_key)
        self.keyring = wiring.keyring(config, self.redis, response_key, tenants)
        guesses = WrongKeyThrottle(config.access.wrong_keys_per_minute)
        self.gate = Gate(tenants, guesses, self.keyring, wiring.public_guard(config))
        self.audit = Audit(self.redis, config.access.audit_lines)
        self.presence = Presence(self.redis)
        self.presence.on_change(self.fleet.share_with)
        if self.redis is None:  # nobody tells of other gateways, but this one's own processes are known
            self.fleet.share_with(config.workers)
        self.peer_views = PeerViews(self.fleet, self.redis, shared)
        self.models = ModelWatch(self.fleet, [model.name for model in config.models])
        self.fleet_routes = FleetRoutes(self.router, self.metrics, self.peer_views, self.models)
        self.meters = Meters(prices_of(config.models))
        self.limiter = wiring.limiter(config, self.redis, self.presence, self.meters)
        self.admission = Admission(self.limiter, self.router)
        self.pipeline = Pipeline(
            wiring.policy(config, response_key),
            self.gate,
            self.admission,
            self.fleet,
            self.relay,
            self._observers(),
            wiring.counters(config),
            self.meters,
        )
        self.memory = MemoryBudget(config.requests.memory_for(config.workers))
        requests = config.requests
        self._bounds = RequestBounds(
            requests.max_body, config.timeouts.body, requests.max_json_values, requests.max_answer, self.memory
        )
        middleware = Middleware(
            build_public(self.pipeline, self.fleet), config.listen.cors_origins, config.listen.trusted_proxies
        )
        self.dispatcher = Dispatcher(self.pipeline, self._bounds, middleware)
        self.public = middleware.app
        page = MetricsPage(self.metrics, self._refresh_gauges)
        self.admin = build_admin(self.pipeline, self.fleet, wiring.admin_access(config), page, *self._admin_routes())

    def _observers(self) -> tuple[Observer, ...]:
        always = (self.metrics.request_ended, self._request_log.request_ended)
        return always if self.ledger is None else (*always, self.ledger.request_ended)

    def _admin_routes(self) -> Iterable[RouteGroup]:
        directory = wiring.directory(self.config, self.redis)
        yield TenantRoutes(directory, lambda: self.config.tenants, lambda: ModelNames(self.config.models), self.audit)
        yield KeyRoutes(directory, lambda: self.config.tenants, lambda: ModelNames(self.config.models))
        yield DrainRoutes(self.fleet, self.drains, self.audit)
        yield UsageRoutes(UsageReport(self.redis) if self.redis is not None and self.ledger is not None else None)
        yield self.fleet_routes
        yield ReloadRoutes(self.reload, self.audit)

    def listener_settings(self, admin_port: int | None) -> ListenerSettings:
        """What the listeners' protocol has to know."""
        config = self.config
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
            tls=wiring.tls(config.listen.tls),
            dispatcher=self.dispatcher,
            on_shutdown=self.begin_shutdown,
        )

    async def start(self) -> None:
        """Connect to Redis, begin to probe nodes and to watch the config file."""
        if self.redis is not None:
            await self.redis.start()
            await self.presence.start()
        if self.limiter is not None:
            self.limiter.start()
        if self.keyring is not None:
            self.keyring.start()
        if self.ledger is not None:
            self.ledger.start()
        self._started = True
        self.prober.sync_tasks()
        self._tasks.append(asyncio.create_task(self.drains.run(), name="drains"))
        self.discovery.start()
        self._tasks.append(asyncio.create_task(self._every(GAUGE_SECONDS, self._refresh_gauges), name="gauges"))
        self._tasks.append(asyncio.create_task(self.models.run(), name="models"))
        self._tasks.append(asyncio.create_task(self.peer_views.run(self.fleet_routes.own), name="lookout"))
        if self._watch is not None:
            self._tasks.append(asyncio.create_task(self._follow_config(self._watch), name="config watch"))

    async def stop(self) -> None:
        """End the background work and close the idle connections. Requests have ended before. Also after a `start`
        that was broken off."""
        self._started = False  # a reload begins no probes any more
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.peer_views.withdraw()
        await self.discovery.stop()
        await self.prober.stop()
        self.relay.pools.close()
        if self.keyring is not None:
            await self.keyring.stop()
        if self.limiter is not None:
            await self.limiter.stop()
        if self.ledger is not None:
            await self.ledger.stop()
        if self.redis is not None:
            await self.presence.stop()
            await self.redis.stop()
        self._request_log.flush()
        self.metrics.flush()

    def announce_shutdown(self) -> float:
        """`/ready` says no from now on, and answers close their connections; for how many seconds requests are to be
        served nevertheless."""
        self.pipeline.leaving = True
        seconds = self.config.timeouts.announce
        log.info("leaving", announced_for_s=seconds)
        return seconds

    def begin_shutdown(self) -> None:
        """Streams may finish until the deadline; what is still open then is ended with an error event."""
        if not self._draining:
            self._draining = True
            log.info("draining", open_requests=self.relay.open_exchanges, deadline_s=self.config.timeouts.shutdown)
            asyncio.get_running_loop().call_later(self.config.timeouts.shutdown, self.relay.close_all)

    async def reload(self) -> ReloadResult:
        """Read the configuration again and take it over, here and (by way of the watch) in the other processes."""
        if self._watch is None:
            return ReloadResult(ok=False, problems=["this gateway was started without a config file"])
        result = self._reload_here(self._watch)
        if result.ok:
            self._watch.notify_siblings()
        return result

    @property
    def has_file(self) -> bool:
        """Whether there is a config file, which can be read again."""
        return self._watch is not None

    def reload_soon(self) -> None:
        """Read the config file again, at a signal: the log says what came of it."""
        if self._watch is not None:
            self._reload_here(self._watch)

    def _reload_here(self, watch: ConfigWatch) -> ReloadResult:
        config, problems = watch.read()
        self.metrics.reloaded(config is not None)
        if config is None:
            log.error("config_refused", problems=problems)
            return ReloadResult(ok=False, problems=problems)
        needs_restart = wiring.needs_restart(self._started_with, config)
        self._apply(config)
        log.info("config_reloaded", needs_restart=needs_restart)
        return ReloadResult(ok=True, needs_restart=needs_restart)

    def _apply(self, config: Config) -> None:
        """Swap what requests will see from now on; those under way keep what they began with. All that is made anew is
        made before the first swap: where that fails, the old configuration is in force whole."""
        policy = wiring.policy(config, self._response_key)
        tenants = tenants_of(config.tenants, config.access, self._response_key)
        prices, terms = prices_of(config.models), wiring.limit_terms(config)
        limiter = self.limiter or wiring.limiter(config, self.redis, self.presence, self.meters)
        timing, overshoot, retries = wiring.timing(config), wiring.overshoot(config), wiring.retry_rules(config)
        memory = config.requests.memory_for(config.workers)
        probes, breaker, routing = (
            wiring.probe_timing(config),
            wiring.breaker_rules(config),
            wiring.routing_rules(config),
        )
        self.discovery.list_nodes(wiring.node_specs(config))

        self.config = config
        self.pipeline.policy = policy
        self.gate.reload(tenants, config.access.wrong_keys_per_minute)
        if limiter is not None and self.limiter is None:
            self.limiter = self.admission.limiter = limiter
            limiter.start()
        if self.limiter is None:
            self.meters.prices = prices
        else:
            self.limiter.reload(terms, prices)
        if self.ledger is not None:
            self.ledger.prices = prices
        self.relay.timing = timing
        self.relay.overshoot = overshoot
        self.relay.failover.max_attempts = config.requests.max_attempts
        self.relay.failover.rules = retries
        self.memory.limit = memory
        self._bounds.max_body = config.requests.max_body
        self._bounds.max_values = config.requests.max_json_values
        self._bounds.max_answer = config.requests.max_answer
        self._bounds.body_timeout = config.timeouts.body
        self.prober.retime(probes)
        self.prober.canary, self.prober.native = config.budgets.canary, config.budgets.native
        self.router.apply_rules(routing, config.routing.remember, config.routing.crowding)
        self.fleet.apply_rules(breaker)
        self.models.listed = [model.name for model in config.models]

    def _update_fleet(self, specs: list[NodeSpec]) -> None:
        """The fleet has changed. Requests under way on a node that left go on to their end."""
        self.fleet.update(specs)
        self.relay.pools.keep_only(self.fleet.nodes)
        if self._started:
            self.prober.sync_tasks()

    async def _follow_config(self, watch: ConfigWatch) -> None:
        async for _ in watch.changes():
            try:
                self._reload_here(watch)
            except Exception:
                log.exception("reload_failed_unexpectedly")

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        while True:
            try:
                work()
            except Exception:
                log.exception("background_work_failed", work=work.__name__)
            await asyncio.sleep(seconds)

    def _refresh_gauges(self) -> None:
        if self.ledger is not None:
            self.metrics.ledger_state(self.ledger.waiting, self.ledger.dropped)
        self.metrics.log_state(LOG.failed)
        self.metrics.memory_state(self.memory.held, self.memory.limit)
        if self.shortages.found_now("accepting connections"):
            self.relay.pools.drop_idle()
        self.metrics.shortages_state(self.shortages.counts)
        self.metrics.models_state({each.name: each.ready for each in self.models.states()})
        self.metrics.fleet_state(self.relay.open_exchanges, [node.facts for node in self.fleet.nodes])
        if self.redis is not None:
            self.metrics.redis_state(self.redis.up, self.redis.outages, self.presence.live)
            self.metrics.redis_refusals(self.redis.refusals.count, len(self.redis.refusals.standing))
        if self.limiter is not None:
            self.metrics.limits_state(len(self.limiter.live), self.limiter.waiting, self.limiter.dropped)


def build_app(
    config: Config, watch: ConfigWatch | None = None, response_key: bytes | None = None, shared: Path | None = None
) -> Gateway:
    """Put a gateway together. Nothing runs before `start`.

    `response_key` seals response ids where the config has no `response_secret`; None makes a new one. `shared` is a
    directory that all worker processes of this gateway see; None where there is only one.
    """
    secret = config.response_secret
    key = secret.reveal().encode() if secret is not None else response_key or os.urandom(32)
    return Gateway(config, watch, key, shared)
