"""What is counted in batches is what would have been counted one by one."""

import asyncio
import gc
import json
import socket
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway.core.resume.note import ResumeNote
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage
from gateway.telemetry.definitions import BatchHistogram
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.logs import RequestLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.process_facts import ProcessFacts, read_process_facts
from gateway.telemetry.recent import KEPT, RecentTtft

BOUNDS = (0.01, 0.5, 2.5)
SECONDS = st.one_of(st.sampled_from((0.0, *BOUNDS, 1e9)), st.floats(0, 1e6))


@settings(deadline=None)
@given(st.lists(SECONDS, max_size=50))
def test_a_batch_is_observed_as_its_values_would_be(values: list[float]) -> None:
    pages = []
    for kind in (Histogram, BatchHistogram):
        registry = CollectorRegistry()
        histogram = kind("h", "h", ("a",), buckets=BOUNDS, registry=registry)
        labelled: Any = histogram.labels("x")
        if isinstance(labelled, BatchHistogram):
            labelled.observe_all(values)
        else:
            for value in values:
                labelled.observe(value)
        pages.append(generate_latest(registry).decode())
    one_by_one, batch = (
        [line for line in page.splitlines() if "_bucket" in line or "_count" in line] for page in pages
    )
    assert one_by_one == batch


def ended(**changed: Any) -> RequestStats:
    facts: dict[str, Any] = {
        "at": 1_764_000_000.25,
        "request_id": "req_1",
        "dialect": "chat",
        "tenant": "a",
        "key": None,
        "model": "m",
        "node": "n:1",
        "stream": False,
        "status": 200,
        "ending": "ok",
        "attempts": 1,
        "request_bytes": 5,
        "usage": Usage(input=10, output=4, reasoning=3, cached=2),
        "ttft": 0.2,
        "duration": 0.3,
    }
    return RequestStats(**(facts | changed))


def sample(page: bytes, name: str) -> float:
    (line,) = [line for line in page.decode().splitlines() if line.startswith(name + " ")]
    return float(line.rpartition(" ")[2])


def test_the_page_adds_up_requests_of_all_kinds() -> None:
    metrics = Metrics()
    for event in (
        ended(),
        ended(),
        ended(tenant="b", usage=None, ttft=None, duration=30.0, status=503, ending="overloaded", node=None, attempts=0),
        ended(attempts=2, failures=(("n:2", "connect_failed"),), retry_refused=True, wasted=7, overran=True),
    ):
        metrics.request_ended(event)
    page = metrics.page()
    assert page == metrics.page(), "what was counted is not counted again"
    for name, value in {
        'fleetgate_requests_total{dialect="chat",ending="ok",model="m",status="200",tenant="a"}': 3,
        'fleetgate_requests_total{dialect="chat",ending="overloaded",model="m",status="503",tenant="b"}': 1,
        'fleetgate_request_duration_seconds_count{dialect="chat",model="m",stream="false"}': 4,
        'fleetgate_request_duration_seconds_bucket{dialect="chat",le="0.5",model="m",stream="false"}': 3,
        'fleetgate_ttft_seconds_count{dialect="chat",model="m",stream="false"}': 3,
        'fleetgate_tokens_total{kind="input",model="m",tenant="a"}': 30,
        'fleetgate_tokens_total{kind="reasoning",model="m",tenant="a"}': 9,
        'fleetgate_tokens_total{kind="wasted",model="m",tenant="a"}': 7,
        'fleetgate_attempts_total{node="n:1",outcome="passed"}': 3,
        'fleetgate_attempts_total{node="n:2",outcome="connect_failed"}': 1,
        'fleetgate_retries_refused_total{model="m"}': 1,
        'fleetgate_budget_overruns_total{node="n:1"}': 1,
    }.items():
        assert sample(page, name) == value, name


RESUMED = ResumeNote("cut", "n:1", 412, "n:2", 1.5, 8000, "resumed")


