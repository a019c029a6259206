"""What tenants used by what one process saw: of a day and a month, and of several processes together."""

from typing import Any

import pytest

from gateway.core.console.tenant_sums import DAY, KEPT, TenantUse, TenantUses, Used, add_up_uses, read_uses
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.token_usage import Usage


def ended(tenant: str | None = "acme", **fields: Any) -> RequestStats:
    return RequestStats(tenant=tenant, status=200, usage=Usage(10, 8, 5), cost=7, **fields)


def test_a_day_ends_and_the_month_goes_on() -> None:
    sums = TenantUses()
    sums.note([ended(), ended(None)], 5.0, 1)
    sums.note([ended(ending="upstream_cut")], DAY + 5.0, 1)
    use = sums.tenants["acme"]
    assert use.today == Used(1, 1, 8, 5, 7)
    assert use.month == Used(2, 1, 8 * 2, 5 * 2, 14)
    assert [*sums.tenants] == ["acme"]


def test_a_month_ends() -> None:
    sums = TenantUses()
    sums.note([ended()], 5.0, 1)
    sums.note([ended("beta")], 6.0, 2)
    assert [*sums.tenants] == ["beta"]


def test_failures_are_counted_and_nothing_is_believed_that_cannot_be() -> None:
    sums = TenantUses()
    failed = RequestStats(tenant="acme", status=502, ending="upstream_cut")
    sums.note([failed, RequestStats(tenant="acme", status=200, usage=Usage(1, 4, 9))], 5.0, 1)
    assert sums.tenants["acme"].today == Used(2, 1, 4, 4, 0)


def test_tenants_are_bounded() -> None:
    sums = TenantUses()
    sums.note([ended(f"t{number}") for number in range(KEPT + 10)], 5.0, 1)
    sums.note([ended("t0")], 5.0, 1)
    assert len(sums.tenants) == KEPT and sums.tenants["t0"].today.requests == 2


def test_processes_are_added_up() -> None:
    sums = TenantUses()
    sums.note([ended()], 5.0, 1)
    sent = read_uses({"acme": [[1, 0, 8, 5, 7], [1, 0, 8, 5, 7]], "beta": [[0] * 5, [1] * 5]})
    both = add_up_uses([sums.tenants, sent])
    assert both["acme"].today == Used(2, 0, 16, 10, 14) and both["beta"] == TenantUse(month=Used(1, 1, 1, 1, 1))


@pytest.mark.parametrize("spelled", [{"a": [1]}, {"a": [[1] * 9, [1]]}, {"a": [["x"] * 5, [1] * 5]}])
def test_what_is_no_use_raises(spelled: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_uses(spelled)
