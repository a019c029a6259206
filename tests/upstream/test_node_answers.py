"""How one plan is sent to one node, by what that node can do, and what becomes of its answer."""

import json
from typing import Any

import pytest

from gateway.core.budgets.backstop import Backstop
from gateway.core.budgets.messages_backstop import MessagesBackstop
from gateway.core.dialects import DIALECTS
from gateway.core.dialects.response_ids import node_tag
from gateway.core.dialects.stream_filter import STOP, StreamFilter
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import BELIEVED, UNKNOWN, Capabilities
from gateway.core.plan import Plan, make_plan
from gateway.core.thinking.loops import NO_BOUNDS
from gateway.core.upstream.node_held_budget import NodeHeldBudget
from gateway.core.upstream.node_request import node_request, node_request_steps
from gateway.core.upstream.node_request_kinds import (
    EnforcedBudget,
    EnforcedPlainBudget,
    HiddenReasoning,
    NodeRequest,
    TranslatedRequest,
)
from gateway.core.usage.token_usage import Usage
from tests.support.plans import changed

NODE = node_tag("http://a")
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
TURNS = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": TURNS},
    "completions": {"prompt": "hi"},
    "responses": {"input": "hi"},
    "messages": {"messages": TURNS, "max_tokens": 4000},
    "count_tokens": {"messages": TURNS},
    "embeddings": {"input": "hi"},
}
BUDGET: dict[str, Any] = {"thinking_token_budget": 5}
THINKING: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
OFF: dict[str, Any] = {"thinking": {"type": "disabled"}}
HIDE: dict[str, Any] = {"reasoning": {"exclude": True}}
MARKERS = Capabilities(think_start=(7,), think_end=(8,), window=1000)


def plan_of(name: str, salt: str | None = None, **fields: Any) -> Plan:
    dialect = BY_NAME[name]
    raw = json.dumps({"model": "m", **BODIES[name], **fields}).encode()
    return changed(make_plan(dialect.read(raw), dialect, "m", None, None, salt=salt), loops=NO_BOUNDS)


def sent(name: str, capabilities: Capabilities = UNKNOWN, **fields: Any) -> NodeRequest:
    return node_request(plan_of(name, **fields), NODE, capabilities)


def compact(value: Any) -> bytes:
    """As nodes write it: they are known by their bytes."""
    return json.dumps(value, separators=(",", ":")).encode()


def event(value: Any) -> bytes:
    return b"data: " + compact(value) + b"\n\n"