def test_resumes_are_counted_by_cause_and_outcome() -> None:
    metrics = Metrics()
    for event in (
        ended(resumes=(RESUMED,)),
        ended(resumes=(RESUMED, ResumeNote("silent", "n:2", 500, "n:1", None, None, "broken"))),
        ended(resumes=(ResumeNote("drained", "n:1", 7, "n:2", 0.2, 90, "resumed"),), model=None),
        ended(resumes=(ResumeNote("cut", "n:1", 7),), tenant="b"),
        ended(),
    ):
        metrics.request_ended(event)
    page = metrics.page()
    assert page == metrics.page(), "what was counted is not counted again"
    for name, value in {
        'fleetgate_resumes_total{cause="cut",model="m",outcome="resumed"}': 2,
        'fleetgate_resumes_total{cause="silent",model="m",outcome="broken"}': 1,
        'fleetgate_resumes_total{cause="cut",model="m",outcome="refused"}': 1,
        'fleetgate_resumes_total{cause="drained",model="-",outcome="resumed"}': 1,
        'fleetgate_resume_pause_seconds_count{model="m"}': 2,
        'fleetgate_resume_pause_seconds_sum{model="m"}': 3,
        'fleetgate_resume_pause_seconds_bucket{le="1.0",model="-"}': 1,
        'fleetgate_recomputed_tokens_total{model="m"}': 16_000,
        'fleetgate_recomputed_tokens_total{model="-"}': 90,
    }.items():
        assert sample(page, name) == value, name
    assert page.decode().count("\nfleetgate_resumes_total{") == 4


def test_a_resume_without_a_token_shows_no_pause() -> None:
    metrics = Metrics()
    metrics.request_ended(ended(resumes=(ResumeNote("cut", "n:1", 7),)))
    page = metrics.page().decode()
    assert "fleetgate_resume_pause_seconds_count" not in page and "fleetgate_recomputed_tokens_total{" not in page


def test_lines_are_whole_json_with_times_to_the_millisecond(capsys: pytest.CaptureFixture[str]) -> None:
    log = RequestLog("json", "info", LogStream())

    async def two() -> None:
        log.request_ended(ended(model='a"b\n'))
        log.request_ended(ended(at=1_764_000_001.9996, usage=None, resumes=(RESUMED,)))

    asyncio.run(two())
    log.flush()
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["timestamp"], first["model"]) == ("2025-11-24T16:00:00.250+00:00", 'a"b\n')
    assert first["resumes"] is None and second["resumes"][0]["to"] == "n:2"
    assert (second["timestamp"], second["input_tokens"]) == ("2025-11-24T16:00:01.999+00:00", None)


def test_the_number_of_wrong_keys_is_told_though_none_comes_later(capsys: pytest.CaptureFixture[str]) -> None:
    """Of each address, once its minute is over, and at the end whatever waits."""
    now = 1000.0
    log = RequestLog("json", "info", LogStream(), clock=lambda: now)

    def told() -> list[tuple[str, int]]:
        log.flush()
        lines = (json.loads(line) for line in capsys.readouterr().err.splitlines())
        return [(line["address"], line["requests"]) for line in lines]

    async def storm() -> None:
        nonlocal now
        for _ in range(50):
            log.request_ended(ended(unauthenticated=True, address="10.0.0.1"))
        log.request_ended(ended(unauthenticated=True, address="10.0.0.2"))
        assert told() == [("10.0.0.1", 1), ("10.0.0.2", 1)]
        for seconds, lines in ((59.0, []), (1.0, [("10.0.0.1", 49)]), (200.0, [])):
            now += seconds
            log.tell_held()
            assert told() == lines
        for _ in range(3):
            log.request_ended(ended(unauthenticated=True, address="10.0.0.2"))
        assert told() == [("10.0.0.2", 1)]
        log.close()
        assert told() == [("10.0.0.2", 2)]

    asyncio.run(storm())


