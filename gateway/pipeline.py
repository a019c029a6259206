"""The pipeline: one request, from its headers to its record.

`Pipeline.answer` has its steps in their order. A step that cannot be done raises a `GatewayError`, which is the
client's answer in its own dialect.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import structlog

from gateway.access.gate import Gate
from gateway.admission.admission import Admission
from gateway.core.access.tenants import Identity, Tenant
from gateway.core.bodies import LARGE, parse_steps
from gateway.core.dialects import Ask, Dialect
from gateway.core.dialects.response_ids import NONCE_BYTES, open_id
from gateway.core.errors import ClientGone, GatewayError, InternalError, InvalidRequest, NotFound
from gateway.core.limits.metering import ASSUMED_OUTPUT, Meters, plan_amounts
from gateway.core.limits.rules import NOTHING
from gateway.core.models import Models
from gateway.core.plan import IdMinting, Plan, make_plan
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.policy import PolicyBook
from gateway.core.thinking.sizes import BYTES_PER_TOKEN
from gateway.core.usage.charge import Charge, RequestOutcome, charge
from gateway.core.usage.token_usage import Usage, tokens_lost
from gateway.counting.counter import PromptCounter
from gateway.fleet.fleet import Fleet
from gateway.limits.arrivals import Arrival
from gateway.limits.reservation import Reservation
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.relay import Relay, in_turns, shutting_down

log = structlog.get_logger("fleetgate.pipeline")


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """What the config decides about requests. A reload swaps it whole; a request keeps the one it began with."""

    models: Models
    response_key: bytes
    terms: PolicyBook = field(default_factory=PolicyBook)
    over_chat: frozenset[str] = frozenset()
    """Models whose nodes are asked in chat, whatever the dialect."""


Observer = Callable[[RequestStats], None]


class _RequestRecord:
    """What one request holds, and its end: on every way out of `with`, once, the client gets the error, and the
    observers get `stats`."""

    __slots__ = ("_began", "_call", "_dialect", "_meters", "_observers", "arrival", "plan", "reservation", "stats")

    def __init__(
        self, call: DownstreamRequest, dialect: Dialect, meters: Meters, observers: tuple[Observer, ...]
    ) -> None:
        self._began = time.perf_counter()
        self._meters = meters
        self._call = call
        self._dialect = dialect
        self._observers = observers
        self.stats = RequestStats(call.request_id, dialect.name)
        self.arrival: Arrival | None = None
        self.reservation: Reservation | None = None
        self.plan: Plan | None = None

    def of(self, identity: Identity) -> Identity:
        self.stats.tenant = identity.tenant.name
        self.stats.key = identity.key
        return identity

    def asked(self, ask: Ask) -> Ask:
        self.stats.stream = ask.stream
        self.stats.request_bytes = len(ask.raw)
        return ask

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if self.arrival is not None:
            self.arrival.release()
        if error is not None:
            try:
                self._fail(error)
            except Exception:  # what the request holds is released all the same
                log.exception("error_answer_failed_unexpectedly", request_id=self._call.request_id)
        stats = self._conclude()
        if self.reservation is not None:
            self.reservation.settle(stats)
        for observer in self._observers:
            try:
                observer(stats)
            except Exception:
                log.exception("observer_failed", request_id=stats.request_id)
        return isinstance(error, Exception)

    def _fail(self, error: BaseException) -> None:
        """Note how the request ended, and send its client the error. An error after the client has left is not its
        ending, unless it is the gateway's own."""
        if not isinstance(error, Exception):  # cancelled: the server ends what is left at its shutdown's deadline
            error = shutting_down()
        elif not isinstance(error, GatewayError):
            request = self._call.request_id
            log.error("request_failed", request_id=request, dialect=self._dialect.name, exc_info=error)
            error = _internal_error()
        left = self._call.gone and not isinstance(error, InternalError)
        self.stats.ending = ClientGone.default_code if left else error.slug
        self._call.fail(error)

    def _conclude(self) -> RequestStats:
        """The facts that are known at its end."""
        call, stats = self._call, self.stats
        stats.at = time.time()
        stats.status = call.status
        if stats.ending == "ok" and (stats.node_failed or call.status >= 400):
            stats.ending = "node_error"
        stats.duration = time.perf_counter() - self._began
        if stats.first_byte is not None:
            stats.ttft = stats.first_byte - self._began
        end = RequestOutcome(stats.ending, call.status, stats.attempts if stats.sent else 0)
        if self.plan is not None:
            stats.usage, stats.estimated = self._charge(end, self.plan)
        stats.lost = stats.lost_events + (stats.work.events if end.failed else 0)
        if stats.lost_seconds:
            stats.lost += tokens_lost(stats.lost_seconds, stats.duration, stats.reported)
        stats.computed = self._dialect.computes
        stats.unauthenticated = call.address if stats.tenant is None else None
        return stats

    def _charge(self, end: RequestOutcome, plan: Plan) -> Charge:
        """What the request is charged."""
        stats, reservation = self.stats, self.reservation
        meter = self._meters.of(stats.tenant or "", plan.model or "")
        if reservation is not None:
            planned = reservation.planned
        elif stats.reported is not None and end.ending == "ok":
            planned = NOTHING  # it need not be measured
        else:
            planned = plan_amounts(plan, meter, ASSUMED_OUTPUT)
        try:
            return charge(end, stats.reported, stats.work, plan, planned, meter)
        except Exception:  # it is charged as planned, and the reservation ends all the same
            log.exception("charging_failed", request_id=self._call.request_id)
            return Charge(Usage(planned.input, planned.output), estimated=True)


