"""What a load asks for and when: scenarios, arrivals, mixes, traces. Nothing here talks to anybody."""

import itertools
import json
import random
from pathlib import Path

import pytest

from loadtest.load.arrivals import Arrivals
from loadtest.load.plan import LoadPlan, PlanError, Stream, deal, plan_from_json, read_keys, streams_of
from loadtest.load.scenarios import MIXES, SCENARIOS, Draw
from loadtest.load.trace import TraceError, read_trace, session_of
from loadtest.load.turns import Answer, Turn, body_of

TRACE = [
    {"timestamp": 0, "input_length": 1000, "output_length": 50, "hash_ids": [1, 2]},
    {"timestamp": 500, "input_length": 1500, "output_length": 20, "hash_ids": [1, 2, 3]},
    {"timestamp": 9000, "input_length": 10, "output_length": 1, "hash_ids": [9]},
]


def draw(name: str = "one", scale: float = 1.0, tenant: str = "acme") -> Draw:
    return Draw(random.Random(name), name, tenant, scale)


def played(scenario: str, given: Draw, answer: Answer | None = None) -> list[Turn]:
    """All turns of one session, each answered alike."""
    session = SCENARIOS[scenario].session(given)
    turns = [next(session)]
    while True:
        try:
            turns.append(session.send(answer or Answer(text="yes")))
        except StopIteration:
            return turns


def words(turn: Turn) -> int:
    return sum(len(str(message["content"]).split()) for message in turn.messages)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_scenario_comes_to_its_end_and_is_a_request_for_both_kinds_of_nodes(name: str) -> None:
    for turn in played(name, draw(scale=0.05)):
        marked, budgeted = body_of(turn, "m", "marks"), body_of(turn, "m", "budget")
        assert "[[answer=" in str(marked["extra_body"]["messages"][-1]["content"])
        assert "[[" not in str(budgeted["extra_body"]["messages"])
        assert budgeted["max_tokens"] >= turn.answer + turn.thinking
        json.dumps(marked), json.dumps(budgeted)


@pytest.mark.parametrize("name", ["chat", "agents", "batch"])
def test_a_session_ends_with_its_first_failure(name: str) -> None:
    assert len(played(name, draw(scale=0.05), Answer(ending="timeout"))) == 1


def test_an_agent_answers_each_call_and_sends_all_that_was_said() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    turns = played("agents", draw(scale=0.01), Answer(calls=[call]))
    assert [turn.call for turn in turns] == [True] * 7 + [False]
    roles = [message["role"] for message in turns[-1].messages]
    assert roles == ["system", "user", *["assistant", "tool"] * 7]
    assert {turn.session for turn in turns} == {"one"}


def test_agents_of_a_tenant_share_their_beginning_and_tenants_do_not() -> None:
    first, second = (played("agents", draw(name))[0].messages for name in ("a", "b"))
    other = played("agents", draw("a", tenant="globex"))[0].messages
    assert first[0] == second[0] != other[0]
    assert first[1] != second[1]


def test_thinking_is_as_long_as_the_scenario_says() -> None:
    lengths = [played("reasoning", draw(str(number)))[0].thinking for number in range(300)]
    assert 2000 <= min(lengths) < 2500 and 7500 < max(lengths) <= 8000
    assert 3000 < sorted(lengths)[150] < 5000


def test_long_prompts_share_nine_tenths() -> None:
    turns = [played("long", draw(str(number)))[0] for number in range(8)]
    assert all(words(turn) == 64_000 and turn.answer + turn.thinking == 400 for turn in turns)
    assert len({turn.messages[0]["content"] for turn in turns}) <= 4
    assert len(str(turns[0].messages[0]["content"]).split()) == 57_600


def test_arrivals_are_poisson_and_ask_for_no_answer() -> None:
    moments = list(itertools.islice(Arrivals(2.0).moments(random.Random(1)), 4000))
    assert moments == sorted(moments)
    assert moments[-1] / 4000 == pytest.approx(2.0, rel=0.05)
    assert moments == list(itertools.islice(Arrivals(2.0).moments(random.Random(1)), 4000))


def test_bursts_are_as_many_arrivals_in_a_part_of_the_time() -> None:
    arrivals = Arrivals(2.0, burst=5.0, period=30.0)
    moments = list(itertools.takewhile(lambda at: at < 6000, arrivals.moments(random.Random(1))))
    assert len(moments) == pytest.approx(3000, rel=0.1)
    assert all(moment % 30.0 <= 5.0 for moment in moments)


@pytest.mark.parametrize("mix", MIXES)
def test_users_are_dealt_by_their_shares(mix: str) -> None:
    streams = streams_of(mix, ["acme", "globex"])
    total = sum(stream.share for stream in streams)
    dealt = list(itertools.islice(deal(streams), 1000))
    for stream in streams:
        assert dealt.count(stream) == pytest.approx(1000 * stream.share / total, abs=2)
    assert {stream.tenant for stream in dealt} == {"acme", "globex"}


def test_the_noisy_neighbour_is_one_tenant() -> None:
    streams = streams_of("neighbours", ["loud", "one", "two"])
    assert {stream.tenant for stream in streams if stream.scenario == "noisy"} == {"loud"}
    assert {stream.tenant for stream in streams if stream.scenario != "noisy"} == {"one", "two"}


def test_streams_can_be_named_by_tenant() -> None:
    assert streams_of("a=chat,b=batch", ["a", "b"]) == (Stream("a", "chat", 1.0), Stream("b", "batch", 1.0))


@pytest.mark.parametrize(("given", "said"), [("chart", "'chart' is none of chat"), ("c=chat", "'c' has no key")])
def test_unknown_scenarios_and_tenants_are_named(given: str, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        streams_of(given, ["a"])


def test_keys_are_one_or_named() -> None:
    assert read_keys("sk-1") == {"default": "sk-1"}
    assert read_keys("a:sk-1, b:sk-2") == {"a": "sk-1", "b": "sk-2"}
    for wrong in ("a:", "a:x,a:y", "sk-1,sk-2"):
        with pytest.raises(PlanError, match="KEY is"):
            read_keys(wrong)


def test_a_plan_survives_json() -> None:
    plan = LoadPlan("http://u", "m", {"a": "k"}, streams_of("mixed", ["a"]), 10.0, ttft=1.5)
    assert plan_from_json(plan.to_json()) == plan
    assert plan.objective("batch") == (1.5, 0.1)


def test_a_trace_is_dealt_to_generators_and_keeps_its_moments_and_shared_blocks(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TRACE))
    rows = list(read_trace(path, seconds=5.0))
    assert [row.at for row in rows] == [0.0, 0.5]
    assert [row.at for row in read_trace(path, 5.0, speed=2.0)] == [0.0, 0.25, 4.5]
    parts = [list(read_trace(path, 5.0, part=part, parts=2)) for part in (0, 1)]
    assert parts == [[rows[0]], [rows[1]]]
    first, second = (next(session_of(row, 1.0)) for row in rows)
    assert (words(first), first.answer + first.thinking) == (1000, 50)
    assert str(second.messages[0]["content"]).startswith(str(first.messages[0]["content"]))


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"timestamp": "soon", "input_length": 1, "output_length": 1}'])
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps(TRACE[0]) + "\n" + line + "\n")
    with pytest.raises(TraceError, match=r"trace\.jsonl:2: not a request"):
        list(read_trace(path, 5.0))