def test_an_address_that_never_stops_costs_one_timer() -> None:
    """A minute's line takes what is held, and the next request is held again: at most one look is due at any time."""
    now = 1000.0
    log = RequestLog("json", "info", LogStream(), clock=lambda: now)
    looks: list[asyncio.TimerHandle] = []

    class Loop(asyncio.SelectorEventLoop):
        def call_later(self, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
            handle = super().call_later(*args, **options)
            if args[1] == log.tell_held:
                looks.append(handle)
            return handle

    async def storm() -> None:
        nonlocal now
        for _ in range(100):
            log.request_ended(ended(unauthenticated=True, address="10.0.0.1"))
            now += 25.0
            log.flush()
        assert len([look for look in looks if not look.cancelled()]) == 1
        log.close()
        assert all(look.cancelled() for look in looks)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(storm())


def test_streams_are_told_from_plain_answers_and_have_gaps_between_tokens() -> None:
    metrics = Metrics()
    usage = Usage(input=1, output=5)
    metrics.request_ended(ended(stream=True, usage=usage, ttft=0.1, duration=0.18))
    metrics.request_ended(ended(stream=True, usage=usage, ttft=0.1, duration=9.0, ending="upstream_cut"))
    metrics.request_ended(ended(usage=usage, ttft=0.1, duration=0.1))
    page = metrics.page()
    assert sample(page, 'fleetgate_ttft_seconds_count{dialect="chat",model="m",stream="true"}') == 2
    assert sample(page, 'fleetgate_ttft_seconds_count{dialect="chat",model="m",stream="false"}') == 1
    assert sample(page, 'fleetgate_inter_token_seconds_count{model="m"}') == 1, "of whole streams alone"
    assert sample(page, 'fleetgate_inter_token_seconds_sum{model="m"}') == pytest.approx(0.02)


def test_what_the_process_is_and_uses_is_shown_once() -> None:
    metrics = Metrics()
    for cpu in (2.0, 3.5, 3.0):
        metrics.process_state(ProcessFacts("1.2", "3.12.1", "plain", cpu, 4096, 17, 5))
    page = metrics.page()
    assert sample(page, 'fleetgate_build_info{build="plain",python="3.12.1",version="1.2"}') == 1
    assert sample(page, "fleetgate_process_cpu_seconds_total") == 3.5
    assert sample(page, "fleetgate_process_resident_bytes") == 4096
    assert sample(page, "fleetgate_process_open_files") == 17
    assert sample(page, "fleetgate_process_tasks") == 5
    assert read_process_facts().tasks == 0, "outside of a loop"


async def test_files_and_tasks_are_counted_as_they_come_and_go() -> None:
    before = read_process_facts()
    waiting = asyncio.create_task(asyncio.sleep(60))
    with socket.socket():
        now = read_process_facts()
    assert (now.open_files, now.tasks) == (before.open_files + 1, before.tasks + 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    after = read_process_facts()
    assert (after.open_files, after.tasks) == (before.open_files, before.tasks)


def test_the_process_tells_what_it_is() -> None:
    now = read_process_facts()
    assert now.cpu_seconds > 0 and now.resident_bytes > 0 and now.build in ("plain", "compiled")


def test_times_to_the_first_token_are_of_the_last_ten_minutes() -> None:
    recent = RecentTtft()
    recent.note([ended(stream=True, ttft=9.0)], 0.0)
    recent.note([ended(stream=True, ttft=0.2), ended(stream=False, ttft=5.0)], 500.0)
    assert recent.waits("n:1", 550.0) == (9.0, 0.2)
    assert recent.waits("n:1", 700.0) == (0.2,)
    assert recent.waits("n:1", 2000.0) == ()


def test_the_latest_times_to_the_first_token_are_kept_in_few_bytes() -> None:
    recent, count = RecentTtft(), 3 * KEPT
    recent.note([ended(stream=True, ttft=float(number)) for number in range(KEPT)], 0.0)  # allocated once
    tracemalloc.start()
    try:
        recent.note(
            [ended(node=f"n:{node}", stream=True, ttft=float(n)) for n in range(count) for node in range(8)], 1.0
        )
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    for node in range(8):
        assert recent.waits(f"n:{node}", 2.0) == tuple(map(float, range(count - KEPT, count)))
    assert taken < 8 * 10_000
