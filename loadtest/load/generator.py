"""One process of the generator under gevent: starts sessions at their moments, and counts what comes of them."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from gevent import GreenletExit
from gevent.event import Event
from gevent.pool import Pool

from loadtest.load.ask import ask, client_of
from loadtest.load.plan import LoadPlan, Stream, chance, deal
from loadtest.load.scenarios import SCENARIOS, Draw
from loadtest.load.tally import Tally
from loadtest.load.trace import Row, read_trace, session_of
from loadtest.load.turns import Answer, Session

WRONG_KEY = "sk-fg-nobody-has-this-key-0123456789abcdef"


class Generator:
    """This process's part of a run: its plan, what is under way, and what it has seen."""

    def __init__(self, environment: Any, plan: LoadPlan, part: int, parts: int) -> None:
        """`environment` is locust's; of `parts` processes this is number `part`."""
        self.environment = environment
        self.plan = plan
        self.began = time.monotonic()
        self.tally = Tally()
        self.sessions = Pool()
        self.ending = False
        self._finished = Event()
        self.part, self.parts = part, parts
        self._numbers = itertools.count()
        self._streams = itertools.islice(deal(plan.streams), self.part, None, self.parts) if plan.streams else None
        self._replayed = False
        self._wrong = client_of(plan.url, WRONG_KEY, plan.timeout)

    def sources(self) -> Iterator[tuple[float, str, str, Session]]:
        """The moments of one new user, in seconds of the run: each with its tenant, scenario and session."""
        if self.plan.trace:
            return self._replay()
        assert self._streams is not None
        return self._arrivals(next(self._streams), next(self._numbers))

    def start(self, moment: float, tenant: str, scenario: str, session: Session, client: Any) -> None:
        """Begin a session now, unless too many are under way."""
        if self.ending:
            return
        self.tally.late.add(max(0.0, self.now() - moment))
        if len(self.sessions) >= self.plan.most:
            self.tally.dropped += 1
            return
        self.sessions.add(gevent.spawn(self._hold, tenant, scenario, session, client))

    def now(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self.began

    def finish(self) -> None:
        """Wait for what is under way, at most the grace; the rest is cut. Once, whoever else calls it waits."""
        if not self.ending:
            self.ending = True
            self.tally.ran = self.now()
            self.sessions.join(timeout=self.plan.grace)
            self.sessions.kill(timeout=5.0)
            self._finished.set()
        self._finished.wait()

    def take(self) -> dict[str, Any]:
        """What was seen since the last call."""
        seen, self.tally = self.tally, Tally()
        return seen.to_json()

    def _arrivals(self, stream: Stream, number: int) -> Iterator[tuple[float, str, str, Session]]:
        plan, scenario = self.plan, SCENARIOS[stream.scenario]
        dice = chance(plan, "user", self.part, number)
        begins = self.now()
        for count, moment in enumerate(scenario.arrivals.moments(dice)):
            name = f"{stream.tenant}-{stream.scenario}-{plan.seed}-{self.part}-{number}-{count}"
            draw = Draw(chance(plan, name), name, stream.tenant, plan.scale)
            yield begins + moment / plan.rate, stream.tenant, stream.scenario, scenario.session(draw)

    def _replay(self) -> Iterator[tuple[float, str, str, Session]]:
        """A trace has its own moments: the first user of each process replays its part, the others rest."""
        if self._replayed:
            return
        self._replayed = True
        plan, tenants = self.plan, itertools.cycle(self.plan.keys)
        row: Row
        for row in read_trace(Path(plan.trace), plan.seconds, plan.speed, self.part, self.parts):
            yield row.at, next(tenants), "trace", session_of(row, plan.scale)

    def _hold(self, tenant: str, scenario: str, session: Session, client: Any) -> None:
        """All turns of one session; each is counted once, on every way out."""
        objective = self.plan.objective(scenario)
        try:
            turn = next(session)
            while True:
                if turn.pause:
                    gevent.sleep(turn.pause)
                if self.ending:
                    return
                self.tally.stream(tenant, scenario).asked(int(self.now()))
                answer, began, plan = Answer(), time.time(), self.plan
                try:
                    ask(self._wrong if turn.wrong_key else client, turn, plan.model, plan.steering, answer)
                except GreenletExit:  # the run is over
                    late = answer.first_token is None and time.time() - began > objective[0]
                    answer.ending = "no first token until the end" if late else "cut"
                    raise
                finally:
                    self.tally.stream(tenant, scenario).ended(answer, int(self.now()), objective)
                    self._tell_locust(f"{tenant} {scenario}", began, answer)
                turn = session.send(answer)
        except StopIteration:
            return

    def _tell_locust(self, name: str, began: float, answer: Answer) -> None:
        self.environment.events.request.fire(
            request_type="chat",
            name=name,
            response_time=(answer.whole or answer.first_token or time.time() - began) * 1000,
            response_length=answer.output_tokens,
            exception=Exception(answer.ending) if answer.failed else None,
            context={},
            start_time=began,
            url=self.plan.url,
        )
