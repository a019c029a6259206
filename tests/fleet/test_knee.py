"""`ConcurrencyKnee` against a plain model of a node: what it runs, what waits in it, and how many tokens it makes."""

import math
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet.knee import FEW, FEWEST, GROWTH, STEP_PAGES, ConcurrencyKnee
from gateway.core.fleet.node_metrics import NodeMetrics, read_node_metrics

PAGE_SECONDS = 2.0


class ModelNode:
    """A node that runs `most` requests at once; `rate(running)` is what it makes, in tokens a second."""

    def __init__(self, most: int, rate: Callable[[int], float] = lambda running: 20.0 * running) -> None:
        self.most = most
        self.rate = rate
        self.now = 100.0
        self.made = 0.0
        self.computed = 0
        self.pages: deque[NodeMetrics] = deque(maxlen=16)
        self.knee = ConcurrencyKnee()
        self.knee.observe([NodeMetrics(self.now, 0, 0, 0.1, 0, 0, 0)])
        self.highest_waiting = 0

    def page(self, demand: int, prompts: int = 0) -> int | None:
        """One more page while clients have `demand` requests, as many as the gateway lets through."""
        limit = self.knee.limit
        sent = int(min(demand, self.knee.trial if limit is None else limit))
        running = min(sent, self.most)
        self.highest_waiting = sent - running
        self.now += PAGE_SECONDS
        self.made += self.rate(running) * PAGE_SECONDS
        self.computed += prompts
        page = NodeMetrics(self.now, running, sent - running, 0.1, self.computed, 0, int(self.made))
        self.pages.append(page)
        self.knee.observe(self.pages)
        return self.knee.limit

    def run(self, seconds: float, demand: int, prompts: int = 0) -> int | None:
        for _ in range(math.ceil(seconds / PAGE_SECONDS)):
            self.page(demand, prompts)
        return self.knee.limit


def room(most: int) -> int:
    """The limit of a node that runs `most`: a few wait in it."""
    return most + max(1, math.ceil(FEW * most))


def test_what_a_full_node_runs_and_a_few_that_wait_become_its_limit() -> None:
    node = ModelNode(64)
    assert node.run(60, demand=50) is None
    assert node.run(4, demand=120) is None, "requests may wait for a moment"
    assert node.run(2, demand=120) == room(64)
    assert node.run(200, demand=500) == room(64)
    assert node.highest_waiting == room(64) - 64


