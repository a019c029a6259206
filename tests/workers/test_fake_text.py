"""The fake's tokenizer, template and model: reversible, and a function of the prompt alone."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.fake.model import Speaker, Wishes
from workers.fake.structured import minimal_instance
from workers.fake.template import render_chat
from workers.fake.tokens import EOS, THINK_END, VOCABULARY, Tokenizer

TOKENIZER = Tokenizer()
WISHES = Wishes(thinking_tokens=24, answer_tokens=16)
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}


def prompt(text: str, **kwargs: object) -> list[int]:
    return TOKENIZER.encode(render_chat([{"role": "user", "content": text}], kwargs=kwargs))


def speak(ids: list[int], wishes: Wishes = WISHES, limit: int = 500) -> list[int]:
    speaker = Speaker(TOKENIZER, ids, wishes)
    made: list[int] = []
    while len(made) < limit and (not made or made[-1] != EOS):
        made.append(speaker.next())
    return made


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert all(0 <= i < VOCABULARY for i in ids)


def test_special_tokens_have_ids_of_their_own_and_can_be_left_out() -> None:
    ids = TOKENIZER.encode("a</think>b")
    assert THINK_END in ids
    assert TOKENIZER.decode(ids, skip_special=True) == "ab"
    assert TOKENIZER.decode([10**6]) == "\ufffd"


def test_english_takes_few_tokens() -> None:
    text = "The quick brown fox jumps over the lazy dog and runs into the forest. " * 20
    assert 2.0 < len(text) / len(TOKENIZER.encode(text)) < 5.0


def test_the_same_prompt_gives_the_same_text_and_another_prompt_another() -> None:
    assert speak(prompt("one")) == speak(prompt("one"))
    assert speak(prompt("one")) != speak(prompt("two"))


@pytest.mark.parametrize("text", ["hello", "hello [[call]]"])
def test_text_goes_on_exactly_from_every_position(text: str) -> None:
    ids = TOKENIZER.encode(render_chat([{"role": "user", "content": text}], tools=[TOOL]))
    whole = speak(ids)
    for cut in range(len(whole)):
        assert speak([*ids, *whole[:cut]]) == whole[cut:]


def test_a_raw_prompt_goes_on_exactly_too() -> None:
    ids = TOKENIZER.encode("Once upon a time")
    whole = speak(ids)
    for cut in range(len(whole)):
        assert speak([*ids, *whole[:cut]]) == whole[cut:]
    endless = replace(WISHES, ignore_eos=True)
    long = speak(ids, endless, limit=100)
    assert speak([*ids, *long[:40]], endless, limit=60) == long[40:]


@pytest.mark.parametrize(("budget", "thoughts"), [(0, 0), (1, 0), (16, 15), (20, 19), (None, 24), (1000, 24)])
def test_a_budget_ends_the_thought_as_on_a_real_node(budget: int | None, thoughts: int) -> None:
    free, bound = speak(prompt("x")), speak(prompt("x"), replace(WISHES, budget=budget))
    assert bound.index(THINK_END) == thoughts
    assert bound[:thoughts] == free[:thoughts]


def test_a_resumed_thought_counts_what_was_thought_before() -> None:
    ids, wishes = prompt("x"), replace(WISHES, budget=16)
    whole = speak(ids, wishes)
    assert speak([*ids, *whole[:7]], wishes) == whole[7:]


def test_the_prompt_steers_lengths_and_effort() -> None:
    made = speak(prompt("[[think=3]] [[answer=5]]"))
    assert (made.index(THINK_END), len(made)) == (3, 3 + 1 + 5 + 1)
    assert speak(prompt("x", low_effort=True)).index(THINK_END) == 6
    assert THINK_END not in speak(prompt("x", enable_thinking=False))


def test_choices_differ() -> None:
    assert speak(prompt("x")) != speak(prompt("x"), replace(WISHES, salt=1))


def test_ignore_eos_and_min_tokens_keep_it_talking() -> None:
    assert EOS not in speak(prompt("x"), replace(WISHES, ignore_eos=True), limit=300)
    assert len(speak(prompt("x"), replace(WISHES, min_tokens=90))) > 90


@pytest.mark.parametrize(
    ("schema", "instance"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}}, {"a": 3}),
        ({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 2}, ["x", "x"]),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number", "exclusiveMinimum": 1}}}, 2),
        ({"type": "string", "minLength": 9}, "wordwordw"),
        ({"type": "integer", "maximum": -4}, -4),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"enum": [2]}}}]}, {"a": 1, "b": 2}),
    ],
)  # fmt: skip
def test_the_smallest_instance_of_a_schema(schema: object, instance: object) -> None:
    assert minimal_instance(schema) == instance


TURNS = ["Let me look.", {"look": {"at": 'the "sea" [[here]]'}}, ["And:", {"look": {"at": "b"}}, {"look": {}}], "Done."]
SESSION = f"go [[turns={json.dumps(TURNS)}]]"
LOOK = "<tool_call>\n<function=look>\n{}</function>\n</tool_call>"


def test_a_session_is_told_turn_by_turn() -> None:
    """The prompt's own turns are counted, so the same prompt always gets the same turn; then it speaks as ever."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": SESSION}]
    said = []
    for _ in range(5):
        ids = TOKENIZER.encode(render_chat(messages, [TOOL]))
        made = speak(ids)
        answer = TOKENIZER.decode(made[made.index(THINK_END) + 1 : -1])
        said.append(answer)
        cut = made.index(THINK_END) + 3
        assert speak(ids + made[:cut]) == made[cut:]
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "noted [[think=3]]"}]
    first = LOOK.format('<parameter=at>\nthe "sea" [[here]]\n</parameter>\n')
    second = LOOK.format("<parameter=at>\nb\n</parameter>\n")
    assert said[:4] == ["Let me look.", first, f"And:\n{second}\n{LOOK.format('')}", "Done."]
    assert said[4] not in said[:4]


def test_a_turn_without_its_tools_is_spoken_freely() -> None:
    """A client's side request (a title, a summary) that quotes the session has no tools and calls none."""
    text = 'title of: [[turns=[{"look": {}}]]]'
    assert TOKENIZER.encode("<tool_call>")[0] not in speak(prompt(text))
    assert speak(prompt("[[turns=[oops]]]"))[-1] == EOS
