"""A node that a request finds out of service is named in the log, whatever the cause."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.core.errors import ConnectFailed, NodeFailed, UpstreamError
from gateway.core.fleet.breaker import BreakerRules
from gateway.core.resume.node_deaths import NodeDeaths
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.upstream.attempts import RetryRules
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease
from gateway.fleet.node_spec import NodeSpec
from gateway.upstream.failover import Failover
from tests.support.nodes import MODEL


@pytest.mark.parametrize(
    ("error", "cause", "requests"),
    [(ConnectFailed("Connection refused."), "refused", 1), (NodeFailed("500"), "failing", BreakerRules().failures)],
)
async def test_the_log_names_a_node_that_requests_take_out(error: UpstreamError, cause: str, requests: int) -> None:
    fleet = Fleet([NodeSpec("http://a:8000"), NodeSpec("http://b:8000")])
    bad, good = fleet.nodes
    for node in (bad, good):
        node.probe_succeeded({MODEL: {}}, asyncio.get_running_loop().time())
    failover = Failover(fleet, RetryRules(), 3)
    with capture_logs() as lines:
        for _ in range(requests + 2):  # what others find, too, is not said again
            tries, stats = failover.tries(NodeDeaths()), RequestStats()
            failover.record(error, Lease(bad), tries, stats)
            answering = Lease(good)
            answering.answered = True
            failover.conclude(tries, answering)
    assert not bad.ready
    assert [(line["event"], line["node"], line["cause"], line["error"]) for line in lines] == [
        ("node_taken_out", "a:8000", cause, error.message)
    ]
