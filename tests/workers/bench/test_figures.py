"""From times and counts to figures."""

import io

import pytest
from rich.console import Console

from workers.bench.answers import Answer
from workers.bench.figures import GpuUse, make_figures, mean_use, quantile
from workers.bench.ladder import Rung
from workers.bench.load import Heard, Load
from workers.bench.pages import NodePage, counts_between, read_page
from workers.bench.view import print_rungs
from workers.bench.workloads import Lengths
from workers.gpus.reading import GpuReading

LOAD = Load(users=2, rate=None, ramp=1.0, window=10.0, requests=100, timeout=60.0)


def heard(*answers: Answer, **more: object) -> Heard:
    return Heard(LOAD, list(answers), since=100.0, until=110.0, **more)  # type: ignore[arg-type]


def test_only_what_comes_within_the_window_counts() -> None:
    early = Answer(95.0, [96.0 + i for i in range(10)], prompt_tokens=1000, counted=10, whole=True)  # 6 of 10 within
    late = Answer(101.0, [103.0, 109.0, 111.0], prompt_tokens=50, counted=3)
    figures = make_figures(heard(early, late, in_flight=1))
    assert figures.tokens_out == pytest.approx((6 + 2) / 10)
    assert figures.tokens_in == pytest.approx(50 / 10), "the other prompt was computed before"
    assert figures.ttft == (2.0, 2.0)
    assert figures.itl == (1.0, 6.0)
    assert (figures.whole, figures.failed, figures.cut) == (1, 0, 1)


def test_an_event_may_bring_several_tokens() -> None:
    answer = Answer(100.0, [101.0, 102.0, 103.0], counted=9, whole=True)
    figures = make_figures(heard(answer))
    assert figures.tokens_out == pytest.approx(0.9)
    assert figures.user_rate == pytest.approx(3.0), "from the first event's tokens to the last one's"


def test_a_node_that_tells_no_usage_is_counted_by_events() -> None:
    assert make_figures(heard(Answer(100.0, [101.0, 102.0]))).tokens_out == pytest.approx(0.2)


def test_failures_are_counted_by_their_kind() -> None:
    answers = [Answer(100.0, failure="HTTP 503: full") for _ in range(3)] + [Answer(100.0, failure="HTTP 500: x")]
    figures = make_figures(heard(*answers))
    assert figures.failures == (("HTTP 503: full", 3), ("HTTP 500: x", 1))
    assert (figures.failed, figures.whole, figures.tokens_out, figures.ttft) == (4, 0, 0.0, (None, None))


def test_first_tokens_before_the_window_are_told_as_such() -> None:
    figures = make_figures(heard(Answer(99.0, [99.5, 101.0])))
    assert figures.ttft == (0.5, 0.5)
    assert "TTFT is that of the users' start" in figures.remarks[0]


def test_others_on_the_node_and_a_busy_client_are_told() -> None:
    before, after = (NodePage(0.0, {"vllm:generation_tokens_total": count}) for count in (100.0, 900.0))
    figures = make_figures(heard(Answer(100.0, [101.0]), before=before, after=after, cpu_seconds=9.5))
    assert figures.remarks == (
        "this client used 95% of a core: the node may be faster",
        "the node made 800 tokens, 1 of them here: others use it too",
    )


PAGE = """# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:prompt_tokens_total{engine="1",model_name="m"} 200.0
vllm:prefix_cache_queries_total{engine="0"} 1000.0
vllm:prefix_cache_hits_total{engine="0"} 700.0
vllm:num_preemptions_total{engine="0"} 2.0
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_waiting{engine="0"} 4.0
vllm:spec_decode_num_drafts_total{engine="0"} 100.0
vllm:spec_decode_num_draft_tokens_total{engine="0"} 500.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 150.0
vllm:generation_tokens_total{engine="0"} NaN
"""


def test_the_nodes_own_counts() -> None:
    page = read_page(PAGE, 5.0)
    assert page.requests == 7
    empty = NodePage(0.0, dict.fromkeys(page.values, 0.0))
    counts = counts_between(empty, page)
    assert (counts.prompts, counts.generated, counts.hit_rate, counts.preemptions) == (1200.0, None, 0.7, 2.0)
    assert (counts.draft_acceptance, counts.accepted_length) == (0.3, 2.5)
    assert counts.external_hit_rate is None


@pytest.mark.parametrize(
    "text", ["", "no page", "vllm:x{", '{"error": "no"}', "<html>\n<p>vllm:prompt_tokens_total</p>"]
)
def test_what_is_no_page_tells_nothing(text: str) -> None:
    assert read_page(text, 0.0).values == {}


def test_a_node_that_began_afresh_tells_nothing() -> None:
    page = read_page(PAGE, 5.0)
    assert counts_between(page, NodePage(6.0, dict.fromkeys(page.values, 1.0))).prompts is None
    assert counts_between(None, page).hit_rate is None


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 3.0, 4.0, 4.0]


def test_what_is_seen_of_gpus_and_failures_is_told_below_the_table() -> None:
    gpus = GpuUse(tuple((index, 0.4 if index == 5 else 0.95) for index in range(8)))
    figures = make_figures(
        heard(Answer(100.0, [101.0, 102.0]), Answer(100.0, failure="HTTP 503: full"), unsent=3), gpus
    )
    page = io.StringIO()
    print_rungs(Console(file=page, width=140), [Rung("chat", "chat [x]", Lengths(9, 9, 0.0), figures)])
    assert "chat [x]" in page.getvalue()
    for line in (
        "5: 40%, 6: 95%, 7: 95%; GPU 5 below the checklist's 80%, spread 55%",
        "2 users: 1 failed: HTTP 503: full",
        "2 users: 3 requests were not sent: too many were in flight",
    ):
        assert line in page.getvalue()


def test_use_of_gpus_is_the_mean_within_the_window() -> None:
    rounds = [(at, (GpuReading(0, "g", use=0.9), GpuReading(3, "g", use=at / 100))) for at in (10.0, 20.0, 40.0, 99.0)]
    use = mean_use([*rounds, (30.0, (GpuReading(0, "g"), GpuReading(3, "g", lost=True)))], 15.0, 50.0)
    assert dict(use.by_index) == pytest.approx({0: 0.9, 3: 0.3})
    assert [use.least, use.spread] == pytest.approx([0.3, 0.6])
    assert use.below == (3,)
    assert (GpuUse().least, GpuUse().spread, GpuUse().below) == (None, None, ())