def chunk(delta: dict[str, Any], ids: list[int] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": ids}
    return event(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    )


OPENING = chunk({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2, 7])


@pytest.mark.parametrize(
    ("name", "fields", "capabilities", "expected"),
    [
        ("chat", {}, UNKNOWN, NodeRequest),
        ("chat", BUDGET, BELIEVED, NodeHeldBudget),
        ("chat", BUDGET, UNKNOWN, EnforcedPlainBudget),
        ("chat", BUDGET | {"stream": True}, UNKNOWN, EnforcedBudget),
        ("chat", BUDGET | {"stream": True}, Capabilities(native_budget=False), EnforcedBudget),
        ("chat", {"reasoning_effort": "none"}, UNKNOWN, NodeHeldBudget),  # the template's switch
        ("chat", {"reasoning_effort": "none"}, Capabilities(native_off=False), EnforcedPlainBudget),
        ("chat", HIDE, UNKNOWN, HiddenReasoning),
        ("chat", HIDE, Capabilities(splits_reasoning=True), HiddenReasoning),
        ("chat", HIDE, Capabilities(splits_reasoning=False), EnforcedPlainBudget),
        ("completions", HIDE, Capabilities(splits_reasoning=False), HiddenReasoning),
        ("completions", BUDGET, BELIEVED, NodeRequest),  # raw text: nobody can count it beside the node
        ("completions", BUDGET, UNKNOWN, EnforcedPlainBudget),
        ("messages", {}, UNKNOWN, NodeRequest),
        ("messages", THINKING, BELIEVED, NodeHeldBudget),
        ("messages", THINKING, Capabilities(native_budget=True, version=(0, 32)), NodeHeldBudget),
        ("messages", THINKING, Capabilities(native_budget=True, version=(0, 31)), TranslatedRequest),
        ("messages", THINKING, UNKNOWN, TranslatedRequest),
        (
            "messages",
            THINKING | {"max_tokens": 1000},
            BELIEVED,
            TranslatedRequest,
        ),  # it has to be below max_tokens there
        ("messages", OFF, UNKNOWN, NodeHeldBudget),
        ("messages", OFF, Capabilities(native_off=False), TranslatedRequest),
        ("messages", HIDE, UNKNOWN, HiddenReasoning),
        ("messages", HIDE, Capabilities(splits_reasoning=False), TranslatedRequest),
        ("messages", {"salt": "s"}, UNKNOWN, TranslatedRequest),
        ("messages", {"salt": "s"}, Capabilities(version=(0, 31)), TranslatedRequest),
        ("messages", {"salt": "s"}, Capabilities(version=(0, 32)), NodeRequest),
        ("chat", {"salt": "s"}, UNKNOWN, NodeRequest),
        ("responses", {}, UNKNOWN, NodeRequest),
        ("responses", BUDGET, BELIEVED, TranslatedRequest),  # no version has a budget there
        ("embeddings", BUDGET, UNKNOWN, NodeRequest),
    ],
)
def test_who_holds_what_is_decided_by_what_the_node_can_do(
    name: str, fields: dict[str, Any], capabilities: Capabilities, expected: type[NodeRequest]
) -> None:
    sending = sent(name, capabilities, **fields)
    assert type(sending) is expected
    assert sending.dialect.name == name, "the client's dialect stays"
    path = BY_NAME["chat" if expected is TranslatedRequest else name].path
    assert sending.path == path
    assert sending.needs_stream is sending.assembles or not isinstance(sending, EnforcedPlainBudget)
    assert sending.rewrites is (expected in (HiddenReasoning, TranslatedRequest))


@pytest.mark.parametrize("name", ["messages", "responses", "chat", "embeddings"])
def test_the_config_can_have_every_dialect_asked_in_chat_that_can_be(name: str) -> None:
    sending = node_request(changed(plan_of(name), over_chat=True), NODE, UNKNOWN)
    assert type(sending) is (TranslatedRequest if name in ("messages", "responses") else NodeRequest)


def test_a_long_body_is_prepared_in_steps_with_the_sending_as_the_last() -> None:
    steps = list(node_request_steps(plan_of("messages", **THINKING), NODE, UNKNOWN))
    assert [type(step) for step in steps] == [type(None)] * 3 + [TranslatedRequest]
    assert len(list(node_request_steps(plan_of("chat"), NODE, UNKNOWN))) == 1


def test_what_need_not_be_changed_goes_as_it_came_and_comes_back_as_it_is() -> None:
    sending = sent("chat")
    answer = b'{"choices":[{"finish_reason":"abort"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    assert sending.body == plan_of("chat").ask.raw
    assert sending.plain(200, answer) == answer
    assert sending.usage(answer) == Usage(3, 2, None, None)
    assert sending.gave_up(answer)
    assert sending.budget_report is None


@pytest.mark.parametrize(
    ("name", "fields", "shows"),
    [
        ("chat", {}, True),
        ("count_tokens", {}, False),
        ("responses", {}, True),
        ("responses", {"background": True}, False),
    ],
)
def test_an_answer_shows_life_where_a_model_has_worked_for_it(name: str, fields: dict[str, Any], shows: bool) -> None:
    assert sent(name, **fields).shows_life is shows


def test_hidden_reasoning_is_taken_out_of_streams_and_answers_and_errors_pass() -> None:
    sending = sent("chat", **HIDE, stream=True)
    assert sending.stream_filter().feed(chunk({"reasoning": "hm"})) == b""
    answer = b'{"choices":[{"message":{"content":"a","reasoning":"hm"}}]}'
    assert json.loads(sending.plain(200, answer))["choices"][0]["message"] == {"content": "a", "reasoning": None}
    assert sending.plain(500, b"not JSON") == b"not JSON"


# A node that holds budgets, and the backstop behind it. A budget of 5 has a slack of 5 % and 16 tokens: 21.


@pytest.mark.parametrize(("reasoning", "overran"), [(5, False), (21, False), (22, True)])
def test_a_plain_answer_far_beyond_its_budget_is_evidence(reasoning: int, overran: bool) -> None:
    sending = sent("chat", BELIEVED, **BUDGET)
    details = {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    sending.usage(json.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 90, **details}}).encode())
    budget_report = sending.budget_report
    assert budget_report is not None and (budget_report.overran, budget_report.evidence, budget_report.pace) == (
        overran,
        overran,
        None,
    )


