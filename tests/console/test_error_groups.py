"""Errors that are alike are one group, of all processes, and the groups are bounded."""

from typing import Any

import pytest

from gateway.core.console.error_groups import KEPT, NAMED, ErrorGroups, add_up_groups, read_groups
from gateway.core.telemetry.request_stats import RequestStats


def failed(**fields: Any) -> RequestStats:
    given: dict[str, Any] = {"model": "m", "node": "a:1", "tenant": "acme", "status": 502, "ending": "upstream_cut"}
    return RequestStats(**{**given, "at": 10.0, "request_id": "req_1", "error": "The node broke off.", **fields})


def test_alike_ones_are_counted_together() -> None:
    groups = ErrorGroups()
    groups.note([failed(), failed(at=20.0, tenant="beta", error="again", user_agent=b"curl/8"), failed(node="b:1")])
    (other, one) = sorted(groups.groups, key=lambda group: group.times)
    assert (one.times, one.first, one.last, one.text) == (2, 10.0, 20.0, "again")
    assert one.tenants == ("acme", "beta") and one.agent == "curl/8" and other.node == "b:1"


def test_what_was_served_is_no_error() -> None:
    groups = ErrorGroups()
    groups.note([failed(status=200, ending="ok"), failed(status=499), failed(status=200, ending="client_gone")])
    assert groups.groups == []


def test_of_nobody_and_nothing() -> None:
    groups = ErrorGroups()
    groups.note([RequestStats(status=401, ending="invalid_api_key")])
    (one,) = groups.groups
    assert (one.model, one.node, one.tenants, one.text, one.agent) == ("-", "-", ("-",), "", "")


def test_groups_and_names_are_bounded() -> None:
    groups = ErrorGroups()
    groups.note([failed(node=f"n{number}", at=float(number)) for number in range(KEPT + 20)])
    groups.note([failed(node=f"n{KEPT}", tenant=f"t{number}") for number in range(40)])
    assert len(groups.groups) == KEPT
    assert {group.node for group in groups.groups}.isdisjoint({"n0", "n19"})
    assert len(groups.groups[-1].tenants) == NAMED


def test_processes_are_added_up() -> None:
    one, two = ErrorGroups(), ErrorGroups()
    one.note([failed(at=30.0, error="late"), failed(node="z", at=1.0)])
    two.note([failed(at=5.0, tenant="beta", error="early")])
    sent = read_groups([[*group] for group in two.groups])
    assert sent == two.groups
    both = add_up_groups([*one.groups, *sent])
    assert [group.node for group in both] == ["a:1", "z"]
    assert (both[0].times, both[0].first, both[0].last, both[0].text) == (2, 5.0, 30.0, "late")
    assert add_up_groups([*sent, *one.groups])[0][1:9] == both[0][1:9]


@pytest.mark.parametrize("spelled", [[[1, 2]], [None], [["a"] * 12], [[*"abcdefghijklm"]]])
def test_what_is_no_group_raises(spelled: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        read_groups(spelled)
