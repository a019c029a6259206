"""Fields that move cost: the gateway reads them as nodes do, in every spelling, or refuses them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.core.dialects import DIALECTS, Dialect
from gateway.core.dialects.counts import (
    COUNTS,
    SWITCHES,
    choices_of,
    least_output,
    rounds_of,
    sequences_of,
    tokens_an_event,
)
from gateway.core.errors import InvalidRequest
from gateway.core.lax_numbers import LARGEST
from gateway.core.plan import make_plan
from gateway.core.thinking.caps import OutputRules
from gateway.core.thinking.policy import Policy
from gateway.core.thinking.resolved import resolve

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
EVERY = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)

SPELLINGS = st.one_of(
    st.text("0123456789_+-. eExtrufalsyno\t\n\u00a0\uff11", max_size=7),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-20, 2000).map(float),
    st.integers(0, 2000).map(str),
    st.booleans(),
    st.none(),
    st.lists(st.integers(), max_size=1),
    st.fixed_dictionaries({"n": st.integers()}),
)


class Node(BaseModel):
    """A field of each kind, read as vLLM's models read theirs."""

    count: int | None = None
    switch: bool | None = None


def as_node(kind: str, value: Any) -> Any:
    """What a node makes of `value`; raises where it refuses."""
    return getattr(Node.model_validate({kind: value}), kind)


def read(body: dict[str, Any] | bytes, dialect: Dialect = BY_NAME["chat"]) -> dict[str, Any]:
    """The body as it goes on."""
    ask = dialect.read(body if isinstance(body, bytes) else json.dumps(body).encode())
    parsed: dict[str, Any] = json.loads(ask.raw)
    assert parsed == ask.body
    return parsed


@given(name=st.sampled_from(sorted(COUNTS | SWITCHES)), value=SPELLINGS)
def test_what_goes_on_is_what_a_node_would_have_read(name: str, value: Any) -> None:
    kind = "count" if name in COUNTS else "switch"
    try:
        passed = read({name: value})[name]
    except InvalidRequest as error:
        assert (error.param, error.code) == (name, "invalid_type")
        assert type(value) is not int or kind == "switch" or abs(value) > LARGEST, "a plain number is never refused"
        return
    assert passed is None or type(passed) is (int if kind == "count" else bool)
    assert passed == as_node(kind, value)


@pytest.mark.parametrize("value", ["10", " 10 ", "1_0", "+10", "010", "10.0", "10.000", "\t10\n", 10.0, 1e1, 10])
@EVERY
def test_a_count_may_be_spelled_in_many_ways(dialect: Dialect, value: Any) -> None:
    assert as_node("count", value) == 10
    for name in sorted(COUNTS):
        assert read({name: value}, dialect) == {name: 10}


@pytest.mark.parametrize(
    "value",
    ["", "ten", "1e1", "10.", "10.5", "1__0", "_1", "0x10", "\uff11", "10\0", 10.5, 1e30, [], {}, 2**31, "9" * 30],
)
@EVERY
def test_what_is_not_surely_a_count_is_refused_by_name(dialect: Dialect, value: Any) -> None:
    for name in sorted(COUNTS):
        with pytest.raises(InvalidRequest, match=f"The field '{name}' must be") as caught:
            read({name: value}, dialect)
        assert (caught.value.param, caught.value.code) == (name, "invalid_type")


@pytest.mark.parametrize("value", [True, "true", "YES", "on", "t", "1", 1, 1.0])
def test_a_switch_may_be_spelled_in_many_ways(value: Any) -> None:
    assert as_node("switch", value) is True
    assert read({"ignore_eos": value}) == {"ignore_eos": True}


@pytest.mark.parametrize("value", ["", " true", "maybe", 2, 1.5, [], {}])
def test_what_is_not_surely_a_switch_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="The field 'use_beam_search' must be true or false"):
        read({"use_beam_search": value})


