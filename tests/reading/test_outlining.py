"""An outline says what the body says, and is edited to what the body is edited to: no answer tells which of both a
gateway went by."""

import json
import marshal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.bodies import parse_body
from gateway.core.body_edits import edit_body
from gateway.core.dialects import DIALECTS, Ask, Dialect
from gateway.core.dialects.base import FORBIDDEN_FIELDS
from gateway.core.errors import InvalidRequest
from gateway.core.plan import make_plan
from gateway.core.reading.outline import Outline
from gateway.core.reading.outlining import KEPT, MOST_BESIDE, Outlined, Refusal, outline_body, places_of
from gateway.core.routing.conversations import ConversationNaming, conversation_of
from tests.support.compiled import slots_of

CHAT, COMPLETIONS, RESPONSES, MESSAGES = DIALECTS[:4]

NAMES = st.sampled_from(
    ["model", "n", "max_tokens", "priority", "cache_salt", "stop", "metadata", 'a"b', "é", "\\", "messages", "user"]
) | st.text(max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8).filter(lambda text: text.isascii() or text.isprintable()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
SPELLINGS: list[dict[str, Any]] = [
    {},
    {"ensure_ascii": False},
    {"indent": 2},
    {"separators": (",", ":")},
    {"separators": (" \n,\t", " : ")},
]


def outlined(dialect: Dialect, raw: bytes) -> Outlined | Refusal:
    """As it comes from the process."""
    found = outline_body(dialect, raw)
    plain: Any = marshal.loads(marshal.dumps(tuple(found)))
    return type(found)(*plain)


def asks(dialect: Dialect, raw: bytes) -> tuple[Ask, Ask]:
    """What is asked, read here and by an outline."""
    found = outlined(dialect, raw)
    assert isinstance(found, Outlined)
    return dialect.read(raw), dialect.read(raw if found.raw is None else found.raw, found.outline())


@given(
    st.dictionaries(NAMES, VALUES, max_size=8), st.dictionaries(NAMES, VALUES, max_size=3), st.sampled_from(SPELLINGS)
)
def test_a_body_is_edited_alike_by_places_and_by_its_fields(
    body: dict[str, Any], changes: dict[str, Any], spelling: dict[str, Any]
) -> None:
    raw = (" " + json.dumps(body, **spelling) + "\n").encode(errors="surrogatepass")
    parsed = parse_body(raw)
    places = places_of(raw)
    assert {name: json.loads(raw[value:end]) for name, (_, value, end) in places.items()} == body
    outline = Outline(parsed, places)
    for removals in (frozenset[str](), FORBIDDEN_FIELDS):
        edited = edit_body(raw, outline, changes, removals)
        assert json.loads(edited) == json.loads(edit_body(raw, parsed, changes, removals))
        for name, (key, _, end) in places.items():  # what stays, stays as it was spelled
            assert name in changes or name in removals or raw[key:end] in edited


INVALID = [
    b"",
    b"[]",
    b"\xef\xbb\xbf{}",
    b'{"model":"m","messages":[{"role":"user","content":"a"}],"messages":[]}',
    b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"m","messages":[NaN]}',
    b'{"model":"m","messages":[1e999]}',
    b'{"model":"m","messages":' + b"[" * 200 + b"]" * 200 + b"}",
    b'{"model":"m","messages":[' + b"1" * 5000 + b"]}",
    b'{"model":"m","messages":[\xff]}',
    b'{"model":3,"input":"a"}',
    b'{"model":"m","stream":"perhaps","input":[]}',
    b'{"model":"m","max_tokens":"many","max_output_tokens":"many","prompt":"a"}',
    b'{"model":"m","prompt":{"a":1},"tokens":{"a":1}}',
    b'{"model":"m","messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"'
    + b"[" * 600
    + b'"}}]}],"input":[{"arguments":"'
    + b"[" * 600
    + b'"}]}',
]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("raw", INVALID, ids=lambda raw: repr(raw[:60]))
def test_a_body_is_refused_with_the_same_words(dialect: Dialect, raw: bytes) -> None:
    try:
        dialect.read(raw)
    except InvalidRequest as error:
        found = outlined(dialect, raw)
        assert isinstance(found, Refusal)
        told = found.error()
        assert (type(told), told.message, told.param, told.code) == (
            type(error),
            error.message,
            error.param,
            error.code,
        )
    else:
        assert isinstance(outlined(dialect, raw), Outlined)


