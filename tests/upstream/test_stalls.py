"""When a silent stream counts as stalled: examples, and any history against the rule in the fewest words."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import UpstreamTimeout
from gateway.core.fleet.capabilities import UNKNOWN
from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.upstream import node_request_kinds
from gateway.fleet.hang_detection import hold_up
from gateway.fleet.node import Lease
from gateway.fleet.node_spec import Drain
from gateway.upstream.exchange_timer import RECHECK
from gateway.upstream.response_parser import ResponseHead
from gateway.upstream.sweep import STEP
from tests.support.still_time import World

pytestmark = pytest.mark.skipif(
    node_request_kinds.__file__.endswith(".so"), reason="a compiled request cannot be subclassed by a test"
)

LATE = RECHECK + STEP + 0.01
STILL = 7


def there_is_another(world: World, ready: bool) -> None:
    """Whether the other node takes work."""
    world.other.drain_for("test", None if ready else Drain(), world.now)


def test_a_resumable_stream_stalls_after_stall_and_any_other_after_idle() -> None:
    world = World()
    resumable, other = world.paced(), world.stream(resumable=False)
    other.begin()
    silent_since = world.now
    world.wait(200)
    assert 20 - 0.02 <= resumable.failed_at - silent_since <= 20 + LATE
    assert isinstance(resumable.error, UpstreamTimeout) and "20 s" in resumable.error.message
    assert 120 <= other.failed_at - silent_since <= 120 + LATE


def test_what_has_not_begun_waits_for_its_first_event() -> None:
    world = World(node_hang=1000.0)
    waits = world.stream(tokens=10_000)
    world.wait(300)
    assert waits.failed_at == inf
    world.wait(30)
    assert waits.failed_at < inf


def test_a_wedged_engine_with_one_stream_is_found_within_five_seconds_and_a_probe() -> None:
    """Its server answers probes; its count stands still. Nothing else runs there."""
    world = World()
    world.page(1)
    stream = world.paced()
    silent_since = world.now - 0.02
    world.wait(1.9)
    world.page(50)  # what came before the silence shows on the first page behind it
    world.probe(18, 50)
    assert 5 <= stream.failed_at - silent_since <= 5 + 2 + LATE
    assert isinstance(stream.error, UpstreamTimeout) and "hangs" in stream.error.message
    assert not world.node.ready and world.node.breaker.cause.value == "silent"


def test_a_node_that_hangs_is_left_by_all_that_can_leave() -> None:
    world = World()
    world.page(1)
    streams = [world.paced() for _ in range(3)]
    kept = world.stream(resumable=False)
    kept.begin()
    waiting = world.stream(tokens=10)
    paused = world.paced()
    paused.pause()
    elsewhere = world.stream()
    elsewhere.lease.release()
    elsewhere.exchange.lease = type(elsewhere.lease)(world.other, world.now, stream=True)
    elsewhere.begin()
    world.probe(10, STILL)
    assert all("hangs" in str(stream.error) for stream in (*streams, waiting))
    assert kept.failed_at == paused.failed_at == elsewhere.failed_at == inf


def test_what_waits_on_a_hanging_node_takes_the_resumable_streams_along() -> None:
    """By `node_hang`, before the streams would stall by themselves."""
    world = World(node_hang=10.0, stall=60.0)
    stream, waiting = world.paced(), world.stream()
    world.wait(15)
    assert waiting.failed_at == stream.failed_at < inf


def test_a_stream_stays_while_there_is_no_other_node() -> None:
    world = World()
    world.page(1)
    there_is_another(world, False)
    stream = world.paced()
    world.probe(60, STILL)
    assert stream.failed_at == inf and world.node.failing is None
    there_is_another(world, True)
    world.wait(LATE)
    assert stream.failed_at < inf


def test_one_that_is_silent_alone_goes_on_where_it_was() -> None:
    world = World()
    there_is_another(world, False)
    stream, other = world.paced(), world.stream(resumable=False)
    other.begin()
    other.events(190, 0.1)
    assert stream.failed_at == inf
    other.events(14, 0.1)
    assert stream.failed_at < inf


def test_a_tokenizers_answer_is_no_sign_of_an_engine() -> None:
    """On its way to another node a stream asks for its prompt's ids first: that prompt is still to be computed."""
    world = World()
    checkpoint = world.paced().exchange.stream_filter
    assert isinstance(checkpoint, Checkpoint)
    heard_at = world.node.heard_at
    assert checkpoint.resume(UNKNOWN).path == "/tokenize"
    world.wait(1)
    asking = world.stream(tokens=1000, carried=checkpoint)
    asking.exchange.on_head(ResponseHead(200, ((b"content-type", b"application/json"),), b"application/json"))
    asking.exchange.on_data(b'{"count":3,')
    assert (asking.lease.heard, world.node.heard_at) == (False, heard_at)