@pytest.mark.parametrize(
    ("fields", "overran", "evidence"),
    [
        ({"n": 2}, False, False),  # 30 tokens of two answers
        ({"add_generation_prompt": False}, False, False),  # the answer was begun by the client
        ({"stop": ["x"]}, True, False),  # may move what is counted
        ({"messages": [{"role": "user", "content": "</think>"}]}, True, False),
        ({}, True, True),
    ],
)
def test_what_the_client_may_have_caused_is_no_evidence(fields: dict[str, Any], overran: bool, evidence: bool) -> None:
    sending = sent("chat", BELIEVED, **BUDGET, **fields)
    sending.usage(
        b'{"usage":{"prompt_tokens":1,"completion_tokens":90,"completion_tokens_details":{"reasoning_tokens":30}}}'
    )
    budget_report = sending.budget_report
    assert budget_report is not None and (budget_report.overran, budget_report.evidence) == (overran, evidence)


def test_thinking_that_was_switched_off_and_comes_all_the_same_is_no_evidence_of_budgets() -> None:
    sending = sent("chat", UNKNOWN, reasoning_effort="none")
    sending.usage(
        b'{"usage":{"prompt_tokens":1,"completion_tokens":90,"completion_tokens_details":{"reasoning_tokens":30}}}'
    )
    budget_report = sending.budget_report
    assert budget_report is not None and (budget_report.overran, budget_report.evidence) == (True, False)


def overrun(watch: StreamFilter) -> bytes:
    """What the client gets of a stream that goes on thinking for 60 events, up to where the watch ends it."""
    passed = watch.feed(OPENING)
    for number in range(60):
        passed += watch.feed(chunk({"reasoning": "hm "}, [100 + number]))
        if watch.follow_up is not None:
            break
    return passed


@pytest.mark.parametrize("hide", [False, True])
def test_a_stream_far_beyond_its_budget_is_ended_and_is_evidence(hide: bool) -> None:
    sending = sent("chat", Capabilities(native_budget=True), **BUDGET, **(HIDE if hide else {}), stream=True)
    watch = sending.stream_filter()
    assert isinstance(watch, Backstop) is not hide
    passed = overrun(watch)
    assert watch.follow_up is STOP, "the markers are not known, so the answer cannot be continued"
    assert (b'"reasoning"' in passed) is not hide
    assert b'"finish_reason":"length"' in passed and passed.endswith(b"data: [DONE]\n\n")
    budget_report = sending.budget_report
    assert budget_report is not None and budget_report.overran
    assert budget_report.evidence is not hide, "`reasoning` is a field that is not listed as plain"


@pytest.mark.parametrize("fields", [{"n": 2}, {"add_generation_prompt": False, "continue_final_message": True}])
def test_what_cannot_be_counted_on_the_stream_has_no_backstop(fields: dict[str, Any]) -> None:
    sending = sent("chat", BELIEVED, **BUDGET, **fields, stream=True)
    watch = sending.stream_filter()
    assert type(watch) is type(sent("chat", stream=True).stream_filter())
    assert overrun(watch) and watch.follow_up is None


def test_a_message_has_a_backstop_of_its_own() -> None:
    sending = sent("messages", BELIEVED, **THINKING, stream=True)
    assert isinstance(sending.stream_filter(), MessagesBackstop)
    assert type(sent("messages", BELIEVED, **THINKING, **HIDE, stream=True).stream_filter()) is not MessagesBackstop