@given(
    fields=st.permutations(
        [b'"max_tokens": "7"', b'"max_completion_tokens":2e1', b'"x":{"max_tokens":"8"}', b'"y":"\\"max_tokens\\":9"']
    ),
    escaped=st.booleans(),
)
def test_the_field_is_found_wherever_and_however_it_stands(fields: list[bytes], escaped: bool) -> None:
    """The same name in another object, as a text, or written with escapes: only the node's own field is set."""
    raw = b"{" + b" ,\n".join(fields) + b"}"
    if escaped:
        raw = raw.replace(b'"max_tokens": "7"', b'"max\\u005ftokens": "7"')
    assert read(raw) == {
        "max_tokens": 20,
        "max_completion_tokens": 20,
        "x": {"max_tokens": "8"},
        "y": '"max_tokens":9',
    }


def test_a_field_that_comes_twice_is_refused() -> None:
    """vLLM takes the last one, other parsers the first."""
    for raw in (b'{"max_tokens":1,"max_tokens":9}', b'{"max_tokens":1,"max\\u005ftokens":9}'):
        with pytest.raises(InvalidRequest, match="'max_tokens' appears twice"):
            read(raw)


@given(first=SPELLINGS, second=SPELLINGS)
def test_fields_that_disagree_agree_when_they_go_on(first: Any, second: Any) -> None:
    """The node's first one wins; the operator's limit holds in both, whichever an older node reads."""
    chat = BY_NAME["chat"]
    raw = json.dumps({"max_completion_tokens": first, "max_tokens": second}).encode()
    output = resolve(OutputRules(), [("tenant", OutputRules(max_tokens=128))])
    try:
        made = make_plan(chat.read(raw), chat, "m", None, None, Policy(None, output))
    except InvalidRequest:
        return
    sent = json.loads(made.body)
    given = {sent[name] for name in chat.output_fields if sent[name] is not None}
    assert given <= {made.max_tokens} and (made.max_tokens or 0) <= 128
    unruled = make_plan(chat.read(raw), chat, "m", None, None)
    wanted = as_node("count", first) if first is not None else as_node("count", second)
    assert unruled.max_tokens == wanted


PROMPTS = {"prompt": ["a", "b"]}


@pytest.mark.parametrize(
    ("body", "made", "back"),
    [
        ({}, 1, 1),
        ({"n": 3}, 3, 3),
        ({"n": None}, 1, 1),
        ({"n": -3}, 1, 1),
        ({"n": 2, "best_of": 5}, 5, 2),
        ({"n": 3, "use_beam_search": True}, 3, 3),
        ({**PROMPTS, "n": 2}, 4, 4),
        ({"prompt": [1, 2, 3]}, 1, 1),
        ({"prompt": [[1, 2], [3]]}, 2, 2),
        ({"prompt": []}, 1, 1),
        ({**PROMPTS, "prompt_embeds": ["AA==", "AA=="]}, 4, 4),
    ],
)
def test_all_answers_are_counted(body: dict[str, Any], made: int, back: int) -> None:
    assert (sequences_of(body), choices_of(body)) == (made, back)


def test_what_an_answer_surely_has_is_known() -> None:
    assert least_output({}, 4096) == 0
    assert least_output({"min_tokens": 900}, 4096) == 900
    assert least_output({"ignore_eos": True}, 4096) == 4096
    assert least_output({"ignore_eos": True, "min_tokens": 900}, None) == 900
    assert tokens_an_event({"stream_interval": 50}) == 50 and tokens_an_event({"stream_interval": 0}) == 1
    assert rounds_of({"max_tool_calls": 3, "tools": [{"type": "code_interpreter"}]}) == 4
    assert rounds_of({"max_tool_calls": 3, "tools": [{"type": "function"}]}) == 1


@pytest.mark.parametrize("prompt", [{"no": "prompt"}, 7, ["a", 1], [[1], "a"], [["a"]], [1.0, 2.0], [[True]], [None]])
def test_a_prompt_that_could_be_read_in_two_ways_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match="'prompt' must be a string") as caught:
        read({"prompt": prompt}, BY_NAME["completions"])
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("prompt", ["a", [], ["a"], [1, 2], [[1], [2, 3]], [[]], None])
def test_a_prompt_in_the_shape_that_nodes_take_passes(prompt: Any) -> None:
    assert read({"prompt": prompt}, BY_NAME["completions"]) == {"prompt": prompt}
