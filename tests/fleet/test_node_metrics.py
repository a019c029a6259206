"""A node's own /metrics page: what is read from it, and what is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.fleet.node_metrics import (
    NodeMetrics,
    NodeRates,
    began_anew,
    computed_between,
    ended_per_second,
    rates_between,
    read_node_metrics,
)

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 4e2
vllm:generation_tokens_total 12345
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 7.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 50.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 900.0
vllm:unheard_of_total 7
python_gc_objects_collected_total{generation="0"} 1.0
"""


def test_engines_behind_one_port_are_added_up_and_the_fullest_cache_counts() -> None:
    assert read_node_metrics(PAGE.encode(), 5.0) == NodeMetrics(5.0, 5, 1, 0.75, 1000, 400, 12345, ended=9, prompts=900)


def test_the_shape_of_the_cache_is_read_from_its_labels() -> None:
    labels = 'block_size="528",cache_dtype="fp8",mamba_block_size="4096",num_gpu_blocks="%d",engine="%d"'
    page = "".join(f"vllm:cache_config_info{{{labels % (1000 + engine, engine)}}} 1.0\n" for engine in range(2))
    assert read_node_metrics(page.encode(), 5.0) == NodeMetrics(5.0, block=528, kv_tokens=528 * 2001)


@pytest.mark.parametrize(
    ("labels", "block"),
    [
        ('block_size="16",num_gpu_blocks="None"', 16),
        ('block_size="None",num_gpu_blocks="7"', None),
        ('block_size="0",num_gpu_blocks="7"', None),
        ('mamba_block_size="4096",num_gpu_blocks="7"', None),
        ('block_size="99999999999",num_gpu_blocks="7"', None),
    ],
)
def test_a_shape_of_the_cache_that_cannot_be_is_not_believed(labels: str, block: int | None) -> None:
    assert read_node_metrics(b"vllm:cache_config_info{%b} 1.0\n" % labels.encode(), 5.0) == NodeMetrics(
        5.0, block=block
    )


@pytest.mark.parametrize("page", ["", "no metrics", "<html>", "vllm:", "vllm:num_requests_running"])
def test_a_page_that_says_nothing_leaves_everything_unknown(page: str) -> None:
    assert read_node_metrics(page.encode(), 5.0) == NodeMetrics(5.0)


@pytest.mark.parametrize("value", ["", "NaN", "-1", "+Inf", "1e16", "many"])
def test_a_value_that_cannot_be_is_not_believed(value: str) -> None:
    page = f"vllm:num_requests_running {value}\nvllm:num_requests_waiting 2\n"
    assert read_node_metrics(page.encode(), 5.0) == NodeMetrics(5.0, waiting=2)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (
            NodeMetrics(10, generated=100, cache_queries=50, cache_hits=10),
            NodeMetrics(12, generated=300, cache_queries=150, cache_hits=85),
            NodeRates(100.0, 0.75),
        ),
        (NodeMetrics(10, generated=300), NodeMetrics(12, generated=100), NodeRates()),  # it has started afresh
        (NodeMetrics(10, generated=100), NodeMetrics(10, generated=300), NodeRates()),  # no time in between
        (NodeMetrics(10), NodeMetrics(12, generated=300, cache_queries=1, cache_hits=1), NodeRates()),
        (
            NodeMetrics(10, cache_queries=50, cache_hits=10),
            NodeMetrics(12, cache_queries=50, cache_hits=10),
            NodeRates(),
        ),
        (NodeMetrics(10, generated=100), NodeMetrics(12, generated=100), NodeRates(0.0)),
    ],
)
def test_rates_are_told_between_two_pages_of_one_run(
    first: NodeMetrics, last: NodeMetrics, expected: NodeRates
) -> None:
    assert rates_between(first, last) == expected


@pytest.mark.parametrize(
    ("last", "computed"),
    [
        (NodeMetrics(2, cache_queries=1000, cache_hits=400, prompts=900), 600),
        (NodeMetrics(2, cache_queries=0, cache_hits=0, prompts=900), 900),  # prefix caching is off
        (NodeMetrics(2, prompts=900), 900),
        (NodeMetrics(2, cache_queries=1000, cache_hits=400), 600),
        (NodeMetrics(2), 0),
    ],
)
def test_prompt_tokens_that_were_computed(last: NodeMetrics, computed: int) -> None:
    assert computed_between(NodeMetrics(0, cache_queries=0, cache_hits=0, prompts=0), last) == computed


def test_requests_that_ended() -> None:
    assert ended_per_second(NodeMetrics(1, ended=3), NodeMetrics(5, ended=13)) == 2.5
    for last in (NodeMetrics(5), NodeMetrics(1, ended=13), NodeMetrics(5, ended=2)):
        assert ended_per_second(NodeMetrics(1, ended=3), last) == 0


NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:num_requests_waiting_by_reason": "short_of_room",
    "vllm:kv_cache_usage_perc": "kv_use",
    "vllm:generation_tokens_total": "generated",
    "vllm:generation_tokens_created": "created",
    "vllm:num_requests": "nothing that is read",
    "process_start_time_seconds": "started",
}
LABELS = st.sampled_from(['{engine="0"}', '{engine="1",reason="capacity"}', '{reason="deferred"}', ""])
VALUES = st.sampled_from(["0.0", "3", "1e3", "0.5", "NaN", "-1", "word", "+Inf"])


@given(st.permutations(list(NAMES)), st.data())
def test_what_is_searched_for_is_what_reading_every_line_finds(order: list[str], data: st.DataObject) -> None:
    lines, told = [], {}
    for name in order:
        samples = data.draw(st.lists(st.tuples(LABELS, VALUES), max_size=3))
        lines += [f"# HELP {name} text", f"# TYPE {name} gauge"] if data.draw(st.booleans()) else []
        lines += [f"{name}{labels} {value}" for labels, value in samples]
        good = [
            (labels, float(value))
            for labels, value in samples
            if value not in ("NaN", "-1", "word", "+Inf") and ("by_reason" not in name or "capacity" in labels)
        ]
        if good:
            told[NAMES[name]] = [value for _, value in good]
    is_long = data.draw(st.booleans())  # then names are searched for, else all lines are looked at
    filler = ["vllm:unheard_of_bucket 1.0"] * 400 if is_long else []
    at = data.draw(st.sampled_from([0, len(lines)]))
    page = "\n".join([*lines[:at], *filler, *lines[at:]]) + data.draw(st.sampled_from(["", "\n"]))
    read = read_node_metrics(page.encode(), 1.0)
    for field in ("running", "waiting", "short_of_room", "generated"):
        expected = int(sum(told[field])) if field in told else None
        assert getattr(read, field) == expected, field
    assert read.kv_use == (max(told["kv_use"]) if "kv_use" in told else None)
    starts = told.get("started") or told.get("created")
    assert read.started == (max(starts) if starts else None)


@pytest.mark.parametrize(
    ("before", "after", "anew"),
    [
        (NodeMetrics(1, generated=5), NodeMetrics(2, generated=5), False),
        (NodeMetrics(1, generated=5), NodeMetrics(2, generated=4), True),
        (NodeMetrics(1, generated=5, started=7.0), NodeMetrics(2, generated=9, started=8.0), True),
        (NodeMetrics(1, generated=5, started=7.0), NodeMetrics(2, generated=9), False),
        (NodeMetrics(1), NodeMetrics(2), False),
    ],
)
def test_another_process_is_known_by_its_start_or_its_counters(
    before: NodeMetrics, after: NodeMetrics, anew: bool
) -> None:
    assert began_anew(before, after) is anew