def test_it_ends_after_idle_all_the_same() -> None:
    world = World()
    there_is_another(world, False)
    stream = world.paced()
    silent_since = world.now
    world.wait(150)
    assert 119.9 <= stream.failed_at - silent_since <= 120 + LATE


@pytest.mark.parametrize(
    "name",
    ["its count grows", "no count", "an old count", "others of other gateways wait", "one page", "slow", "few events"],
)
def test_five_seconds_of_silence_are_no_stall_where(name: str) -> None:
    world = World()
    if name != "one page":
        world.page(0)
    stream = world.paced(gap=0.4 if name == "slow" else 0.02, events=5 if name == "few events" else 50)
    silent_since = world.now
    for second in range(2, 20, 2):
        world.wait(2)
        if name == "its count grows":
            world.page(second)
        elif name == "others of other gateways wait":
            world.page(STILL, waiting=1)
        elif name == "no count":
            world.page(None)
        elif name in ("slow", "few events") or (name == "one page" and second == 4):
            world.page(STILL)
        assert stream.failed_at == inf, second
    world.wait(3)
    assert 19.5 <= stream.failed_at - silent_since <= 20 + LATE
    assert world.node.ready


def test_a_count_that_was_not_read_for_ten_seconds_confirms_nothing() -> None:
    world = World()
    world.page(0)
    stream = world.paced()
    world.prompt(5000)
    world.probe(6, STILL)
    world.wait(22)
    assert stream.failed_at == inf
    world.wait(2 + LATE)
    assert stream.failed_at < inf and world.node.ready


def test_other_answers_that_go_on_speak_for_the_node() -> None:
    world = World()
    world.page(0)
    stream = world.paced()
    other = world.stream(resumable=False)
    other.begin()
    for second in range(19):
        assert stream.failed_at == inf
        other.events(10, 0.1)
        world.page(second)
    other.events(20, 0.1)
    assert stream.failed_at < inf and other.failed_at == inf and world.node.ready


def test_a_prompt_that_waits_may_be_the_reason_of_a_whole_nodes_silence() -> None:
    world = World()
    world.page(0)
    stream = world.paced()
    prompt = world.prompt(20_000)
    world.probe(44, STILL, waiting=1)
    assert stream.failed_at == inf
    prompt.heard = True
    world.wait(LATE)
    assert stream.failed_at < inf


def test_a_prompt_is_no_reason_where_other_answers_go_on() -> None:
    world = World()
    stream, other = world.paced(), world.stream(resumable=False)
    world.prompt(20_000)
    other.begin()
    other.events(70, 0.1)
    world.wait(12.9)
    assert stream.failed_at == inf
    world.wait(0.1 + LATE)
    assert stream.failed_at < inf and other.failed_at == inf


@pytest.mark.parametrize(("waiting", "stalls"), [(0, True), (1, False), (None, False)])
def test_a_prompt_that_was_begun_long_before_is_no_reason(waiting: int | None, stalls: bool) -> None:
    """Of a plain answer nothing comes before it is whole: where the node's queue is empty, it is being made."""
    world = World()
    world.page(0)
    world.prompt(20_000)
    stream = world.stream()
    stream.begin()
    stream.events(120, 0.1)
    for _ in range(5):
        world.wait(2)
        world.page(STILL, waiting)
    assert (stream.failed_at < inf) is stalls


@pytest.mark.parametrize(
    ("sent", "page", "waiting", "seconds"),
    [
        (89.0, 101.0, 0, 0.0),
        (89.0, 99.0, 0, 6.0),  # its page is older than its silence
        (89.0, 101.0, 1, 6.0),
        (89.0, 101.0, None, 6.0),
        (91.0, 101.0, 0, 6.0),  # it may still be on its way to the engine
    ],
)
def test_how_long_a_prompt_may_hold_up_a_node_that_is_silent_since_then(
    sent: float, page: float, waiting: int | None, seconds: float
) -> None:
    node = World().node
    Lease(node, sent, stream=False, tokens=3000)
    Lease(node, sent, stream=True, tokens=5000).heard = True
    node.load_told(NodeMetrics(page, waiting=waiting, generated=STILL))
    assert hold_up(node, since=100.0, per_1k=2.0) == seconds