@given(most=st.integers(FEWEST, 500), excess=st.floats(1.5, 50.0), seconds=st.integers(120, 900))
def test_under_any_load_it_stays_near_what_the_node_can_run(most: int, excess: float, seconds: int) -> None:
    node = ModelNode(most)
    node.run(30, demand=math.ceil(most * excess) + 1)
    for _ in range(seconds // 2):
        assert node.page(math.ceil(most * excess) + 1) == room(most)


@given(before=st.integers(8, 64), after=st.integers(8, 256))
def test_it_follows_a_node_whose_requests_become_longer_or_shorter(before: int, after: int) -> None:
    node = ModelNode(before)
    node.run(60, demand=1000)
    node.most = after
    steps = 1 + max(1, math.ceil(math.log(after / before) / math.log(1 + GROWTH))) if after > before else 1
    limit = node.run(20 + steps * (STEP_PAGES + 1) * PAGE_SECONDS, demand=1000)
    assert limit is not None
    assert after < limit <= room(after)


def test_a_limit_that_was_found_too_low_does_not_last() -> None:
    """Long prompts let requests wait for some seconds, while as many begin as end."""
    node = ModelNode(30)
    node.run(10, demand=60)
    assert node.knee.limit == room(30)
    node.most = 1000
    node.run(10, demand=60)
    assert node.knee.limit is not None and node.knee.limit >= 36
    node.run(30, demand=60)
    assert node.knee.limit >= 60


def test_a_load_below_the_limit_does_not_move_it() -> None:
    node = ModelNode(64)
    node.run(10, demand=120)
    assert node.run(3600, demand=30) == room(64)


def test_a_burst_does_not_end_up_in_the_queue_of_a_node_that_has_shown_nothing() -> None:
    node = ModelNode(200)
    assert ConcurrencyKnee().trial == math.inf, "where it tells nothing"
    most = 0
    for _ in range(20):
        node.page(5000)
        most = max(most, node.highest_waiting)
    assert most <= 56, "64, 128, 256"
    assert node.knee.limit == room(200)


def test_prompts_that_are_computed_one_after_the_other_are_no_sign() -> None:
    """Requests wait while more and more run: the node takes all of them in the end."""
    node = ModelNode(1000)
    for running in range(4, 60, 2):
        node.now += PAGE_SECONDS
        node.made += 100
        node.pages.append(NodeMetrics(node.now, running, 60 - running, 0.1, 0, 0, int(node.made)))
        node.knee.observe(node.pages)
    assert node.knee.limit is None


def test_few_requests_are_no_knee() -> None:
    """One that compiles a grammar waits beside one that runs: four may be sent at any rate."""
    node = ModelNode(1)
    assert node.run(60, demand=2) == room(FEWEST)


def test_requests_that_are_done_in_one_step_have_others_wait_for_the_next() -> None:
    """Embeddings: none of them is ever seen to run. Of 300 a second it takes 150 in half a second."""
    knee = ConcurrencyKnee()
    pages = [NodeMetrics(2.0 * n, 0, 400, 0.0, 0, 0, 0, ended=600 * n) for n in range(10)]
    for n in range(10):
        knee.observe(pages[: n + 1], 400)
    assert knee.limit == FEWEST + 150


@pytest.mark.parametrize("gateways", [1, 2, 5])
def test_what_one_engine_of_several_tells_bounds_them_all_for_a_moment_only(gateways: int) -> None:
    """Four behind one address, of which one is read. It is full once, and then each of the four has room."""
    knee, pages, generated = ConcurrencyKnee(), list[NodeMetrics](), 0
    seen = []
    for number in range(80):
        sent = min(1000.0, knee.trial * gateways if knee.limit is None else knee.limit)
        full = 20 <= number < 24
        running = 256 if full else round(sent / 4)
        generated += 40 * running
        pages.append(NodeMetrics(2.0 * number, running, 10 if full else 0, 0.0, 0, 0, generated))
        knee.observe(pages[-16:], round(sent / gateways), gateways)
        seen.append(sent)
    assert seen[19] == 1000, "64, 128, 256"
    assert seen[24] == room(256)
    assert seen[-1] == 1000


def test_a_request_that_waits_for_ever_does_not_hold_the_others_back() -> None:
    """What waits may wait for something that the page does not tell apart."""
    knee, pages = ConcurrencyKnee(), list[NodeMetrics]()
    for number in range(120):
        running = min(100, 4 if knee.limit is None else knee.limit)
        pages.append(NodeMetrics(2.0 * number, running, 1, 0.0, 0, 0, 100 * running * number))
        knee.observe(pages[-16:])
    assert knee.limit is not None and knee.limit > 50


def test_long_prompts_leave_no_low_limit_behind() -> None:
    node = ModelNode(4)
    assert node.run(60, demand=300, prompts=20_000) == room(4)
    node.most = 256
    limit = node.run(60, demand=300)
    assert limit is not None and limit >= 256


def test_the_prompts_that_come_with_a_raised_limit_are_not_held_against_it() -> None:
    """They take more than half of the node's time for the first page."""
    node = ModelNode(10)
    node.run(10, demand=300)
    node.most = 1000
    before = node.knee.limit
    for _ in range(30):
        raised = node.knee.limit != before
        before = node.knee.limit
        node.rate = (lambda running: 8.0 * running) if raised else (lambda running: 20.0 * running)
        node.page(300)
    assert node.knee.limit is not None and node.knee.limit >= 100


def test_a_rate_that_has_stopped_growing_is_a_knee_as_well() -> None:
    """It never says that anything waits: from 64 on all requests get slower."""
    node = ModelNode(1024, rate=lambda running: 20.0 * min(running, 64))
    assert node.run(60, demand=64) is None
    node.run(40, demand=300)
    limits = [node.page(300) for _ in range(300)]
    assert set(limits) == {64, math.ceil(64 * (1 + GROWTH))}, "more is tried now and then"
    assert limits.count(64) > 0.8 * len(limits)


def test_a_rate_that_grows_is_none() -> None:
    node = ModelNode(1024, rate=lambda running: 20.0 * running**0.7)
    for demand in (16, 64, 256, 1000):
        assert node.run(60, demand) is None


def test_bursts_are_no_plateau() -> None:
    """Short requests that come at once: what runs on a page says little of what ran between two."""
    draw = random.Random(1)
    node = ModelNode(1024)
    node.run(60, demand=10)
    for _ in range(1000):
        running = 40 if draw.random() < 0.5 else draw.randint(0, 6)
        node.now += PAGE_SECONDS
        node.made += 20 * 10 * PAGE_SECONDS
        node.pages.append(NodeMetrics(node.now, running, 0, 0.1, 0, 0, int(node.made)))
        node.knee.observe(node.pages)
        assert node.knee.limit is None


def test_long_prompts_say_nothing_of_the_rate() -> None:
    node = ModelNode(1024, rate=lambda running: 20.0 * running)
    node.run(60, demand=64)
    node.rate = lambda running: 1000.0
    assert node.run(120, demand=300, prompts=10_000) is None


def test_a_node_that_has_begun_anew_is_not_known() -> None:
    node = ModelNode(40)
    assert node.run(10, demand=200) == room(40)
    node.made = -40.0 * node.rate(40)
    node.most = 256
    assert node.page(200) is None
    assert node.run(60, demand=200) is None


def test_a_page_that_does_not_say_changes_nothing() -> None:
    node = ModelNode(40)
    node.run(10, demand=200)
    node.pages.append(NodeMetrics(node.now + 2))
    node.knee.observe(node.pages)
    assert node.knee.limit == room(40)


def test_a_node_that_says_nothing_any_more_takes_everything() -> None:
    node = ModelNode(40)
    node.run(10, demand=200)
    for _ in range(3):
        node.now += PAGE_SECONDS
        node.pages.append(NodeMetrics(node.now))
        node.knee.observe(node.pages)
    assert (node.knee.limit, node.knee.trial) == (None, math.inf)


@pytest.mark.parametrize(
    ("page", "queued"),
    [
        ("vllm:num_requests_waiting 5\n", 5),
        (
            'vllm:num_requests_waiting{engine="0"} 5\n'
            'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2\n'
            'vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 3\n',
            2,
        ),
        (
            'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2\n'
            'vllm:num_requests_waiting_by_reason{engine="1",reason="capacity"} 1\n',
            3,
        ),
        ("vllm:num_requests_running 5\n", None),
    ],
)
def test_what_waits_for_something_of_its_own_is_not_queued(page: str, queued: int | None) -> None:
    assert read_node_metrics(page.encode(), 1.0).queued == queued