TURN = {"role": "user", "content": [{"type": "text", "text": "abcde" * 3}] * 3}
TOOLS = [{"type": "function", "name": str(number)} for number in range(40)]
WIDE = [{"role": "user", "content": [{"type": "text", "text": "a", "more": [1] * 40}] * 40}] * 40
LONG: list[tuple[Dialect, dict[str, Any]]] = [
    (CHAT, {"messages": [TURN] * 1000, "max_tokens": "7", "n": 2.0, "stream": True, "reasoning_effort": "low"}),
    (CHAT, {"messages": [TURN], "tools": [{"type": "function", "function": {"name": str(n)}} for n in range(900)]}),
    (CHAT, {"messages": WIDE, "tools": TOOLS, "logit_bias": {"1": 1}}),
    (CHAT, {"messages": [{"role": "system", "content": "long " * 9000}, *[TURN] * 900]}),
    (CHAT, {"messages": [TURN], "logit_bias": {str(n): 1 for n in range(5000)}, "chat_template_kwargs": {"a": [1]}}),
    (COMPLETIONS, {"prompt": list(range(9000)), "max_tokens": 3, "n": None}),
    (COMPLETIONS, {"prompt": [*range(50), *[7] * 9000], "stream": True}),
    (COMPLETIONS, {"prompt": ["text"] * 900, "n": 2, "thinking_token_budget": 5}),
    (
        RESPONSES,
        {"input": "a", "max_output_tokens": 9, "max_tool_calls": 50, "tools": [*TOOLS, {"type": "mcp"}, *TOOLS]},
    ),
    (RESPONSES, {"input": [{"role": "user", "content": "hello"}] * 900, "previous_response_id": "resp_1"}),
    (RESPONSES, {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}] * 900, "background": True}),
    (MESSAGES, {"messages": [TURN] * 900, "system": [TURN["content"][0]] * 900, "output_config": {"effort": "low"}}),
    *[(dialect, {"input": ["a" * 9] * 900, "documents": ["b"] * 900, "query": "c"}) for dialect in DIALECTS[4:]],
]


def facts(value: object) -> object:
    """An intent or a grant as what it says; another value is itself."""
    names = slots_of(type(value)) if type(value).__module__.startswith("gateway.") else ()
    return {name: getattr(value, name) for name in names} if names else value


@pytest.mark.parametrize(("dialect", "fields"), LONG, ids=lambda part: getattr(part, "name", ""))
def test_a_long_body_is_understood_and_planned_alike(dialect: Dialect, fields: dict[str, Any]) -> None:
    raw = json.dumps({"model": "m", "priority": 3, "user": "x" * 9999, **fields}).encode()
    here, there = asks(dialect, raw)
    assert isinstance(there.body, Outline) and len(json.dumps(there.body)) < 400_000
    same = ("model", "stream", "continues", "intent", "max_tokens", "background", "taken_since", "tools", "choices")
    assert [facts(getattr(there, name)) for name in same] == [facts(getattr(here, name)) for name in same]
    assert there.input_tokens(3.0) == here.input_tokens(3.0)
    plans = [make_plan(ask, dialect, "served", None, None, salt="salt", resumes=True) for ask in (here, there)]
    assert json.loads(plans[1].body) == json.loads(plans[0].body)
    assert json.loads(plans[1].body)["model"] == "served" and "priority" not in json.loads(plans[1].body)
    assert (plans[1].sequences, facts(plans[1].grant)) == (plans[0].sequences, facts(plans[0].grant))
    assert plans[1].input_tokens == plans[0].input_tokens
    assert plans[1].output_tokens == plans[0].output_tokens
    for name, value in here.body.items():
        assert bool(there.body[name]) == bool(value)
    openings = [conversation_of(ask.body, {}, "acme", ConversationNaming()) for ask in (here, there)]
    assert openings[1] == openings[0]


def test_a_conversation_of_token_ids_that_grows_keeps_its_name() -> None:
    names = set()
    for count in (9000, 9001, 9500):
        _, there = asks(COMPLETIONS, json.dumps({"model": "m", "prompt": list(range(count))}).encode())
        names.add(conversation_of(there.body, {}, "acme", ConversationNaming()))
    assert len(names) == 1


def test_what_a_plan_may_write_is_not_cut() -> None:
    kwargs = {str(number): number for number in range(10 * KEPT)}
    raw = json.dumps({"model": "m", "messages": [TURN] * 99, "chat_template_kwargs": kwargs, "vllm_xargs": kwargs})
    _, there = asks(CHAT, raw.encode())
    assert there.body["chat_template_kwargs"] == there.body["vllm_xargs"] == kwargs
    assert len(there.body["messages"]) == KEPT + 1
    refused = outlined(CHAT, json.dumps({"metadata": [1] * (MOST_BESIDE + 1)}).encode())
    assert isinstance(refused, Refusal) and refused.too_large and refused.code == "too_many_values"


@settings(max_examples=30)
@given(st.integers(0, 70), st.integers(0, 3))
def test_the_last_element_is_kept(count: int, depth: int) -> None:
    turns: Any = list(range(count))
    for _ in range(depth):
        turns = [turns, 1]
    _, there = asks(CHAT, json.dumps({"messages": turns}).encode())
    kept = there.body["messages"]
    for _ in range(depth):
        kept = kept[0]
    assert kept == (list(range(count)) if count <= KEPT + 1 else [*range(KEPT), count - 1])
