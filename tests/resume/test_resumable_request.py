"""Which requests are sent such that their answers can be resumed."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.budgets.continuation import SLACK
from gateway.core.dialects import DIALECTS, Ask
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.plan import Plan, make_plan
from gateway.core.resume.loop_checkpoint import LoopCheckpoint
from gateway.core.resume.resumability import Resumability
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.loops import NO_BOUNDS, LoopBounds
from gateway.core.upstream.node_request import node_request, node_request_steps
from tests.support.plans import changed

KNOWN = Capabilities(True, True, (0, 32), True, think_start=(5,), think_end=(7,), stores_responses=False)
KNOWN_TO_DISOBEY = replace(KNOWN, native_budget=False)
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "a"}]},
    "completions": {"prompt": "a"},
    "responses": {"input": "a"},
    "messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4096},
}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
PICTURE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
EXACT, THINKING, NO = Resumability


def planned(dialect_name: str, fields: dict[str, Any]) -> Plan:
    dialect = next(each for each in DIALECTS if each.name == dialect_name)
    ask = dialect.read(json.dumps({"model": "m", "stream": True, **BODIES[dialect_name], **fields}).encode())
    return changed(make_plan(ask, dialect, "m", None, None), resumes=True)


@pytest.mark.parametrize("dialect", BODIES)
def test_a_streamed_answer_is_asked_for_with_its_ids(dialect: str) -> None:
    request = node_request(planned(dialect, {}), b"n", KNOWN)
    assert request.resumable and request.resumability is EXACT
    assert request.path == ("/v1/completions" if dialect == "completions" else "/v1/chat/completions")
    assert json.loads(request.body)["return_token_ids"] is True


@pytest.mark.parametrize("loops", [LoopBounds(), LoopBounds(False, True), NO_BOUNDS])
@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("dialect", BODIES)
def test_loops_are_looked_for_where_the_ids_are_there(dialect: str, resumes: bool, loops: LoopBounds) -> None:
    """Without a resume and without a budget that the gateway holds no ids are asked for."""
    plan = changed(planned(dialect, {}), resumes=resumes, loops=loops)
    watched = isinstance(node_request(plan, b"n", KNOWN).stream_filter(), LoopCheckpoint)
    assert watched is (resumes and loops.any)
    held = changed(plan, grant=Grant(4096, None, 2000))
    plain = Ask(plan.ask.raw, plan.ask.body, plan.ask.model, False, plan.ask.intent, plan.ask.max_tokens)
    for asked in (held, changed(held, ask=plain)):
        request = node_request(asked, b"n", KNOWN_TO_DISOBEY)
        assert isinstance(request.stream_filter(), LoopCheckpoint) is loops.any
        assert request.resumable is resumes
        assert request.resumability is (EXACT if resumes else NO)


@pytest.mark.parametrize("dialect", BODIES)
def test_a_plain_answer_is_asked_for_as_ever(dialect: str) -> None:
    plan = planned(dialect, {"stream": False})
    request = node_request(plan, b"n", KNOWN)
    assert not request.resumable and request.path == plan.dialect.path
    assert request.body == node_request(changed(plan, resumes=False), b"n", KNOWN).body


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, EXACT),
        ({"tools": TOOLS}, EXACT),
        ({"tools": TOOLS, "tool_choice": "required"}, THINKING),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, THINKING),
        ({"response_format": {"type": "json_object"}}, THINKING),
        ({"response_format": {"type": "text"}}, EXACT),
        ({"structured_outputs": {"regex": "a"}}, THINKING),
        ({"n": 1}, EXACT),
        ({"n": 2}, NO),
        ({"logprobs": True}, NO),
        ({"logprobs": False}, EXACT),
        ({"prompt_logprobs": 1}, NO),
        ({"use_beam_search": True}, NO),
        ({"messages": PICTURE}, NO),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]}, NO),
        ({"messages": [{"role": "user", "content": "caf\u00e9"}]}, EXACT),
        ({"stop": ["a", "b", "c", "d"]}, EXACT),
        ({"messages": [{"role": "user", "content": 'an "image_url" in words'}]}, EXACT),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]}, EXACT),
    ],
    ids=str,
)
def test_how_far_a_chat_can_be_resumed(fields: dict[str, Any], expected: Resumability) -> None:
    request = node_request(planned("chat", fields), b"n", KNOWN)
    assert request.resumability is expected and request.resumable is (expected is not NO)


@pytest.mark.parametrize("stop", [["a" * 100_000], "a" * 100_000, list(map(str, range(100)))], ids=["1", "2", "3"])
@pytest.mark.parametrize("dialect", ["chat", "completions"])
def test_an_answer_with_very_many_stop_strings_cannot_be_resumed(dialect: str, stop: Any) -> None:
    """Each is searched for in each event: half a million of them cost 0.4 s an event."""
    assert not node_request(planned(dialect, {"stop": stop}), b"n", KNOWN).resumable


def test_a_picture_in_another_spelling_is_one() -> None:
    raw = b'{"model":"m","stream":true,"messages":[{"role":"user","content":[{"type":"\\u0069mage_url",'
    raw += b'"\\u0069mage_url":{"url":"data:,"}}]}]}'
    chat = next(each for each in DIALECTS if each.name == "chat")
    plan = changed(make_plan(chat.read(raw), chat, "m", None, None), resumes=True)
    assert not node_request(plan, b"n", KNOWN).resumable


def test_an_answer_of_several_prompts_cannot_be_resumed() -> None:
    for prompt, resumable in (
        (["a"], True),
        (["a", "b"], False),
        ([1, 2], True),
        ([[1, 2]], True),
        ([[1], [2]], False),
        ([[]], False),
        ([], False),
    ):
        assert node_request(planned("completions", {"prompt": prompt}), b"n", KNOWN).resumable is resumable


@pytest.mark.parametrize(
    ("store", "node_stores", "resumable"),
    [
        (None, False, True),
        (None, True, False),
        (None, None, False),
        (True, False, True),
        (True, True, False),
        (False, True, True),
        (False, None, True),
    ],
)
def test_a_response_that_its_node_stores_stays_one(
    store: bool | None, node_stores: bool | None, resumable: bool
) -> None:
    """Chat stores nothing, so nobody could build on the response."""
    plan = planned("responses", {} if store is None else {"store": store})
    node = Capabilities(True, True, (0, 32), True, think_end=(7,), stores_responses=node_stores)
    assert node_request(plan, b"n", node).resumable is resumable


def test_what_chat_cannot_say_is_sent_in_its_own_dialect() -> None:
    """Only what could be resumed is translated for it."""
    for fields in (
        {"text": {"format": {"type": "other"}}},
        {"input": [{"role": "user", "content": PICTURE[0]["content"]}]},
    ):
        plan = planned("responses", {"store": False, **fields})
        request = node_request(plan, b"n", KNOWN)
        assert request.path == "/v1/responses" and not request.resumable


@pytest.mark.parametrize("value", [True, False, None])
def test_a_client_that_speaks_of_ids_itself(value: bool | None) -> None:
    request = node_request(planned("chat", {"return_token_ids": value}), b"n", KNOWN)
    assert request.resumable
    assert json.loads(request.body)["return_token_ids"] is True and request.body.count(b"return_token_ids") == 1


def test_a_large_body_is_prepared_alike() -> None:
    plan = planned("messages", {})
    *_, last = node_request_steps(plan, b"n", KNOWN, SLACK)
    assert last is not None and last.resumable and last.body == node_request(plan, b"n", KNOWN).body
