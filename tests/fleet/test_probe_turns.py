"""Whose turn it is to ask a node: a plain model of several gateways."""

import itertools
import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.fleet.found_node import rank
from gateway.core.fleet.probe_times import ProbeTimes
from gateway.fleet.probe_sharing import PRESENT_MS, TURN

INTERVAL, QUIET, STEP, CALL = 2.0, 10.0, 0.05, 0.25


@dataclass
class Gateway:
    """One gateway's view of one node: the rules of `ProbeTimes` and `rank`, and calls every `CALL` seconds."""

    name: str
    phase: float
    times: ProbeTimes = field(default_factory=ProbeTimes)
    dies_at: float = math.inf
    reaches: bool = True
    probes: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)

    def step(self, now: float, names: list[str], jitter: float) -> None:
        """Probe where a round is due."""
        bad_sign = not self.reaches and self.probes
        self.times.turn = 0.0 if bad_sign else TURN * INTERVAL * rank(self.name, names, "http://node", now)
        self.times.page_at = self.times.cards_at = now  # health alone is followed
        if self.times.round_at(now, False, INTERVAL, QUIET, 0.0, False) <= now:
            self.times.asked_at, self.times.jitter = now, jitter
            self.probes.append(now)
            if self.reaches:
                self.times.alive_at = now
                self.told.append(now)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 4),
    phases=st.lists(st.floats(0, CALL), min_size=4, max_size=4),
    deaths=st.lists(st.just(math.inf) | st.floats(10, 50), min_size=4, max_size=4),
    splits=st.lists(st.booleans(), min_size=4, max_size=4),
    data=st.data(),
)
def test_a_node_is_asked_once_an_interval_whoever_dies_or_cannot_reach_it(
    count: int, phases: list[float], deaths: list[float], splits: list[bool], data: st.DataObject
) -> None:
    gateways = [
        Gateway(f"g{number}", phases[number], dies_at=deaths[number], reaches=not splits[number])
        for number in range(count)
    ]
    gateways[0].dies_at, gateways[0].reaches = math.inf, True  # one of them lives, and reaches it
    jitters = data.draw(st.lists(st.floats(0.9, 1.1), min_size=64, max_size=64))
    sent: list[tuple[float, float, Gateway]] = []
    reached: list[float] = []
    now = 0.0
    while now < 70.0:
        for each in gateways:
            if now >= each.dies_at:
                continue
            names = [other.name for other in gateways if now < other.dies_at + PRESENT_MS / 1000]
            before = len(each.told)
            each.step(now, names, jitters[int(now / STEP) % 64])
            if len(each.told) > before:
                reached.append(now)
            if (now + each.phase) % CALL < STEP:  # it calls Redis: sends, and reads what others have sent before
                sent += [(now, at, each) for at in each.told]
                each.told = []
                if each.reaches:
                    news = [at for when, at, sender in sent if sender is not each and when < now]
                    each.times.alive_at = max([each.times.alive_at, *news])
        now += STEP
    dying = sum(each.dies_at < math.inf for each in gateways)
    blind = sum(not each.reaches for each in gateways)
    gaps = [after - before for before, after in itertools.pairwise(reached)]
    longest = INTERVAL * 1.1 + TURN * INTERVAL * (dying + blind) + 2 * STEP
    assert max(gaps) <= longest, "each one ahead that is dead or cannot reach it costs a turn, and no more"
    settled = max([each.dies_at for each in gateways if each.dies_at < math.inf], default=0.0) + 6.0
    if not blind:
        later = [at for at in reached if at > max(settled, 5.0)]
        assert len(later) <= (70.0 - max(settled, 5.0)) / (0.9 * INTERVAL) + 2, "one prober for an interval"