def test_a_nodes_silence_begins_with_the_last_of_its_answers() -> None:
    """The other stream's last event came four seconds later, and the prompt was sent long before that one alone."""
    world = World(stall_confirmed=1000.0)
    stream, other = world.paced(), world.stream(resumable=False)
    other.begin()
    world.wait(2)
    world.prompt(20_000)
    stream.events(100, 0.1)
    other.events(40, 0.1)
    world.wait(1)
    world.page(STILL)
    world.wait(14.8)
    assert stream.failed_at == inf
    world.wait(0.2 + LATE)
    assert stream.failed_at < inf


def test_a_resumed_stream_waits_for_its_first_event_as_any_other() -> None:
    """Its head comes at once, and its prompt takes as long as it is."""
    world = World(node_hang=1000.0)
    filter_ = world.paced().exchange.stream_filter
    resumed = world.stream(tokens=10_000, carried=filter_)
    resumed.head()
    world.wait(310)
    assert resumed.failed_at == inf
    resumed.events(30, 0.02)
    world.wait(19.9)
    assert resumed.failed_at == inf
    world.wait(LATE)
    assert resumed.failed_at < inf


def test_a_resumed_stream_on_a_node_that_hangs_moves_on() -> None:
    world = World(node_hang=10.0, stall=1000.0)
    resumed = world.stream(tokens=1000, carried=world.paced().exchange.stream_filter)
    resumed.head()
    world.wait(11)
    assert resumed.failed_at == inf
    world.wait(1 + STEP)
    assert resumed.failed_at < inf and not world.node.ready


def test_a_slow_client_is_no_silence_of_the_node() -> None:
    world = World()
    world.page(0)
    stream = world.paced()
    stream.pause()
    world.probe(400, STILL)
    assert stream.failed_at == inf and world.node.ready
    stream.resume()
    resumed_at = world.now
    world.probe(4, STILL)
    assert stream.failed_at == inf
    world.probe(4, STILL)
    assert 5 <= stream.failed_at - resumed_at <= 5 + LATE


def test_comments_go_on_meanwhile_and_after_a_pause() -> None:
    world = World(stall=60.0)
    stream = world.paced()
    world.wait(50)
    assert stream.comments == 3
    stream.pause()
    world.wait(100)
    assert stream.comments == 3
    stream.resume()
    world.wait(world.timing.shortest + STEP)
    assert stream.comments == 4


def test_a_whole_answer_does_not_stall() -> None:
    world = World()
    world.page(0)
    stream = world.paced()
    stream.done()
    world.probe(60, STILL)
    assert stream.failed_at == inf and world.node.ready


# Any history


@dataclass
class Told:
    """What has happened so far, and the rule of docs/configuration.md over it. Times are the loop's."""

    begun: float
    events: int = 1
    own: float = 0.0
    """When the stream was last heard, or its client had room again."""
    heard: float = 0.0
    paused_at: float | None = None
    paused_for: float = 0.0
    pages: list[tuple[float, int | None, int | None]] = field(default_factory=list)
    prompts: list[tuple[float, int]] = field(default_factory=list)
    """Those that wait: when they were sent, and their tokens."""
    another: bool = True

    def stalls(self, now: float) -> bool:
        if self.paused_at is not None:
            return False
        if now >= self.own + 120:
            return True
        alone = self.heard - self.own >= 5
        stalled = now >= self.own + 20 + (0 if alone else self._prompts())
        return (stalled and (alone or self.another)) or (self.another and now >= self._hangs_at(now))

    def _hangs_at(self, now: float) -> float:
        if self.events < 20 or len(self.pages) < 2:
            return inf
        limit = max(5.0, 50 * (self.own - self.begun - self.paused_for) / self.events)
        (_, before, _), (at, count, waiting) = self.pages[-2:]
        if count is None or before != count or now - at >= 10 or at - self.heard < limit / 2:
            return inf
        if (waiting or 0) > len(self.prompts):
            return inf
        return max(self.own, self.heard) + limit + self._prompts()

    def _prompts(self) -> float:
        silent_since = max(self.own, self.heard)
        waiting = [(sent, tokens) for sent, tokens in self.prompts]
        if self.pages:
            at, _, queued = self.pages[-1]
            if queued == 0 and silent_since <= at:
                waiting = [(sent, tokens) for sent, tokens in waiting if sent >= silent_since - 10]
        return 2.0 * sum(tokens for _, tokens in waiting) / 1000


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.05, 0.4, 1.7, 2.0, 4.9, 5.1, 9.0, 14.8, 15.2, 40.0])),
    st.tuples(st.just("events"), st.sampled_from([(1, 0.0), (30, 0.02), (30, 0.15), (10, 0.5)])),
    st.tuples(st.just("others"), st.sampled_from([(1, 0.0), (30, 0.2)])),
    st.tuples(st.just("page"), st.tuples(st.sampled_from([None, 0, 0, 5]), st.sampled_from([None, 0, 0, 1]))),
    st.tuples(st.just("probed"), st.sampled_from([(3, 2.0), (6, 1.0), (2, 5.0)])),
    st.tuples(st.just("prompt"), st.sampled_from([10, 3000, 9000])),
    st.tuples(st.just("prompt is heard"), st.just(None)),
    st.tuples(st.just("pause"), st.just(None)),
    st.tuples(st.just("resume"), st.just(None)),
    st.tuples(st.just("another"), st.booleans()),
)


