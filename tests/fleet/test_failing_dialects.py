"""A dialect in which every request fails is found, and nothing else is taken for one."""

import pytest

from gateway.core.fleet.failing_dialects import FAILURES, FORGOTTEN, MOST, SECONDS, FailingDialects
from gateway.core.telemetry.request_stats import RequestStats


def ended(
    ending: str = "upstream_error", model: str | None = "big", dialect: str = "chat", attempts: int = 2
) -> RequestStats:
    made = RequestStats(*("r", dialect, "acme", "k", model, "n", False, 500, ending, attempts, 9, None))
    made.error = "the node answered with status 500"
    return made


def after(watch: FailingDialects, *events: RequestStats, gap: float = SECONDS) -> list[tuple[str, str]]:
    """What fails after `events`, the first at 0 and the last at `gap` seconds."""
    for number, event in enumerate(events):
        watch.note(event, gap * number / max(1, len(events) - 1))
    return [(each.model, each.dialect) for each in watch.failing(gap)]


def test_a_dialect_that_only_fails_is_found_and_an_answer_ends_it() -> None:
    watch = FailingDialects()
    assert after(watch, *[ended()] * FAILURES, ended("ok", dialect="completions"), gap=2 * SECONDS) == [("big", "chat")]
    (found,) = watch.failing(2 * SECONDS)
    assert (found.requests, found.error) == (FAILURES, "the node answered with status 500")
    watch.note(ended("ok"), 2 * SECONDS)
    assert list(watch.failing(2 * SECONDS)) == []


def test_who_alone_fails_is_named() -> None:
    """It may be its requests: nobody else has shown that the dialect works."""

    def of(tenant: str | None, key: str | None = "k") -> RequestStats:
        made = ended()
        made.tenant, made.key = tenant, key
        return made

    for tenants, named in (
        ([of("acme")] * FAILURES, "acme"),
        ([*[of("acme")] * FAILURES, of("globex")], None),
        ([of("globex"), *[of("acme")] * FAILURES], None),
        ([of("default", None)] * FAILURES, None),
    ):
        watch = FailingDialects()
        after(watch, *tenants)
        (found,) = watch.failing(SECONDS)
        assert found.tenant == named


def test_what_nodes_refuse_says_nothing() -> None:
    refused = ended("node_error")
    refused.status = 400
    assert after(FailingDialects(), *[refused] * 20) == []
    assert after(FailingDialects(), *[ended("node_error")] * 20) == [("big", "chat")]


@pytest.mark.parametrize(
    "ending",
    ["invalid_request", "client_gone", "rate_limit_exceeded", "fleet_full", "deadline_exceeded", "shutting_down"],
)
def test_what_is_not_the_nodes_doing_says_nothing(ending: str) -> None:
    assert after(FailingDialects(), *[ended(ending)] * 20) == []


def test_few_failures_and_a_burst_of_them_are_none() -> None:
    assert after(FailingDialects(), *[ended()] * (FAILURES - 1)) == []
    assert after(FailingDialects(), *[ended()] * 50, gap=SECONDS / 2) == []
    assert after(FailingDialects(), *[ended(), ended("ok")] * FAILURES) == []
    assert after(FailingDialects(), *[ended(attempts=0)] * FAILURES, *[ended(model=None)] * FAILURES) == []


def test_an_answer_without_a_model_proves_nothing() -> None:
    read = ended("ok")
    read.computed = False
    assert after(FailingDialects(), *[ended()] * FAILURES, read, gap=2 * SECONDS) == [("big", "chat")]


def test_what_nobody_asks_any_more_is_forgotten_and_names_are_bounded() -> None:
    watch = FailingDialects()
    after(watch, *[ended()] * FAILURES)
    assert list(watch.failing(SECONDS + FORGOTTEN)) != []
    assert list(watch.failing(SECONDS + FORGOTTEN + 1)) == []
    for number in range(2 * MOST):
        watch.note(ended(model=f"m{number}"), 0.0)
    assert len(watch._streaks) == MOST
