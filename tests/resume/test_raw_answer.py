"""The deltas of an answer's raw text: content and calls, in every format, cut anywhere."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.resume.raw_answer import RawAnswer

Calls = list[tuple[str, str]]

PROPERTIES = {
    "city": {"type": "string"},
    "days": {"type": "integer"},
    "share": {"type": "number"},
    "deep": {"type": "boolean"},
    "where": {"type": "object"},
    "names": {"type": "array"},
    "perhaps": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "either": {"enum": [1, None]},
    "other": {"type": ["int", "string"]},
    "odd": True,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": PROPERTIES}}},
    {"type": "function", "function": {"name": "clock"}},
]
NAMED = {"type": "function", "function": {"name": "weather"}}
AUTO = {"tools": TOOLS}


def call(name: str, *parameters: tuple[str, str]) -> str:
    written = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={name}>\n{written}</function>\n</tool_call>"


def json_call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def read(body: dict[str, Any], *pieces: str, spoken: bool = False) -> tuple[str, Calls]:
    """The content and the calls of an answer that ends with the last piece, put together as a client does."""
    answer = RawAnswer(body, "chatcmpl-1", spoken)
    deltas = [delta for at, piece in enumerate(pieces, 1) for delta in answer.feed(piece, at == len(pieces))]
    calls: list[tuple[str, str]] = []
    for delta in deltas:
        for part in delta.get("tool_calls", ()):
            function = part["function"]
            if "name" in function:
                assert (part["index"], part["type"]) == (len(calls), "function")
                calls.append((function["name"], ""))
            name, arguments = calls[part["index"]]
            calls[part["index"]] = (name, arguments + function["arguments"])
    return "".join(delta.get("content", "") for delta in deltas), calls


PARIS = call("weather", ("city", "Paris"))
CITY = '{"city": "Paris"}'
NOW = call("clock")

TEXTS: list[tuple[str, str, Calls]] = [
    # text and whitespace
    ("hello", "hello", []),
    ("", "", []),
    (" \n", " \n", []),
    ("\n\nhello <tool_", "\n\nhello <tool_", []),
    ("a < b </tool_call> <tool-call>", "a < b </tool_call> <tool-call>", []),
    ("Let me look.\n\n" + PARIS + "\n" + NOW + "\n", "Let me look.\n\n\n\n", [("weather", CITY), ("clock", "{}")]),
    ("\n\n" + PARIS + "\n" + NOW + "\n", "", [("weather", CITY), ("clock", "{}")]),
    (PARIS + "\nand\n" + NOW + " end ", "and\n end ", [("weather", CITY), ("clock", "{}")]),
    ("so</think>\n\nyes", "so\n\nyes", []),
    # tags in other places
    ("<function=clock>\n</function>", "", [("clock", "{}")]),
    ("<function=clock></function>\nDone.", "Done.", [("clock", "{}")]),
    ("<tool_call><function=clock></function><function=clock></function></tool_call>", "", [("clock", "{}")] * 2),
    ("<tool_call>\n<function=clock>\n</function>\n" + NOW, "", [("clock", "{}")] * 2),
    ("<tool_call>\n</tool_call>hi", "hi", []),
    ("<tool_call><function=clock</function></tool_call>x", "x", [("clock", "{}")]),
    ("<tool_call><function=weather><parameter=city>Paris<parameter=days>3</parameter></function></tool_call>", "",
     [("weather", '{"city": "Paris", "days": 3}')]),
    ("<tool_call><function=weather><parameter=city>Paris</function></tool_call>", "", [("weather", CITY)]),
    (call("weather", ("city", "a </tool_call> <b>\n")), "", [("weather", r'{"city": "a </tool_call> <b>\n"}')]),
    # text that is no call
    ("<tool_call>\nclock()\n</tool_call>", "<tool_call>\nclock()\n</tool_call>", []),
    ("<tool_call>\n<function=>\n</function>\n</tool_call>", "<tool_call>\n<function=>\n</function>\n</tool_call>", []),
    ('<tool_call>\n{"foo": 1}\n</tool_call>', '<tool_call>\n{"foo": 1}\n</tool_call>', []),
    ("<tool_call>{no}</tool_call> sorry", "<tool_call>{no}</tool_call> sorry", []),
    ("Use <tool_call> and " + NOW, "Use <tool_call> and ", [("clock", "{}")]),
    # calls in JSON
    (json_call("weather", CITY), "", [("weather", CITY)]),
    ("\n" + json_call("weather", CITY) + "\n" + json_call("clock", "{}"), "\n", [("weather", CITY), ("clock", "{}")]),
    ("Look:\n" + json_call("weather", '{"a":{"b":"}"}}') + "\n" + json_call("clock", "{}"), "Look:\n",
     [("weather", '{"a":{"b":"}"}}'), ("clock", "{}")]),
    (json_call("clock", "{}") + "\nDone.", "Done.", [("clock", "{}")]),
    ('<tool_call>{"arguments": {"a": 1}, "name": "clock"}</tool_call>', "", [("clock", '{"a": 1}')]),
    ('<tool_call>{"name": "clock"}</tool_call>', "", [("clock", "{}")]),
    ('<tool_call>{"name": "clock", "parameters": {"a": 1}}</tool_call>', "", [("clock", '{"a": 1}')]),
    ('<tool_call>{"name": "clock", "arguments": {"a": 1}</tool_call>', "", [("clock", '{"a": 1}')]),
    # cut
    ("<tool_call>", "", []),
    ("\n<tool_call>\n<func", "", []),
    ("\n<function=", "", []),
    ("so\n<function=", "so\n", []),
    ("<tool_call>\n<function=cl", "", [("cl", "{}")]),
    ("<tool_call>\n<function=clock>", "", [("clock", "{}")]),
    ("<tool_call>\n<function=weather>\n<parameter=ci", "", [("weather", "{}")]),
    ("<tool_call>\n<function=weather>\n<parameter=city>\nPar", "", [("weather", '{"city": "Par')]),
    ("<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</para", "", [("weather", '{"city": "Paris\\n</para')]),
    ("<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n", "", [("weather", CITY)]),
    ("<tool_call>\n<function=weather>\n<parameter=days>\n1", "", [("weather", '{"days": ')]),
    ("<tool_call>\n<function=clock>\n<parameter=z>\n1", "", [("clock", '{"z": "1')]),
    (PARIS[: -len("call>")], "", [("weather", CITY)]),
    ('<tool_call>\n{"na', "", []),
    ('\n<tool_call>\n{"name": "clock", "arguments": {"a": ', "\n", [("clock", '{"a":')]),
    ('<tool_call>\n{"name": "clock", "arg', "", [("clock", "")]),
    ('<tool_call>\n{"name": "clock", "arguments": {"a": "b', "", [("clock", '{"a": "b')]),
    ('<tool_call>\n{"name": "clock", "arguments": {"a": 1}}\n</tool', "", [("clock", '{"a": 1}')]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), TEXTS)
def test_text_and_calls(text: str, content: str, calls: Calls) -> None:
    assert read(AUTO, text) == (content, calls)
    assert read(AUTO, *text, "") == (content, calls)
    assert read({**AUTO, "tool_choice": None}, text) == (content, calls)


@given(data=st.data())
def test_any_cut(data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from([text for text, _, _ in TEXTS]), max_size=3)))
    body = {**AUTO, "tool_choice": data.draw(st.sampled_from(["auto", "none", "required", NAMED]))}
    assert read(body, *_cut(data, text)) == read(body, text)


def _cut(data: st.DataObject, text: str) -> list[str]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


VALUES = [
    ("city", "3", '"3"'),
    ("city", '"é"\n\n', r'"\"é\"\n\n"'),
    ("days", "3", "3"),
    ("days", "1.5", "1.5"),
    ("days", "soon", '"soon"'),
    ("share", "1.0", "1"),
    ("share", "0.25", "0.25"),
    ("share", "inf", '"inf"'),
    ("deep", "True", "true"),
    ("deep", "0", "false"),
    ("deep", "2", "2"),
    ("where", '{"a": [1, null]}', '{"a": [1, null]}'),
    ("where", "null", "null"),
    ("where", "{'a': 1}", "\"{'a': 1}\""),
    ("where", "[" * 5000, json.dumps("[" * 5000)),
    ("names", "[1e999]", '"[1e999]"'),
    ("names", "[NaN]", '"[NaN]"'),
    ("perhaps", "NULL", "null"),
    ("perhaps", "1", '"1"'),
    ("either", "1", "1"),
    ("either", "null", "null"),
    ("other", "1", "1"),
    ("other", "one", '"one"'),
    ("odd", "1", '"1"'),
    ("unknown", "1", '"1"'),
]


@pytest.mark.parametrize(("key", "value", "shown"), VALUES)
def test_values_are_typed_by_the_schema(key: str, value: str, shown: str) -> None:
    assert read(AUTO, call("weather", (key, value))) == ("", [("weather", f'{{"{key}": {shown}}}')])


@pytest.mark.parametrize(
    "tools",
    [
        [None, {"function": None}, {"function": {"name": "clock"}}],
        [{"function": {"name": "clock", "parameters": None}}],
        [{"function": {"name": "clock", "parameters": {"properties": None}}}],
        [{"function": {"name": "clock", "parameters": {"properties": {"a": {"type": 3, "enum": 3, "oneOf": 3}}}}}],
    ],
)
def test_tools_of_any_form(tools: list[Any]) -> None:
    assert read({"tools": tools}, call("clock", ("a", "1"))) == ("", [("clock", '{"a": "1"}')])


names = st.sampled_from(["weather", "clock"])
keys = st.sampled_from(["city", "days", "deep", "unknown"])
words = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=6)
parameters = st.dictionaries(keys, words, max_size=3)
written = st.one_of(st.tuples(names, parameters), words)


@given(parts=st.lists(written, max_size=5), data=st.data())
def test_all_calls_and_all_words_come(parts: list[Any], data: st.DataObject) -> None:
    text = "".join(part if isinstance(part, str) else call(part[0], *part[1].items()) for part in parts)
    content, calls = read(AUTO, *_cut(data, text))
    assert content.split() == "".join(part if isinstance(part, str) else "" for part in parts).split()
    told = [part for part in parts if not isinstance(part, str)]
    assert [name for name, _ in calls] == [name for name, _ in told]
    assert [set(json.loads(arguments)) for _, arguments in calls] == [set(known) for _, known in told]


@pytest.mark.parametrize("body", [{}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}])
def test_without_tools_all_is_content(body: dict[str, Any]) -> None:
    text = "\n" + PARIS + "</think><tool_"
    assert read(body, text) == (text, [])
    assert read(body, *text) == (text, [])


ARGUMENTS = '{"city": "[}\\"{"}'
LISTS: list[tuple[str, str, Calls]] = [
    (f'[{{"name": "weather", "parameters": {ARGUMENTS}}}]', "", [("weather", ARGUMENTS)]),
    (f' [ {{"parameters" : {ARGUMENTS} , "name":"weather"}},\n{{"name": "clock", "parameters": {{}}}} ] ', "",
     [("weather", ARGUMENTS), ("clock", "{}")]),
    ('[{"name": "clock", "parameters": {"a": "b', "", [("clock", '{"a": "b')]),
    ('[{"name": "clock", "para', "", []),
    ('[{"name": "clock", "parameters": {}}, {"na', "", [("clock", "{}")]),
    ("[]", "", []),
    ('[{"who": 1}]', '{"who": 1}', []),
    ("[[1]]", "[1]", []),
    (" \n", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), LISTS)
def test_a_required_call_is_in_a_list(text: str, content: str, calls: Calls) -> None:
    body = {"tools": TOOLS, "tool_choice": "required"}
    assert read(body, text) == (content, calls)
    assert read(body, *text) == (content, calls)


@pytest.mark.parametrize("text", [ARGUMENTS, "\n" + ARGUMENTS, '{"city": "Par', "{"])
def test_a_named_call_is_its_arguments(text: str) -> None:
    body = {"tools": TOOLS, "tool_choice": NAMED}
    assert read(body, text) == ("", [("weather", text)])
    assert read(body, *text) == ("", [("weather", text)])


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_forced_call_in_tags(choice: Any) -> None:
    body = {"tools": TOOLS, "tool_choice": choice}
    assert read(body, "\n" + PARIS) == ("", [("weather", CITY)])
    assert read(body, *("\n" + PARIS)) == ("", [("weather", CITY)])
    assert read(body, "I cannot.") == ("I cannot.", [])


def test_a_choice_without_a_name_is_automatic() -> None:
    for choice in ({"type": "function"}, {"function": {"name": 3}}, "later", {"function": {"name": ""}}):
        assert read({"tools": TOOLS, "tool_choice": choice}, PARIS) == ("", [("weather", CITY)])


@pytest.mark.parametrize(
    ("body", "text", "given", "told"),
    [
        (AUTO, PARIS, "stop", "tool_calls"),
        (AUTO, PARIS, "length", "length"),
        (AUTO, "hello", "stop", "stop"),
        ({"tools": TOOLS, "tool_choice": "required"}, LISTS[0][0], "stop", "tool_calls"),
        ({"tools": TOOLS, "tool_choice": NAMED}, "{}", "stop", "stop"),
        ({"tools": TOOLS, "tool_choice": NAMED}, PARIS, "stop", "stop"),
        ({}, PARIS, "stop", "stop"),
    ],
)
def test_finish_reason(body: dict[str, Any], text: str, given: str, told: str) -> None:
    answer = RawAnswer(body, "chatcmpl-1")
    answer.feed(text, last=True)
    assert answer.finish_reason(given) == told


def test_deltas_come_as_early_as_they_are_certain() -> None:
    answer = RawAnswer(AUTO, "chatcmpl-1")
    assert answer.feed("\n") == []
    assert answer.feed("Hi <") == [{"content": "\nHi "}]
    assert answer.feed("b> <tool_call>\n<function=weather") == [{"content": "<b> "}]
    [named] = answer.feed(">\n<parameter=city>\nPa")
    [begun] = named["tool_calls"]
    assert (begun["index"], begun["type"]) == (0, "function")
    assert begun["function"] == {"name": "weather", "arguments": ""}
    assert answer.feed("ris\n</parameter>\n<parameter=days>") == [_arguments('{"city": "Paris"')]
    assert answer.feed("\n3\n</parameter>\n</function>\n") == [_arguments(', "days": 3}')]
    assert answer.feed("</tool_call>", last=True) == []


@given(data=st.data())
def test_it_is_known_whether_text_is_held_back(data: st.DataObject) -> None:
    left_out = ("</think>", "<tool_call>\n</tool_call>")
    text = data.draw(st.sampled_from([text for text, _, _ in TEXTS if not any(tag in text for tag in left_out)]))
    answer = RawAnswer({**AUTO, "tool_choice": data.draw(st.sampled_from(["none", "auto", "required"]))}, "chatcmpl-1")
    seen = shown = ""
    for piece in _cut(data, text):
        seen += piece
        shown += "".join(delta.get("content", "") for delta in answer.feed(piece))
        if answer.calls == 0:
            assert answer.holds == (shown != seen)


def test_it_is_known_whether_a_call_is_complete() -> None:
    answer = RawAnswer({"tools": TOOLS, "tool_choice": "required"}, "chatcmpl-1")
    text = LISTS[0][0]
    answer.feed(text[:-1])
    assert (answer.calls, answer.holds) == (1, True)
    answer.feed(text[-1])
    assert (answer.calls, answer.holds) == (1, False)
    named = RawAnswer({"tools": TOOLS, "tool_choice": NAMED}, "chatcmpl-1")
    named.feed("{")
    assert (named.calls, named.holds) == (1, False)
    tagged = RawAnswer(AUTO, "chatcmpl-1")
    tagged.feed(PARIS[:-1])
    assert (tagged.calls, tagged.holds) == (1, True)
    tagged.feed(PARIS[-1])
    assert (tagged.calls, tagged.holds) == (1, False)


def _arguments(text: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def test_ids_are_the_same_each_time_and_differ_by_call_and_answer() -> None:
    ids = [_ids("chatcmpl-1"), _ids("chatcmpl-1"), _ids("chatcmpl-2")]
    assert ids[0] == ids[1]
    assert len({*ids[0], *ids[2]}) == 4
    assert all(call_id.startswith("chatcmpl-tool-") for call_id in ids[0])


def _ids(chat_id: str) -> list[str]:
    deltas = RawAnswer(AUTO, chat_id).feed(PARIS + NOW, last=True)
    return [part["id"] for delta in deltas for part in delta["tool_calls"] if "id" in part]


def test_content_that_came_before_keeps_what_follows_as_it_is() -> None:
    assert read(AUTO, "\n" + PARIS, spoken=True) == ("\n", [("weather", CITY)])
    assert read(AUTO, "\n" + PARIS) == ("", [("weather", CITY)])
