"""What a load has seen, added up over machines, reported and compared."""

import json
import random
import re
from pathlib import Path

import pytest

from loadtest.load.compare import changes, unlike
from loadtest.load.histogram import Histogram
from loadtest.load.plan import LoadPlan, Stream
from loadtest.load.report import write_html
from loadtest.load.result import Result, read_result
from loadtest.load.run import Locust
from loadtest.load.tally import StreamTally, Tally
from loadtest.load.timetable import Fault, TimetableError, read_timetable
from loadtest.load.turns import Answer
from loadtest.load.view import table_of

OBJECTIVE = (1.0, 0.1)


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


def seen(tenant: str = "acme", slow: float = 1.0) -> Tally:
    tally = Tally()
    stream = tally.stream(tenant, "chat")
    for number in range(20):
        stream.asked(number)
        waits = 0.1 * slow * (1 + number / 10)
        stream.ended(Answer("ok", waits, waits, 2.0 * slow, [0.02, 0.03], 100, 50, 30), number + 1, OBJECTIVE)
    stream.ended(Answer("503 overloaded"), 3, OBJECTIVE)
    stream.ended(Answer("cut"), 3, OBJECTIVE)
    stream.ended(Answer("left", 0.5), 3, OBJECTIVE)
    tally.late.add(0.001)
    return tally


def result(tally: Tally, tenant: str = "acme", users: int = 5) -> Result:
    plan = LoadPlan("http://gateway", "m", {tenant: "sk-secret"}, (Stream(tenant, "chat", 1.0),), 20.0)
    fault = {"fault": "5 kill 1 for 2", "at": 5.0, "until": 7.5, "trouble": ""}
    return Result.of(plan, Locust(users), tally, [fault], 1_790_000_000.0)


def test_quantiles_are_within_two_percent_and_sums_are_the_sum() -> None:
    dice = random.Random(1)
    values = [dice.lognormvariate(0, 2) for _ in range(5000)]
    whole, parts = histogram(values), histogram(values[:2000])
    parts.merge(histogram(values[2000:]))
    ordered = sorted(values)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        true = ordered[max(0, round(share * 5000) - 1)]
        assert whole.quantile(share) == pytest.approx(true, rel=0.021)
    assert (parts.counts, parts.number) == (whole.counts, whole.number)
    assert Histogram.from_json(json.loads(json.dumps(whole.to_json()))).counts == whole.counts
    assert Histogram().quantile(0.5) is None and Histogram().mean is None


def test_an_ending_is_counted_once_and_for_what_it_is() -> None:
    counts = seen().streams["acme chat"].counts
    assert {name: counts[name] for name in ("asked", "ok", "failed", "cut", "left")} == {
        "asked": 20, "ok": 20, "failed": 1, "cut": 1, "left": 1,
    }  # fmt: skip
    assert seen(slow=6.0).streams["acme chat"].counts["good"] == 7  # the first token within a second
    assert counts["good"] == 20


def test_a_stream_of_slow_tokens_is_not_good() -> None:
    stream = StreamTally()
    stream.ended(Answer("ok", 0.1, 0.1, 2.0, [0.05, 0.2]), 0, OBJECTIVE)
    assert (stream.counts["ok"], stream.counts["good"]) == (1, 0)


def test_tallies_of_two_machines_are_one() -> None:
    one, two = seen(), Tally.from_json(json.loads(json.dumps(seen().to_json())))
    one.merge(two)
    stream = one.streams["acme chat"]
    assert stream.counts["ok"] == 40 and stream.errors == {"503 overloaded": 2}
    assert stream.times["ttft"].number == 42 and sum(row["asked"] for row in stream.seconds.values()) == 40
    assert one.late.number == 2


def test_results_survive_a_file_and_hold_no_key(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result(seen()).to_json()))
    assert "sk-secret" not in path.read_text()
    again = read_result(path)
    assert list(again.rows()) == list(result(seen()).rows())
    assert again.began == 1_790_000_000.0
    assert unlike(again, result(seen())) == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"tally": {}}'])
def test_another_file_is_no_result(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"is no result\.json of a load"):
        read_result(path)


def test_two_runs_are_compared_stream_by_stream() -> None:
    [(name, cells)] = changes(result(seen()), result(seen(slow=2.0)))
    assert name == "acme chat"
    assert cells[:3] == ["1 -> 1", "95.2% -> 95.2%", "0.2 -> 0.406 (+103%)"]  # twice, in buckets that are 4% wide
    assert unlike(result(seen()), result(seen(), users=9)) == ["users"]


def test_the_report_is_one_file_without_scripts_and_escapes_names(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    path = tmp_path / "report.html"
    write_html(result(seen(hostile), hostile), path, result(seen(hostile), hostile))
    page = path.read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 4
    assert re.findall(r"""(?:src|href)=["']([^"'#][^"']*)""", page) == []
    assert "503 overloaded" in page and "5 kill 1 for 2" in page and "sk-secret" not in page


def test_the_table_names_errors_by_cause() -> None:
    table = table_of(result(seen()))
    assert table.row_count == 2
    assert next(iter(result(seen()).remarks())).startswith("the generator sent arrivals 1 ms late")


@pytest.mark.parametrize(("ran", "seconds"), [(0.0, 20.0), (20.04, 20.0), (19.5, 20.0), (8.0, 8.0), (61.26, 61.3)])
def test_rates_are_of_the_time_that_the_load_ran(ran: float, seconds: float) -> None:
    """It can be ended early on locust's page, and given another time there. A file of before has none."""
    tally = seen()
    tally.ran = ran
    ended = result(Tally.from_json(tally.to_json()))
    (row,) = ended.rows()
    assert ended.seconds == seconds
    assert (row.asked_rate, row.good_rate) == (20 / seconds, row.counts["good"] / seconds)
    told = [remark for remark in ended.remarks() if remark.startswith("the load ran")]
    assert told == ([] if seconds == 20.0 else [f"the load ran for {seconds:g} s, and not for the planned 20"])


def test_of_several_generators_the_longest_counts() -> None:
    one, other = seen(), seen()
    one.ran, other.ran = 7.9, 8.1
    one.merge(other)
    one.merge(Tally())
    assert one.ran == 8.1


def test_a_timetable_is_read_in_any_order() -> None:
    text = "20s stall 2 for 5s, 10 kill 1\n30 redis-away for 2.5  # and back\n5 reload"
    assert read_timetable(text, 3) == (
        Fault(5.0, "reload"), Fault(10.0, "kill", "1"), Fault(20.0, "stall", "2"), Fault(30.0, "redis-away", "", 2.5),
    )  # fmt: skip
    assert read_timetable("3 drain gpu-1:8000 for 9", None) == (Fault(3.0, "drain", "gpu-1:8000", 9.0),)
    assert read_timetable("", 3) == ()


@pytest.mark.parametrize(
    ("text", "nodes", "said"),
    [
        ("kill 1", 3, "is not `SECOND ACTION"),
        ("5 explode 1", 3, "with one of kill, stall"),
        ("5 kill", 3, "kill takes a node"),
        ("5 reload 2", 3, "reload takes no node"),
        ("5 kill 4", 3, "nodes are 1 to 3"),
        ("5 kill 0", 3, "nodes are 1 to 3"),
        ("5 kill 1", None, "with URL only drain and reload, not kill"),
    ],
)
def test_what_cannot_be_read_or_done_is_said(text: str, nodes: int | None, said: str) -> None:
    with pytest.raises(TimetableError, match=said):
        read_timetable(text, nodes)
