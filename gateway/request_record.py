"""The record of one request: what it holds, and its end on every way out."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

import structlog

from gateway.admission.admission import Admission
from gateway.admission.turn_charge import TurnCharge
from gateway.core.access.tenants import Identity
from gateway.core.dialects import Ask, Dialect
from gateway.core.errors import (
    ClientGone,
    GatewayError,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    RequestRefused,
    Unauthenticated,
)
from gateway.core.limits.metering import ASSUMED_OUTPUT, Meters, plan_amounts
from gateway.core.limits.rules import NOTHING
from gateway.core.plan import Plan
from gateway.core.responses.items import Earlier
from gateway.core.telemetry.request_stats import CLIENT_LEFT, LONGEST_WORD, RequestStats
from gateway.core.telemetry.spans import input_messages
from gateway.core.telemetry.trace_context import passed_lines
from gateway.core.thinking.intent import UNSAID
from gateway.core.usage.charge import Charge, RequestOutcome, charge
from gateway.core.usage.cost import cost_of
from gateway.core.usage.token_usage import Usage, tokens_lost
from gateway.limits.arrivals import Arrival
from gateway.limits.reservation import Reservation
from gateway.telemetry.tracer import Tracer
from gateway.upstream.downstream import DownstreamRequest
from gateway.upstream.failed_answers import shutting_down

log = structlog.get_logger("fleetgate.pipeline")

ABOUT_THE_REQUEST = (InvalidRequest, RequestRefused, Unauthenticated, ClientGone)
"""Errors whose texts may quote the request, or say nothing more than their code: they are not logged."""

Observer = Callable[[RequestStats], None]
"""Gets the facts of a request once it has ended."""


class RequestRecord:
    """What one request holds, and its end: on every way out of `with`, once, the client gets the error, and the
    observers get `stats`. Until then it is in `open_records`, for operators to see and to end."""

    __slots__ = (
        "_admission",
        "_dialect",
        "_meters",
        "_observers",
        "_open_records",
        "_task",
        "arrival",
        "began",
        "earlier",
        "ended_with",
        "plan",
        "request",
        "reservation",
        "stats",
        "turn_charge",
    )

    def __init__(
        self,
        request: DownstreamRequest,
        dialect: Dialect,
        meters: Meters,
        observers: tuple[Observer, ...],
        admission: Admission,
        tracer: Tracer | None,
        open_records: "set[RequestRecord]",
        method: str = "POST",
    ) -> None:
        self.began = time.perf_counter()
        self._meters = meters
        self._admission = admission
        self.request = request
        self._dialect = dialect
        self._observers = observers
        stats = self.stats = RequestStats(request.request_id, dialect.name)
        if tracer is None:
            stats.trace_lines = passed_lines(request.headers)
        else:
            tracer.begin(stats, request.headers, self.began)
            if stats.trace is not None:
                stats.trace.method, stats.trace.route = method, dialect.path
                self._observers = (*observers, tracer.request_ended)
        self.arrival: Arrival | None = None
        self.reservation: Reservation | None = None
        self.turn_charge: TurnCharge | None = None
        self.plan: Plan | None = None
        self.earlier: Earlier | None = None
        """What the gateway has put before its input."""
        self.ended_with: GatewayError | None = None
        self._open_records = open_records
        self._task: Any = None

    def of(self, identity: Identity) -> Identity:
        self.stats.tenant = identity.tenant.name
        self.stats.key = identity.key
        return identity

    def asked(self, ask: Ask) -> Ask:
        self.stats.stream = ask.stream
        if ask.model is not None:
            self.stats.model_asked = ask.model[:LONGEST_WORD]
        self.stats.request_bytes = len(ask.raw)
        if ask.intent is not UNSAID:
            self.stats.thinking_asked = ask.intent.asked
        trace = self.stats.trace
        if trace is not None and trace.content and type(ask.body) is dict:
            trace.input = input_messages(ask.body, trace.content)
        return ask

    def end(self, error: GatewayError) -> None:
        """End the request with `error`, wherever it waits; its client gets that, unless its answer is complete."""
        if self._task is not None and self.ended_with is None:
            self.ended_with = error
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._open_records.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        self._task = None
        self._open_records.discard(self)
        if self.arrival is not None:
            self.arrival.release()
        if error is not None:
            try:
                self._fail(error)
            except Exception:  # what the request holds is released all the same
                log.exception("error_response_failed", request_id=self.request.request_id)
        stats = self._conclude()
        if self.reservation is not None:
            self.reservation.settle(stats)
        if self.turn_charge is not None:
            self._admission.settle(self.turn_charge, stats)
        for observer in self._observers:
            try:
                observer(stats)
            except Exception:
                log.exception("observer_failed", request_id=stats.request_id)
        return isinstance(error, Exception)

    def _fail(self, error: BaseException) -> None:
        """Note how the request ended, and send its client the error. An error after the client has left is not its
        ending, unless it is the gateway's own."""
        if not isinstance(error, Exception):  # cancelled: by an operator, or at the deadline of the server's shutdown
            error = self.ended_with or shutting_down()
        elif not isinstance(error, GatewayError):
            log.error("request_failed", request_id=self.request.request_id, dialect=self._dialect.name, exc_info=error)
            error = _internal_error()
        elif self.earlier is not None and isinstance(error, InvalidRequest):
            error = self.earlier.own_words(error)
        left = self.request.gone and not isinstance(error, InternalError)
        stats = self.stats
        stats.ending = ClientGone.default_code if left else error.slug
        if not isinstance(error, ABOUT_THE_REQUEST):
            stats.error = error.message[:LONGEST_WORD]
        if isinstance(error, LimitExceeded):
            stats.limit = error.limit or None
        self.request.fail(error)

    def _conclude(self) -> RequestStats:
        """The facts that are known at its end."""
        request, stats = self.request, self.stats
        stats.at = time.time()
        stats.status = request.status
        if stats.ending == "ok":
            if stats.node_failed or request.status >= 400:
                stats.ending = "node_error"
            else:
                stats.error = None  # of an attempt that failed before
        elif not request.status and stats.ending == ClientGone.default_code:
            stats.status = CLIENT_LEFT
        stats.duration = time.perf_counter() - self.began
        if stats.trace is not None:
            stats.trace.end_attempt(stats.ending, self.began + stats.duration)
        if stats.first_byte is not None:
            stats.ttft = stats.first_byte - self.began
        end = RequestOutcome(stats.ending, request.status, stats.attempts if stats.sent else 0)
        if self.plan is not None:
            charged = self._charge(end, self.plan)
            stats.usage, stats.estimated = charged.usage, charged.estimated
            price = self._meters.prices.get(self.plan.model or "")
            if price is not None and stats.usage is not None and self._dialect.computes:
                stats.cost = cost_of(stats.usage, price)
        stats.lost = stats.lost_events + (stats.made if end.failed else 0)
        if stats.lost_seconds:
            stats.lost += tokens_lost(stats.lost_seconds, stats.duration, stats.reported)
        stats.computed = self._dialect.computes
        stats.unauthenticated = stats.tenant is None
        stats.address = request.address
        agent = request.headers.get(b"user-agent")
        if agent is not None:
            stats.user_agent = agent[:LONGEST_WORD]
        return stats

    def _charge(self, end: RequestOutcome, plan: Plan) -> Charge:
        """What the request is charged."""
        stats, reservation = self.stats, self.reservation
        meter = self._meters.of(stats.tenant or "", plan.model or "")
        if reservation is not None:
            planned = reservation.planned
        elif end.failed or (stats.reported is not None and end.ending == "ok"):
            planned = NOTHING  # it need not be measured
        else:
            planned = plan_amounts(plan, meter, ASSUMED_OUTPUT)
        try:
            return charge(end, stats.reported, stats.work, plan, planned, meter, stats.resumed_at)
        except Exception:  # it is charged as planned, and the reservation ends all the same
            log.exception("charging_failed", request_id=self.request.request_id)
            return Charge(Usage(planned.input, planned.output), estimated=True)


def _internal_error() -> InternalError:
    return InternalError("Internal error of the gateway: its log has the details under the request id.")
