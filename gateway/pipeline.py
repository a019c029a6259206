"""The pipeline: one request, from its headers to its record.

`Pipeline.answer` has its steps in their order. A step that cannot be done raises a `GatewayError`, which is the
client's answer in its own dialect.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from gateway.access.gate import Gate
from gateway.admission.admission import Admission
from gateway.core.access.tenants import Identity, Tenant
from gateway.core.bodies import is_long, parse_body, parse_steps
from gateway.core.dialects import Ask, Dialect
from gateway.core.dialects.response_ids import NONCE_BYTES, open_id
from gateway.core.errors import InvalidRequest, NotFound
from gateway.core.http.json_size import COPIES
from gateway.core.limits.metering import Meters
from gateway.core.models import Models
from gateway.core.plan import IdMinting, Plan, make_plan
from gateway.core.pressure.pressed_plan import press
from gateway.core.reading.outline import REWRITABLE
from gateway.core.reading.outlining import Refusal
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.policy import PolicyBook
from gateway.core.thinking.sizes import BYTES_PER_TOKEN
from gateway.counting.counter import PromptCounter
from gateway.fleet.fleet import Fleet
from gateway.limits.arrivals import Arrival
from gateway.pressure.thinking_pressure import ThinkingPressure
from gateway.reading.reader import BodyReader
from gateway.request_record import Observer, RequestRecord
from gateway.responses.fetch_query import ask_for_all, wants_events
from gateway.responses.kept_responses import KeptResponses
from gateway.responses.retrieval import Retrieval
from gateway.telemetry.tracer import Tracer
from gateway.upstream.deadline import read_deadline, until
from gateway.upstream.downstream import DownstreamRequest, in_turns, while_there
from gateway.upstream.relay import Relay

log = structlog.get_logger("fleetgate.pipeline")


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """What the config decides about requests. A reload swaps it whole; a request keeps the one it began with."""

    models: Models
    response_key: bytes
    policies: PolicyBook = field(default_factory=PolicyBook)
    over_chat: frozenset[str] = frozenset()
    """Models whose nodes are asked in chat, whatever the dialect."""
    resumed: frozenset[str] = frozenset()
    """The names of the dialects whose answers go on on another node where theirs breaks off."""


class Pipeline:
    """Everything that a request passes through, put together once."""

    def __init__(
        self,
        settings: RequestSettings,
        gate: Gate,
        admission: Admission,
        fleet: Fleet,
        relay: Relay,
        observers: tuple[Observer, ...],
        counters: Mapping[str, PromptCounter],
        meters: Meters,
        pressure: ThinkingPressure,
        reader: BodyReader,
        tracer: Tracer | None = None,
        kept: KeptResponses | None = None,
    ) -> None:
        """`counters` are of the models that have a tokenizer here; the limiter of `admission` has the same `meters`.
        `kept` is None where no responses are kept."""
        self.settings = settings
        self.gate = gate
        self.admission = admission
        self.leaving = False
        """The process will stop soon: whoever spreads requests over gateways should go elsewhere."""
        self._fleet = fleet
        self._relay = relay
        self._observers = observers
        self._counters = counters
        self._meters = meters
        self._pressure = pressure
        self._reader = reader
        self._tracer = tracer
        self.open_records: set[RequestRecord] = set()
        """The requests that are under way."""
        self._kept = kept

    async def answer(self, request: DownstreamRequest, dialect: Dialect) -> None:
        """Serve one request that asks a model for something."""
        settings = self.settings
        with self._record(request, dialect) as record:
            who = record.of(self.gate.known(request.headers) or await self.gate.find(request.headers, request.address))
            deadline = read_deadline(request.headers)
            waits = request.weighty
            if waits:
                record.arrival = self.admission.arrive(who, dialect.anthropic)
            name = who.tenant.name
            raw = await until(deadline, request.read_body(name)) if waits else request.take_body(name)
            values = request.values
            long = is_long(raw, values)
            if long:
                reading = self._read_long(request, dialect, raw, who.tenant.name, record.arrival)
                ask = record.asked(await until(deadline, reading))
                raw = b""  # an outline may stand for other bytes: these are freed
            else:
                if record.arrival is not None:
                    record.arrival.recheck()
                ask = record.asked(dialect.read(raw, parse_body(raw, request.strings if values else 0)))
            recalled = None
            if dialect.refers and self._kept is not None and self._kept.refers(ask, who.tenant.name):
                record.arrival = record.arrival or self.admission.arrive(who, dialect.anthropic)
                recalled = await until(deadline, self._kept.recall(ask, dialect, who.tenant.name, request))
                ask, raw, long = recalled.ask, b"", long or recalled.ask.long
                record.earlier = recalled.earlier
            if waits or long or recalled is not None:  # its key may have been revoked while its body came, or was read
                who = record.of(await self.gate.identify(request.headers, request.address))
            model = record.stats.model = settings.models.resolve(ask.model, who, self._fleet.served)
            if model in self._counters:
                counting = self._count(settings, ask, dialect, who.tenant, model)
                record.stats.counted = await until(deadline, counting)
            plan = record.plan = self._plan(settings, ask, dialect, who.tenant, model, record.stats.counted)
            if dialect.mints_ids and self._kept is not None:
                plan.kept = self._kept.begin(ask, who.tenant.name, recalled)
            service_class = self.admission.classify(who, ask, request.headers, record.stats)
            if self._pressure.squeezes:
                if long:
                    await asyncio.sleep(0)  # its body is read once more
                plan = record.plan = self._press(settings, plan, who, model, record.stats)
            record.stats.thinking_budget = plan.grant.thinking_budget
            record.stats.max_tokens = plan.grant.max_tokens
            if long:
                await asyncio.sleep(0)  # where it had to be written anew, that was a step
            if plan.headers:
                request.add_headers(plan.headers)
            admitted = await self.admission.admit(
                who, plan, service_class, request, record.stats, deadline, record.arrival
            )
            record.reservation, record.turn_charge = admitted.reservation, admitted.charge
            await self._relay.serve(plan, request, record.stats, deadline, admitted.lease, admitted.another)
            if plan.kept is not None and self._kept is not None:
                await self._kept.conclude(plan.kept, who.tenant.name, request, record.stats)

    async def stored(
        self, request: DownstreamRequest, dialect: Dialect, method: str, response_id: str, suffix: str
    ) -> None:
        """Serve a request about a stored response (retrieve, delete, cancel, its input): where it is kept is known by
        its id, to its owner only. A node's is answered by that node.

        `suffix` is what follows the id in the node's path, the query included.
        """
        settings = self.settings
        with self._record(request, dialect, method) as record:
            who = record.of(await self.gate.identify(request.headers, request.address))
            deadline = read_deadline(request.headers)
            waits = request.weighty
            raw = await until(deadline, request.read_body(who.tenant.name))
            if waits:
                who = record.of(await self.gate.identify(request.headers, request.address))
            place = None if self._kept is None else self._kept.place_of(response_id, who.tenant.name)
            ask = record.asked(Ask(raw, {}, None, stream=place is None and wants_events(suffix)))
            if place is not None and self._kept is not None:
                plan = Plan(ask, dialect, None, ask.raw)
                record.reservation = await self.admission.reserve(who, plan, request)
                record.stats.served_here = True
                await Retrieval(self._kept, place, who.tenant.name, response_id, suffix).answer(request, method)
                return
            if method == "DELETE" or suffix.startswith("/input_items"):
                raise self._not_kept(settings, response_id, who.tenant, method)
            node = self._node_of(settings, response_id, who.tenant, "response_id")
            grant = Grant(hide=settings.policies.may_hide(who.tenant.rules))  # whose model it was, only the node knows
            if grant.hide and method == "GET":
                suffix, ask.behind = ask_for_all(suffix)
            plan = Plan(ask, dialect, None, ask.raw, None, node, grant)
            path = f"{dialect.path}/{response_id}{suffix}"
            service_class = self.admission.classify(who, ask, request.headers, record.stats)
            limited = method == "GET"  # a cancellation ends work: that is always possible
            admitted = await self.admission.admit(
                who, plan, service_class, request, record.stats, deadline, limited=limited
            )
            record.reservation, record.turn_charge = admitted.reservation, admitted.charge
            lease, another = admitted.lease, admitted.another
            await self._relay.serve(plan, request, record.stats, deadline, lease, another, method, path)

    def _record(self, request: DownstreamRequest, dialect: Dialect, method: str = "POST") -> RequestRecord:
        meters, observers, admission = self._meters, self._observers, self.admission
        return RequestRecord(request, dialect, meters, observers, admission, self._tracer, self.open_records, method)

    async def _read_long(
        self, request: DownstreamRequest, dialect: Dialect, raw: bytes, owner: str, arrival: Arrival | None
    ) -> Ask:
        """One such body at a time, in steps; one of very many values in another process."""
        if request.values > REWRITABLE:
            return await self._read_outline(request, dialect, raw, owner, arrival)
        async with self._relay.large:
            if arrival is not None:
                arrival.recheck()
            await asyncio.sleep(0)
            ask = dialect.read(raw, await in_turns(parse_steps(raw, request.strings), request))
            await asyncio.sleep(0)
            ask.long = True
            return ask

    async def _read_outline(
        self, request: DownstreamRequest, dialect: Dialect, raw: bytes, owner: str, arrival: Arrival | None
    ) -> Ask:
        if arrival is not None:
            arrival.recheck()
        found = await while_there(self._reader.read(dialect, raw, owner), request)
        if isinstance(found, Refusal):
            raise found.error()
        if arrival is not None:
            arrival.recheck()  # reading took a while
        sent = raw if found.raw is None else found.raw
        request.shrink_body(len(sent) * COPIES)
        ask = dialect.read(sent, found.outline())
        ask.long = True
        return ask

    async def _count(
        self, settings: RequestSettings, ask: Ask, dialect: Dialect, tenant: Tenant, model: str
    ) -> int | None:
        return await self._counters[model].count(ask, dialect, settings.policies.of(tenant.rules, model))

    def _plan(
        self, settings: RequestSettings, ask: Ask, dialect: Dialect, tenant: Tenant, model: str, counted: int | None
    ) -> Plan:
        pinned_to = (
            None if ask.continues is None else self._node_of(settings, ask.continues, tenant, "previous_response_id")
        )
        minting = None
        if dialect.mints_ids:
            minting = IdMinting(settings.response_key, os.urandom(NONCE_BYTES), tenant.name)
        policy = window = None
        if not settings.policies.silent or tenant.rules is not None:
            policy = settings.policies.of(tenant.rules, model)
        if policy is not None or ask.body.get("ignore_eos") is True:
            window = self._fleet.window(model)
        limiter = self.admission.limiter
        ratio = BYTES_PER_TOKEN if limiter is None else limiter.bytes_per_token(tenant.name, model)
        # What a node stores, none but that one has: nobody else could go on with it.
        resumes = dialect.name in settings.resumed and ask.continues is None and not ask.background
        salt = tenant.cache_salt
        plan = make_plan(ask, dialect, model, minting, pinned_to, policy, window, ratio, salt, counted, resumes)
        plan.over_chat = model in settings.over_chat
        return plan

    def _press(
        self,
        settings: RequestSettings,
        plan: Plan,
        who: Identity,
        model: str,
        stats: RequestStats,
    ) -> Plan:
        """`plan` with what pressure leaves of its thinking budget."""
        squeeze = self._pressure.squeezes.get(model)
        if squeeze is None:
            return plan
        policy = settings.policies.of(who.tenant.rules, model)
        rules = None if policy is None or policy.thinking is None else policy.thinking.rules
        pressed, stats.claim = press(plan, squeeze, rules, stats.service_class or "")
        return pressed

    def _node_of(self, settings: RequestSettings, response_id: str, tenant: Tenant, param: str) -> bytes:
        """The tag of the node that holds a stored response; `NotFound` for all but its owner, blaming `param`."""
        node = open_id(settings.response_key, response_id, tenant.name)
        if node is None or self._fleet.by_tag(node) is None:
            remedy = (
                "" if self._kept is not None else "; with redis.url and response_secret the gateway keeps responses"
            )
            raise NotFound(
                f"Unknown response {response_id!r}: one that a node stores exists as long as the node, for the tenant "
                f"that created it{remedy}.",
                param=param,
                code="response_not_found",
            )
        return node

    def _not_kept(self, settings: RequestSettings, response_id: str, tenant: Tenant, method: str) -> InvalidRequest:
        """The error for what only the gateway can do with a response, of one that a node stores."""
        self._node_of(settings, response_id, tenant, "response_id")
        what = "delete it" if method == "DELETE" else "list its input"
        return InvalidRequest(
            f"The response {response_id!r} is stored by its node, which cannot {what}.",
            param="response_id",
            code="stored_by_node",
        )