class Pipeline:
    """Everything that a request passes through, put together once."""

    def __init__(
        self,
        policy: RequestSettings,
        gate: Gate,
        admission: Admission,
        fleet: Fleet,
        relay: Relay,
        observers: tuple[Observer, ...],
        counters: Mapping[str, PromptCounter],
        meters: Meters,
    ) -> None:
        """`counters` are of the models that have a tokenizer here; the limiter of `admission` has the same `meters`."""
        self.policy = policy
        self.gate = gate
        self.admission = admission
        self.leaving = False
        """The process will stop soon: whoever spreads requests over gateways should go elsewhere."""
        self._fleet = fleet
        self._relay = relay
        self._observers = observers
        self._counters = counters
        self._meters = meters

    async def answer(self, call: DownstreamRequest, dialect: Dialect) -> None:
        """Serve one request that asks a model for something."""
        policy = self.policy
        with _RequestRecord(call, dialect, self._meters, self._observers) as record:
            who = record.of(self.gate.known(call.headers) or await self.gate.find(call.headers, call.address))
            deadline = read_deadline(call.headers)
            waits = call.weighty
            if waits:
                record.arrival = self.admission.arrive(who, dialect.anthropic)
            raw = await call.read_body(who.tenant.name)
            if len(raw) > LARGE:
                ask = record.asked(await self._read_large(call, dialect, raw, record.arrival))
            else:
                if record.arrival is not None:
                    record.arrival.recheck()
                ask = record.asked(dialect.read(raw))
            if waits:  # its key may have been revoked while its body came
                who = record.of(await self.gate.identify(call.headers, call.address))
            model = record.stats.model = policy.models.resolve(ask.model, who, self._fleet.served)
            if model in self._counters:
                record.stats.counted = await self._count(policy, ask, dialect, who.tenant, model)
            plan = record.plan = self._plan(policy, ask, dialect, who.tenant, model, record.stats.counted)
            if len(raw) > LARGE:
                await asyncio.sleep(0)  # where it had to be written anew, that was a step
            if plan.headers:
                call.add_headers(plan.headers)
            admitted = await self.admission.admit(who, plan, call.headers, call.add_headers, record.arrival)
            record.reservation = admitted.reservation
            await self._relay.serve(plan, call, record.stats, deadline, admitted.lease, admitted.another)

    async def stored(
        self, call: DownstreamRequest, dialect: Dialect, method: str, response_id: str, suffix: str
    ) -> None:
        """Serve a request about a stored response (retrieve, cancel): its node answers, to its owner only.

        `suffix` is what follows the id in the node's path, the query included.
        """
        policy = self.policy
        with _RequestRecord(call, dialect, self._meters, self._observers) as record:
            who = record.of(await self.gate.identify(call.headers, call.address))
            deadline = read_deadline(call.headers)
            waits = call.weighty
            raw = await call.read_body(who.tenant.name)
            if waits:
                who = record.of(await self.gate.identify(call.headers, call.address))
            ask = record.asked(Ask(raw, {}, None, stream="stream=true" in suffix.lower()))
            node = self._node_of(policy, response_id, who.tenant, "response_id")
            grant = Grant(hide=policy.terms.may_hide(who.tenant.rules))  # whose model it was, only the node knows
            plan = Plan(ask, dialect, None, ask.raw, pinned_to=node, grant=grant)
            path = f"{dialect.path}/{response_id}{suffix}"
            limited = method == "GET"  # a cancellation ends work: that is always possible
            admitted = await self.admission.admit(who, plan, call.headers, call.add_headers, limited=limited)
            record.reservation = admitted.reservation
            lease, another = admitted.lease, admitted.another
            await self._relay.serve(plan, call, record.stats, deadline, lease, another, method, path)

    async def _read_large(self, call: DownstreamRequest, dialect: Dialect, raw: bytes, arrival: Arrival | None) -> Ask:
        """One such body at a time, in steps."""
        async with self._relay.large:
            if arrival is not None:
                arrival.recheck()
            await asyncio.sleep(0)
            ask = dialect.read(raw, await in_turns(parse_steps(raw), call))
            await asyncio.sleep(0)
            return ask

    async def _count(
        self, policy: RequestSettings, ask: Ask, dialect: Dialect, tenant: Tenant, model: str
    ) -> int | None:
        return await self._counters[model].count(ask, dialect, policy.terms.of(tenant.rules, model))

    def _plan(
        self, policy: RequestSettings, ask: Ask, dialect: Dialect, tenant: Tenant, model: str, counted: int | None
    ) -> Plan:
        pinned_to = (
            None if ask.continues is None else self._node_of(policy, ask.continues, tenant, "previous_response_id")
        )
        minting = None
        if dialect.mints_ids:
            minting = IdMinting(policy.response_key, os.urandom(NONCE_BYTES), tenant.name)
        terms = window = None
        if not policy.terms.silent or tenant.rules is not None:
            terms = policy.terms.of(tenant.rules, model)
        if terms is not None or ask.body.get("ignore_eos") is True:
            window = self._fleet.window(model)
        limiter = self.admission.limiter
        ratio = BYTES_PER_TOKEN if limiter is None else limiter.bytes_per_token(tenant.name, model)
        plan = make_plan(ask, dialect, model, minting, pinned_to, terms, window, ratio, tenant.cache_salt, counted)
        return plan._replace(over_chat=True) if model in policy.over_chat else plan

    def _node_of(self, policy: RequestSettings, response_id: str, tenant: Tenant, param: str) -> bytes:
        """The tag of the node that holds a stored response; `NotFound` for all but its owner, blaming `param`."""
        node = open_id(policy.response_key, response_id, tenant.name)
        if node is None or self._fleet.by_tag(node) is None:
            raise NotFound(
                f"Unknown response {response_id!r}: it exists as long as its node, for the tenant that created it.",
                param=param,
                code="response_not_found",
            )
        return node


def read_deadline(headers: Mapping[bytes, bytes]) -> float:
    """Loop time until which the client waits: `x-request-timeout` seconds from now, infinite where it says nothing."""
    value = headers.get(b"x-request-timeout")
    if value is None:
        return float("inf")
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise InvalidRequest(
            "The header x-request-timeout must be a number of seconds above 0 and at most 86400.",
            param="x-request-timeout",
            code="invalid_timeout",
        )
    return asyncio.get_running_loop().time() + seconds


def _internal_error() -> InternalError:
    return InternalError("Internal error of the gateway: its log has the details under the request id.")
