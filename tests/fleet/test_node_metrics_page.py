"""Which page of a node's metrics is asked for, by what the pages told."""

import pytest

from gateway.core.fleet.node_metrics import NodeMetrics
from gateway.core.fleet.node_metrics_page import REFUSALS, SHORT, WHOLE, NodeMetricsPage

PAGE = b"vllm:num_requests_running 3.0\nvllm:generation_tokens_total 70.0\n"
MORE = PAGE + b"vllm:num_requests_waiting 1.0\n"
TOLD = NodeMetrics(1.0, running=3, generated=70)


def read_first(page: bytes = PAGE) -> NodeMetricsPage:
    metrics = NodeMetricsPage()
    assert metrics.path == WHOLE
    assert metrics.read(200, page, 1.0) is not None
    return metrics


def test_a_short_page_that_tells_as_much_is_asked_for_from_then_on() -> None:
    metrics = read_first()
    for page in (PAGE, MORE, MORE):
        assert metrics.path == SHORT
        assert metrics.read(200, page, 1.0) is not None
    assert metrics.path == SHORT


@pytest.mark.parametrize(("status", "body"), [(200, b""), (404, b""), (307, PAGE), (200, PAGE[:31])])
def test_one_that_tells_less_is_not_believed_nor_asked_for_again(status: int, body: bytes) -> None:
    metrics = read_first()
    assert metrics.read(status, body, 1.0) is None
    for _ in range(3):
        assert metrics.path == WHOLE
        assert metrics.read(200, PAGE, 1.0) == TOLD


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_one_that_is_refused_for_now_is_asked_for_again(status: int) -> None:
    """A node answers 5xx to anything while it has too much to do, or a proxy before it is restarted."""
    metrics = read_first()
    for _ in range(5):
        for _ in range(REFUSALS):
            assert metrics.read(status, b"", 1.0) is None
            assert metrics.path == SHORT
        assert metrics.read(200, PAGE, 1.0) == TOLD


def test_one_that_is_refused_each_time_is_given_up() -> None:
    metrics = read_first()
    for _ in range(REFUSALS + 1):
        assert metrics.path == SHORT
        assert metrics.read(502, PAGE, 1.0) is None
    for _ in range(3):
        assert metrics.path == WHOLE
        assert metrics.read(200, PAGE, 1.0) == TOLD


def test_it_may_not_fall_back_behind_what_it_told_itself() -> None:
    metrics = read_first()
    metrics.read(200, MORE, 1.0)
    assert metrics.read(200, PAGE, 1.0) is None
    assert metrics.path == WHOLE


@pytest.mark.parametrize(("status", "body"), [(200, b""), (404, b""), (500, PAGE)])
def test_a_node_that_tells_nothing_is_asked_as_before(status: int, body: bytes) -> None:
    metrics = NodeMetricsPage()
    metrics.read(status, body, 1.0)
    assert metrics.path == WHOLE


def test_another_process_is_tried_anew() -> None:
    metrics = read_first()
    metrics.read(404, b"", 1.0)
    metrics.forget()
    metrics.read(200, PAGE, 1.0)
    assert metrics.path == SHORT
