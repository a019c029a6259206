"""The breaker against a plain model of it, over every order of what can be told."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.fleet.breaker import Breaker, BreakerRules, BreakerState, Cause

FAILURES, RETRIAL, SLOW_START = 3, 1.0, 20.0


class BreakerModel(RuleBasedStateMachine):
    """The table in `core/fleet/breaker.py` in the fewest words: a node is in or out, and evidence is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(BreakerRules(FAILURES, RETRIAL, 30.0, SLOW_START))
        self.is_in = False
        self.warming_since: float | None = None
        self.cause = "new"
        self.evidence = 0
        self.answered_at = -math.inf
        self.doubted = False
        self.asking = False
        self.asked_until = -math.inf

    def out(self, cause: str) -> None:
        self.is_in, self.warming_since, self.cause = False, None, cause
        self.evidence, self.doubted = 0, False

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.6, 1.0, 7.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def a_probe_is_answered(self) -> None:
        self.breaker.probed(self.now)
        if not self.is_in and self.cause in ("new", "missing"):
            self.is_in = True
        elif self.is_in and self.warming_since is not None and self.now - self.warming_since >= SLOW_START:
            self.warming_since = None

    @rule()
    def a_request_is_answered(self) -> None:
        self.breaker.answered(self.now)
        self.answered_at, self.evidence = self.now, 0
        if not self.is_in:
            self.is_in, self.warming_since, self.doubted = True, self.now, False

    @rule()
    def a_request_fails_and_nobody_knows_why(self) -> None:
        self.breaker.doubt()
        self.doubted = True

    @rule(ago=st.sampled_from([0.0, 0.5, 10.0]), spare=st.booleans())
    def another_node_answered_what_failed_here(self, ago: float, spare: bool) -> None:
        opened = self.breaker.convict(self.now, self.now - ago, spare)
        if self.now - ago <= self.answered_at:
            assert not opened
            return
        self.evidence += 1
        enough = self.evidence >= (FAILURES if self.warming_since is None else 1)
        assert opened is (self.is_in and enough and not spare)
        if opened:
            self.out("failing")

    @rule()
    def the_prober_looks(self) -> None:
        begun = self.breaker.begin_check(self.now)
        assert begun is (self.is_in and self.doubted and not self.asking and self.now >= self.asked_until)
        if begun:
            self.doubted, self.asking = False, True

    @precondition(lambda self: self.asking)
    @rule(fails=st.booleans(), spare=st.booleans())
    def its_question_is_over(self, fails: bool, spare: bool) -> None:
        self.breaker.end_check(self.now)
        self.asking, self.asked_until = False, self.now + RETRIAL
        if fails:
            opened = self.breaker.check_failed(self.now, spare)
            assert opened is (self.is_in and not spare)
            if opened:
                self.out("failing")

    @rule()
    def it_takes_no_connection(self) -> None:
        opened = self.breaker.refused(self.now)
        assert opened is self.is_in
        self.evidence, self.doubted = 0, False
        if opened:
            self.out("refused")
        elif self.cause != "new":
            self.cause = "refused"

    @rule(spare=st.booleans())
    def it_falls_silent(self, spare: bool) -> None:
        opened = self.breaker.fell_silent(self.now, spare)
        assert opened is (self.is_in and not spare)
        if opened:
            self.out("silent")

    @rule()
    def too_many_probes_are_missed(self) -> None:
        opened = self.breaker.missed_probes(self.now)
        assert opened is self.is_in
        if opened:
            self.out("missing")

    @invariant()
    def both_agree(self) -> None:
        breaker = self.breaker
        assert breaker.is_open is not self.is_in
        assert (breaker.state is BreakerState.PROBATION) is (self.is_in and self.warming_since is not None)
        if not self.is_in:
            assert breaker.cause is Cause(self.cause)
            assert breaker.share(self.now) == 0.0


BreakerModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreaker = BreakerModel.TestCase