class History:
    """Does each step in the world and in what the rule knows of it. `since`: from when on the rule has always held."""

    def __init__(self) -> None:
        self.world = World(node_hang=1e6)
        self.stream = self.world.stream()
        self.others = self.world.stream(resumable=False)
        for stream in (self.stream, self.others):
            stream.begin()
        now = self.world.now
        self.told = Told(begun=now, own=now, heard=now)
        self.prompts: list[Any] = []
        self.count = 0
        self.since = inf

    @property
    def over(self) -> bool:
        return self.stream.failed_at < inf

    def wait(self, seconds: float) -> None:
        end = self.world.now + seconds
        while not self.over and self.world.now < end:
            self._look()
            self.world.wait(min(0.025, end - self.world.now))
        if self.over:
            assert self.told.stalls(self.stream.failed_at + 1e-6), "it failed by the rule"
        self._look()

    def _look(self) -> None:
        now = self.world.now
        if not self.told.stalls(now - 1e-6):
            self.since = inf
            return
        self.since = min(self.since, now)
        assert self.over or now - self.since <= LATE, "it fails as soon as the rule says so"

    def do(self, name: str, value: Any) -> None:
        told, world = self.told, self.world
        if name == "wait":
            self.wait(value)
        elif name == "events" and told.paused_at is None:
            for _ in range(value[0]):
                if not self.over:
                    self.stream.event()
                    told.own = told.heard = world.now
                    told.events += 1
                    self.wait(value[1])
        elif name == "others":
            for _ in range(value[0]):
                if not self.over:
                    self.others.event()
                    told.heard = world.now
                    self.wait(value[1])
        elif name == "page":
            self.page(*value)
        elif name == "probed":
            for _ in range(value[0]):
                self.page(0, 0)
                self.wait(value[1])
        elif not self.over:
            self.change(name, value)

    def page(self, grown: int | None, waiting: int | None) -> None:
        if self.over:
            return
        self.count += grown or 0
        count = None if grown is None else self.count
        self.world.page(count, waiting)
        told, now = self.told, self.world.now
        if told.pages and None not in (count, told.pages[-1][1]) and count != told.pages[-1][1]:
            told.heard = now
        told.pages.append((now, count, waiting))

    def change(self, name: str, value: Any) -> None:
        told, now = self.told, self.world.now
        if name == "prompt":
            self.prompts.append(self.world.prompt(value))
            told.prompts.append((now, value))
        elif name == "prompt is heard" and self.prompts:
            self.prompts.pop().heard = True
            told.prompts.pop()
        elif name == "pause" and told.paused_at is None:
            self.stream.pause()
            told.paused_at = now
        elif name == "resume" and told.paused_at is not None:
            self.stream.resume()
            told.paused_for += now - told.paused_at
            told.paused_at, told.own = None, now
        elif name == "another":
            told.another = value
            there_is_another(self.world, value)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12), st.sampled_from([0.5, 30.0, 150.0]))
def test_a_stream_fails_exactly_when_the_rule_says_so(steps: list[tuple[str, Any]], end: float) -> None:
    history = History()
    for name, value in steps:
        history.do(name, value)
    history.do("wait", end)
