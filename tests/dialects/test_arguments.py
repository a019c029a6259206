"""Arguments of called tools are JSON in a string: their depth is bounded, too."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.dialects import DIALECTS
from gateway.core.dialects.arguments import MAX_ARGUMENTS, depth_of
from gateway.core.errors import InvalidRequest

DEEP = "[" * 1500
BY_PATH = {dialect.path: dialect for dialect in DIALECTS}


def chat(arguments: Any) -> dict[str, Any]:
    calls = [{"function": {"arguments": "{}"}}, {"function": {"arguments": arguments}}]
    return {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": calls}]}


def responses(arguments: Any) -> dict[str, Any]:
    return {"input": [{"type": "function_call", "call_id": "c", "name": "look", "arguments": arguments}]}


PLACES = {
    "/v1/chat/completions": (chat, "messages.1.tool_calls.1.function.arguments"),
    "/tokenize": (chat, "messages.1.tool_calls.1.function.arguments"),
    "/v1/responses": (responses, "input.0.arguments"),
}
TOO_DEEP = {
    "open": DEEP,
    "closed": DEEP + "]" * 1500,
    "objects": '{"a":' * 1500 + "1" + "}" * 1500,
    "spread out": "[ \n1, " * 1500,
    "behind what is no JSON": "[NaN, 'x', " + DEEP,
    "behind a string with brackets": '["]]]]\\"]]]", ' + DEEP,
    "one level": "[" * (MAX_ARGUMENTS + 1) + "]" * (MAX_ARGUMENTS + 1),
}
GOOD = {
    "the deepest": "[" * MAX_ARGUMENTS + "]" * MAX_ARGUMENTS,
    "wide": "[" + "[]," * 5000 + "[]]",
    "code in a string": json.dumps({"code": "if (a[[[{{" * 500 + '"[['}),
    "cut in a string": '{"code": "' + "[" * 5000,
    "no JSON": "x" * 5000,
    "nothing": "",
    "not a text": 5,
}


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("what", TOO_DEEP)
def test_arguments_that_no_node_can_read_are_refused(path: str, what: str) -> None:
    """vLLM answers 500 to them: they would take healthy nodes out."""
    make, field = PLACES[path]
    with pytest.raises(InvalidRequest) as refused:
        BY_PATH[path].read(json.dumps(make(TOO_DEEP[what])).encode())
    assert (refused.value.param, refused.value.code) == (field, "too_deeply_nested")


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("bracket", ["[", "{"])
def test_an_escaped_bracket_is_one(path: str, bracket: str) -> None:
    make, field = PLACES[path]
    text = (bracket if bracket == "[" else '{"a":') * 1500
    raw = json.dumps(make(text)).replace(bracket * 2, bracket + f"\\u{ord(bracket):04x}")
    raw = raw if bracket == "[" else raw.replace('{\\"a', '\\u007B\\"a')
    assert json.loads(raw) == make(text)
    with pytest.raises(InvalidRequest) as refused:
        BY_PATH[path].read(raw.encode())
    assert refused.value.param == field


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("what", GOOD)
def test_all_others_pass(path: str, what: str) -> None:
    make, _ = PLACES[path]
    assert BY_PATH[path].read(json.dumps(make(GOOD[what])).encode())


SHAPES = ({"messages": "x"}, {"messages": [1, {"tool_calls": {}}, {"tool_calls": [1, {}, {"function": []}]}]})


@pytest.mark.parametrize("body", [*SHAPES, {"input": [[], {"arguments": ["["]}]}, {"input": {"arguments": "["}}])
def test_what_has_another_shape_is_the_nodes_to_judge(body: dict[str, Any]) -> None:
    assert BY_PATH["/v1/responses"].read(json.dumps(body).encode())


def nested(value: Any) -> int:
    if isinstance(value, list | dict):
        return 1 + max((nested(each) for each in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


values = st.recursive(
    st.text('[]{}"\\a') | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text("[{"), inner)
)


@given(values, st.integers(0, 600))
def test_the_depth_is_that_of_the_value(value: Any, more: int) -> None:
    depth = nested(value) + more
    found = depth_of("[" * more + json.dumps(value) + "]" * more)
    assert found == depth if depth > MAX_ARGUMENTS else found <= MAX_ARGUMENTS
