"""Nodes die all the time, and clients of all dialects see whole answers: nothing lost, nothing doubled, usage exact.

pytest -m prove -s tests/resume/test_storm.py
"""

import json
from dataclasses import replace

import pytest

from tests.resume.storm import Storm, play, report
from tests.resume.storm_harm import HARMS
from tests.resume.storm_requests import KINDS, Said, storm_request
from tests.resume.storm_verdict import StormResult, judge

SMALL = Storm("mixed", streams=16, seconds=3.0, every=1.0, nodes=3, rate=60.0, length=0.5)
LONG = {
    "kill": Storm("kill"),
    "turns": Storm("turns", nodes=2),
    "stop": Storm("stop", every=4.0, variables={"FLEETGATE_TIMEOUTS__STALL": "4"}),
    "tear": Storm("tear"),
    "faults": Storm("faults"),
}
EXPECTED = Said("I think. So", " it is so.", "stop", 10, 8, 4)


def check(result: StormResult) -> None:
    print(report(result))
    plain = [verdict for asked, verdict in result.verdicts if not asked.body.get("stream")]
    assert result.resumed > 0, "nothing was put to the test"
    assert not all(verdict.refused for verdict in plain)
    assert result.faults() == {}, report(result)


async def test_a_small_storm_costs_no_token() -> None:
    check(await play(SMALL))


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("harm", LONG)
async def test_a_storm_of_a_minute_costs_no_token(harm: str) -> None:
    check(await play(LONG[harm]))


def test_there_is_a_proof_for_each_harm() -> None:
    assert HARMS.keys() - LONG.keys() == {"none", SMALL.harm}


def chunk(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "token_ids": None}
    body = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
THOUGHT = [chunk({"reasoning": text}) for text in ("I", " think", ".", " So")]
ANSWER = [chunk({"content": text}) for text in (" it", " is", " so", ".")]
FINISH = chunk({}, "stop")
DETAILS = {"reasoning_tokens": 4}
USAGE = chunk({}, choices=[], usage={"prompt_tokens": 10, "completion_tokens": 8, "completion_tokens_details": DETAILS})
END = b"data: [DONE]\n\n"
WHOLE = (ROLE, *THOUGHT, *ANSWER, FINISH, USAGE, END)


def spoilt(*events: bytes, ended: bool = True) -> str:
    chat = storm_request(KINDS.index("chat"))
    return judge(chat, 200, b"".join(events), ended, EXPECTED).faults


def test_the_whole_answer_has_no_fault() -> None:
    assert spoilt(*WHOLE) == ""
    resumed = judge(storm_request(0), 200, b"".join((ROLE, b": resumed on another node\n", *WHOLE[1:])), True, EXPECTED)
    assert (resumed.faults, resumed.resumes) == ("", 1)


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_what_is_missing_or_doubled_is_found(at: int) -> None:
    assert spoilt(*WHOLE[:at], *WHOLE[at + 1 :])
    assert spoilt(*WHOLE[: at + 1], *WHOLE[at:])


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ((ROLE, *THOUGHT[1:], *ANSWER, FINISH, USAGE, END), "1 tokens lost, 0 doubled"),
        ((ROLE, *THOUGHT, *ANSWER[:2], *ANSWER, FINISH, USAGE, END), "0 tokens lost, 2 doubled"),
        ((ROLE, *THOUGHT, FINISH, USAGE, END), "4 tokens lost, 0 doubled"),
        ((ROLE, *THOUGHT, b'data: {"error": {"code": 500}}\n\n', END), "{'code': 500}; 4 tokens lost, 0 doubled"),
        ((ROLE, *THOUGHT, *ANSWER, FINISH, USAGE), "a stream without its end"),
        ((ROLE, *THOUGHT, *ANSWER, chunk({}, "length"), USAGE, END), "finish length for stop"),
        ((ROLE, *THOUGHT, *ANSWER, FINISH, USAGE.replace(b"8", b"9"), END), "output_tokens 9 for 8"),
        ((ROLE, *THOUGHT, *ANSWER, FINISH.replace(b'"1"', b'"2"'), USAGE, END), "kinds of heads: 2"),
        ((ROLE, *THOUGHT, *ANSWER, FINISH.replace(b"null", b"[4]"), USAGE, END), "token ids that nobody asked for"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(events: tuple[bytes, ...], fault: str) -> None:
    assert spoilt(*events) == fault


def test_a_connection_that_ends_is_no_end() -> None:
    assert spoilt(*WHOLE, ended=False) == "the connection ended in the answer"
    assert spoilt(ROLE, *THOUGHT[:2], ended=False) == "the connection ended in the answer; 6 tokens lost, 0 doubled"


def test_a_plain_request_may_be_refused_and_not_cut() -> None:
    plain = storm_request(KINDS.index("plain"))
    refused = judge(plain, 502, b'{"error":{"code":"upstream_cut"}}', True, EXPECTED)
    assert (refused.refused, refused.faults) == (True, "")
    assert judge(plain, 200, b"", True, EXPECTED).faults == "200 without a body; 8 tokens lost, 0 doubled"
    assert judge(plain, 200, b'{"choices"', False, EXPECTED).broken
    assert judge(storm_request(KINDS.index("chat")), 502, b'{"error":{}}', True, EXPECTED).broken


def test_no_two_clients_ask_the_same() -> None:
    asked = [storm_request(number) for number in range(500)]
    assert len({json.dumps(one.body) for one in asked}) == len({json.dumps(one.direct) for one in asked}) == 500
    assert {one.kind for one in asked} == set(KINDS)
    assert replace(asked[3], kind="") == replace(storm_request(3), kind="")


def test_only_a_thought_s_end_may_be_held_back() -> None:
    expected = replace(EXPECTED, held=3)
    chat = storm_request(KINDS.index("chat"))

    def faults(*thought: bytes) -> str:
        return judge(chat, 200, b"".join((ROLE, *thought, *ANSWER, FINISH, USAGE, END)), True, expected).faults

    assert faults(*THOUGHT) == faults(*THOUGHT[:-1]) == "", "as a node's stop strings have it"
    assert faults(*THOUGHT[:-2]) and faults(*THOUGHT[1:]) and faults(THOUGHT[0], *THOUGHT[2:])
