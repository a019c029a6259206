"""One small run through the bare relay, and the arithmetic and the table that come after it."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest import measure, overhead, proxies, results, tally
from loadtest.measure import Extent, Sample
from loadtest.processes import StartError
from loadtest.proxies import Place
from loadtest.rounds import order, run_rounds

TINY = Extent(clients=2, streams=4, plain_seconds=0.2, stream_seconds=0.4, ttft_seconds=0.3, single_seconds=0.2)
SAMPLE = Sample(100.0, 1000.0, 20.0, 5000.0, 1.0, 1.0, 2.0, 3.0, 5.0, 10.0, 50.0, 0)


def rounds() -> list[dict[str, Sample]]:
    """Three rounds on a machine that gets slower: the ratio of own to base stays 1.5, 1.5, 2."""
    found = []
    for own, base in ((30.0, 20.0), (45.0, 30.0), (80.0, 40.0)):
        bare = replace(SAMPLE, ttft_alone_p50=0.5)
        found.append(
            {
                "direct": bare,
                "own": replace(SAMPLE, cpu_per_event=own),
                "base": replace(SAMPLE, cpu_per_event=base),
            }
        )
    return found


PER_EVENT = next(figure for figure in results.FIGURES if figure.name == "cpu_per_event_us")
ADDED = next(figure for figure in results.FIGURES if figure.name == "ttft_added_alone_p50_ms")


def test_ratios_are_taken_within_a_round() -> None:
    assert results.ratio(rounds(), "own", "base", PER_EVENT) == results.Spread(1.5, 1.5, 2.0)


def test_added_ttft_is_over_direct_of_the_same_round() -> None:
    assert results.values(rounds(), "own", ADDED) == [0.5, 0.5, 0.5]


def test_a_round_that_misses_one_of_both_says_nothing() -> None:
    found = rounds()
    del found[2]["base"]
    assert results.ratio(found, "own", "base", PER_EVENT).high == 1.5
    assert math.isnan(results.ratio([], "own", "base", PER_EVENT).median)


def test_the_table_has_a_row_for_each() -> None:
    table = results.table(rounds(), ["own", "base", "absent"], "base")
    assert table.row_count == 3
    console = results.console()
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    assert "1.50x" in text
    assert "30.0–80.0" in text


def test_the_page_has_the_same_figures() -> None:
    head, rule, own, base = results.markdown(rounds(), ["own", "base"], "base").splitlines()
    assert head.count("|") == rule.count("|") == own.count("|") == base.count("|")
    assert "45.0 (30.0–80.0) 1.50x" in own


def test_the_summary_is_json() -> None:
    cell = results.summary(rounds(), ["own"], "base")["own"]["cpu_per_event_us"]
    assert json.loads(json.dumps(cell))["median"] == 45.0


def test_the_order_turns() -> None:
    assert [order(["a", "b", "c"], turn) for turn in (0, 1, 3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["a", "b", "c"],
    ]


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles(share: float, expected: int) -> None:
    assert tally.percentile(list(range(100, 0, -1)), share) == expected
    assert tally.percentile([], share) == 0.0


def test_the_floor_is_measured_and_breaks_nothing() -> None:
    sample = measure.take(proxies.FLOOR, TINY)
    assert sample.broken == 0
    assert sample.requests_per_second > 0
    assert sample.events_per_second > 0
    assert sample.idle_mib > 0


def test_one_that_fails_misses_its_round_and_is_told() -> None:
    def fail(proxy: proxies.Proxy | None, extent: Extent) -> Sample:
        if proxy:
            raise StartError("no answer")
        return SAMPLE

    said: list[str] = []
    found = run_rounds([proxies.FLOOR], TINY, 2, said.append, fail)
    assert [set(each) for each in found] == [{"direct"}, {"direct"}]
    assert said.count("round 1: floor failed: no answer") == 1


def test_one_that_cannot_start_is_an_error_and_leaves_nothing_behind() -> None:
    gone = replace(proxies.FLOOR, argv=lambda proxy, place: [sys.executable, "-c", "raise SystemExit('no')"])
    with pytest.raises(StartError, match="no"), measure.Bench(gone):
        pass


def test_no_work_costs_nan() -> None:
    assert math.isnan(measure.per(1.0, 0))


@pytest.mark.parametrize("proxy", [*proxies.EVERYONE, proxies.FLOOR, proxies.POLICIES], ids=lambda p: p.name)
def test_every_proxy_has_a_command_and_a_note(proxy: proxies.Proxy, tmp_path: Path) -> None:
    argv = proxy.argv(proxy, Place(node=1, port=2, folder=tmp_path))
    assert "2" in argv or "nginx.conf" in argv[-1]
    assert proxy.note


def test_an_unknown_proxy_is_refused() -> None:
    with pytest.raises(SystemExit, match="nonesuch"):
        overhead.chosen("nginx,nonesuch", False)


def test_policies_are_measured_beside_the_rest() -> None:
    assert [proxy.name for proxy in overhead.chosen("nginx", True)] == ["nginx", "fleetgate-policies"]


def test_a_rival_that_is_not_installed_is_absent() -> None:
    rivals = [replace(proxy, version="0.0.0-none") for proxy in proxies.RIVALS if proxy.requirements]
    assert [proxy.executable for proxy in rivals] == [""] * len(rivals)