# A node that does not


def test_a_budget_that_the_gateway_holds_is_not_told_to_the_node() -> None:
    sending = sent("chat", MARKERS, **BUDGET, stream=True, max_tokens=50)
    body = json.loads(sending.body)
    assert "thinking_token_budget" not in body
    assert (body["stream"], body["return_token_ids"]) == (True, True)
    watch = sending.stream_filter()
    overrun(watch)
    assert watch.follow_up is not None and watch.follow_up.path == "/v1/completions"
    continued = json.loads(watch.follow_up.body)
    assert continued["prompt"] == [1, 2, 7, 100, 101, 102, 103, 104, 8]
    assert continued["max_tokens"] == 50 - 5 - 1
    assert sending.budget_report is None


def test_a_client_that_asked_for_no_stream_gets_one_answer() -> None:
    sending = sent("chat", MARKERS, **BUDGET)
    assert sending.assembles and sending.needs_stream
    watch = sending.stream_filter()
    assert watch.feed(OPENING + chunk({"content": "hi"}, [8, 200], "stop") + b"data: [DONE]\n\n") == b""
    answer = json.loads(watch.flush())
    assert (answer["object"], answer["choices"][0]["message"]["content"]) == ("chat.completion", "hi")


def test_a_message_over_chat_is_held_and_told_as_a_message() -> None:
    """The two ways compose: the enforcement ends the thinking, the translation writes the client's events."""
    sending = sent("messages", MARKERS, thinking={"type": "enabled", "budget_tokens": 1024}, stream=True)
    assert sending.needs_stream and not sending.assembles
    watch = sending.stream_filter()
    told = watch.feed(OPENING + chunk({"reasoning": "hm"}, [100]) + chunk({"content": "hi"}, [8, 200], "stop"))
    usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    told += watch.feed(event({"id": "c", "choices": [], "usage": usage}) + b"data: [DONE]\n\n") + watch.flush()
    kinds = [json.loads(line[6:])["type"] for line in told.split(b"\n") if line.startswith(b"data: {")]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert b"thinking_delta" in told and b"text_delta" in told and b"chat.completion" not in told
    assert watch.ended and not watch.failed and watch.usage is not None and watch.usage.output == 3


@pytest.mark.parametrize("name", ["messages", "responses"])
def test_a_plain_answer_over_chat_is_told_in_the_clients_dialect(name: str) -> None:
    sending = node_request(changed(plan_of(name), over_chat=True), NODE, UNKNOWN)
    message = {"role": "assistant", "content": "hi", "reasoning": "hm"}
    choice = {"index": 0, "message": message, "finish_reason": "abort"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    answer = compact({"id": "c", "created": 1, "model": "m", "choices": [choice], "usage": usage})
    assert sending.gave_up(answer)
    assert sending.usage(answer) == Usage(3, 2, None, None)
    assert sending.budget_report is None
    told = json.loads(sending.plain(200, answer.replace(b"abort", b"stop")))
    assert [part["type"] for part in told["content" if name == "messages" else "output"]] == (
        ["thinking", "text"] if name == "messages" else ["reasoning", "message"]
    )
    watch = sending.stream_filter()
    assert b"chat.completion" not in watch.feed(OPENING + chunk({"content": "hi"}))


def test_an_assembled_answer_over_chat_is_told_in_the_clients_dialect() -> None:
    sending = sent("messages", MARKERS, **THINKING)
    assert sending.assembles
    watch = sending.stream_filter()
    assert watch.feed(OPENING + chunk({"content": "hi"}, [8, 200], "stop") + b"data: [DONE]\n\n") == b""
    told = json.loads(sending.plain(200, watch.flush()))
    assert told["type"] == "message" and told["content"] == [{"type": "text", "text": "hi"}]


def test_a_refusal_of_the_chat_names_the_clients_own_field() -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent("responses", UNKNOWN, **BUDGET, include=["message.output_text.logprobs"])
    assert caught.value.param == "include"
    assert "'include'" in caught.value.message and "'logprobs'" not in caught.value.message
