"""A responses request as chat: what each field becomes, and what is refused by name."""

from typing import Any

import pytest

from gateway.core.dialects.over_chat import responses_over_chat
from gateway.core.errors import InvalidRequest

Json = dict[str, Any]
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}
FUNCTION = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object"}, "strict": True},
}
NAMED = {"type": "function", "function": {"name": "look"}}
ASKED = [{"role": "user", "content": "hi"}]

ALLOWED = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look"}]}
MORE = {"type": "additional_tools", "role": "developer", "tools": [TOOL]}


def chat(**fields: Any) -> Json:
    return responses_over_chat({"model": "m", "input": "hi", **fields}).chat


def turns(*items: Json) -> list[Json]:
    return chat(input=list(items))["messages"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        ({}, {}),
        ({"max_output_tokens": 9}, {"max_tokens": 9}),
        ({"temperature": 0.5, "seed": 1, "stop": ["A"]}, {"temperature": 0.5, "seed": 1, "stop": ["A"]}),
        ({"include_reasoning": False, "unheard_of": 1}, {"include_reasoning": False, "unheard_of": 1}),
        ({"metadata": {"a": "b"}, "service_tier": "auto", "prompt_cache_key": "k", "store": False}, {}),
        ({"background": False, "previous_response_id": None, "include": ["reasoning.encrypted_content"]}, {}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"truncation": "auto"}, {"truncate_prompt_tokens": -1}),
        ({"truncation": "disabled", "top_logprobs": 3}, {}),
        (
            {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
            {"logprobs": True, "top_logprobs": 3},
        ),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}, "strict": True},
                }
            },
        ),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [FUNCTION], "tool_choice": "required"}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "look"}},
            {"tools": [FUNCTION], "tool_choice": NAMED},
        ),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {"tools": [FUNCTION], "parallel_tool_calls": False}),
        ({"tools": [TOOL, {"type": "web_search"}]}, {"tools": [FUNCTION]}),
        ({"tools": [], "tool_choice": "auto"}, {}),
        ({"tools": [{"type": "web_search"}], "tool_choice": "auto"}, {}),
        ({"tools": [{"type": "local_shell"}], "tool_choice": "none"}, {}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "web_search_preview"}},
            {"tools": [FUNCTION], "tool_choice": "auto"},
        ),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, {}),
        ({"max_output_tokens": "10"}, {"max_tokens": 10}),
        ({"max_output_tokens": 10.0}, {"max_tokens": 10}),
        (
            {"include": ["message.output_text.logprobs"], "top_logprobs": "3"},
            {"logprobs": True, "top_logprobs": 3},
        ),
        ({"store": True, "conversation": "conv_1", "previous_input_messages": []}, {}),
        ({"n": 2, "logprobs": True, "response_format": {"type": "poem"}, "chat_template": "x", "documents": "x"}, {}),
        ({"structured_outputs": {"regex": "a+"}}, {"structured_outputs": {"regex": "a+"}}),
    ],
    ids=lambda value: ",".join(value) or "nothing",
)
def test_a_field_becomes(asked: Json, becomes: Json) -> None:
    assert chat(**asked) == {"model": "m", "messages": ASKED, **becomes}


def test_instructions_stand_in_front() -> None:
    made = chat(instructions="Be brief.", input=[{"role": "developer", "content": "Now."}, *ASKED])["messages"]
    assert made == [{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Now."}, *ASKED]


def test_the_items_of_one_turn_become_one_message() -> None:
    made = turns(
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "get", "namespace": "web", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Rain"}]},
        {"type": "message", "role": "assistant", "content": "So so."},
        {"role": "user", "content": [{"type": "input_text", "text": "Thanks"}]},
    )
    assert made == [
        {
            "role": "assistant",
            "reasoning": "Hm.",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "web__get", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "Rain"}]},
        {"role": "assistant", "content": "So so."},
        {"role": "user", "content": [{"type": "text", "text": "Thanks"}]},
    ]


def test_images_go_along() -> None:
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "data:image/png;base64,QQ"}]
    image = {"url": "data:image/png;base64,QQ", "detail": "auto"}
    assert turns({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": image},
    ]


def test_an_unfinished_answer_is_continued() -> None:
    begun = {"type": "message", "role": "assistant", "status": "incomplete", "content": "It"}
    made = chat(input=[*ASKED, begun])
    assert made["messages"] == [*ASKED, {"role": "assistant", "content": "It"}]
    assert (made["add_generation_prompt"], made["continue_final_message"]) == (False, True)


def test_custom_tools_are_functions_of_one_text() -> None:
    custom = {"type": "custom", "name": "run", "description": "Runs code"}
    made = chat(
        tools=[custom, {"type": "namespace", "name": "web", "tools": [{**TOOL, "name": "get"}]}],
        tool_choice={"type": "function", "name": "get"},
        input=[
            {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "1 + 1"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "2"},
        ],
    )
    run, get = (tool["function"] for tool in made["tools"])
    assert (run["name"], run["description"], run["parameters"]["required"]) == ("run", "Runs code", ["input"])
    assert get["name"] == "web__get"
    assert made["tool_choice"]["function"]["name"] == "web__get"
    assert made["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"input": "1 + 1"}'


def test_tools_that_the_conversation_declares_stand_among_the_others() -> None:
    got = {**TOOL, "name": "get"}
    more = {**MORE, "tools": [TOOL, got, {"type": "namespace", "name": "web", "tools": [got]}, {"type": "web_search"}]}
    made = chat(tools=[TOOL], input=[more, *ASKED], tool_choice="required")
    assert [tool["function"]["name"] for tool in made["tools"]] == ["look", "get", "web__get"]
    assert (made["tool_choice"], made["messages"]) == ("required", ASKED)
    alone = chat(input=[MORE, *ASKED], tool_choice="auto")
    assert alone == {"model": "m", "messages": ASKED, "tools": [FUNCTION], "tool_choice": "auto"}


@pytest.mark.parametrize(
    ("allowed", "mode", "left", "chosen"),
    [
        ([{"type": "function", "name": "look"}], "auto", ["look"], "auto"),
        ([{"type": "custom", "name": "run"}, {"type": "web_search"}], "required", ["run"], "required"),
        ([{"type": "function", "name": "get"}], "required", ["web__get"], "required"),
        ([{"type": "namespace", "name": "web"}], "auto", ["web__get"], "auto"),
        ([{"type": "function", "name": "else"}], "required", ["look", "run", "web__get"], "none"),
        ([], "auto", ["look", "run", "web__get"], "none"),
    ],
)
def test_allowed_tools_are_those_that_are_left(allowed: list[Json], mode: str, left: list[str], chosen: str) -> None:
    web = {"type": "namespace", "name": "web", "tools": [{**TOOL, "name": "get"}]}
    made = chat(
        tools=[TOOL, {"type": "custom", "name": "run"}, web],
        tool_choice={"type": "allowed_tools", "mode": mode, "tools": allowed},
    )
    assert [tool["function"]["name"] for tool in made["tools"]] == left
    assert made["tool_choice"] == chosen


def test_a_choice_of_allowed_tools_where_there_are_none() -> None:
    assert chat(tool_choice=ALLOWED) == {"model": "m", "messages": ASKED}


def test_an_output_may_not_say_which_call_it_is_of() -> None:
    made = turns({"type": "function_call_output", "output": "Sunny"})
    assert made == [{"role": "tool", "tool_call_id": "", "content": "Sunny"}]


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("background", {"background": True}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("prompt", {"prompt": {"id": "p"}}),
        ("input", {"input": None}),
        ("input.0", {"input": ["hi"]}),
        ("input.0.role", {"input": [{"content": "hi"}]}),
        ("input.0.type", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ("input.0.type", {"input": [{"type": None, "id": "msg_1"}]}),
        ("input.0.content.0.type", {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
        ("input.0.content.0.file_id", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
        ("include.0", {"include": ["everything"]}),
        ("text.format.type", {"text": {"format": {"type": "poem"}}}),
        ("structured_outputs", {"structured_outputs": {}, "text": {"format": {"type": "json_object"}}}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "some"}),
        ("tool_choice.type", {"tools": [TOOL], "tool_choice": {"type": "telepathy"}}),
        ("tools.0.format", {"tools": [{"type": "custom", "name": "x", "format": "grammar"}]}),
        ("max_output_tokens", {"max_output_tokens": "many"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": ""}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": []}),
        ("tool_choice.type", {"tools": [TOOL], "tool_choice": {"type": ["function"]}}),
        ("tool_choice.mode", {"tools": [TOOL], "tool_choice": {**ALLOWED, "mode": "some"}}),
        ("tool_choice.tools.0", {"tools": [TOOL], "tool_choice": {**ALLOWED, "tools": ["look"]}}),
        ("input.0.tools", {"input": [{"type": "additional_tools", "role": "developer"}]}),
        ("input.0.tools.0.name", {"input": [{**MORE, "tools": [{"type": "function"}]}]}),
        ("tools.0.strict", {"tools": [{**TOOL, "strict": "maybe"}]}),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(param: str, asked: Json) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**asked)
    assert refused.value.param == param
    assert param in refused.value.message


def test_many_allowed_tools_of_many_are_found_once_each() -> None:
    """100,000 of 100,000: each is looked up, none is searched for."""
    many = [{**TOOL, "name": f"t{number}"} for number in range(100_000)]
    allowed = [{"type": "function", "name": tool["name"]} for tool in many]
    space = {"type": "namespace", "name": "web", "tools": many}
    made = chat(tools=[space], tool_choice={"type": "allowed_tools", "mode": "auto", "tools": allowed})
    assert len(made["tools"]) == 100_000


def test_what_a_node_may_do_beyond_chat_is_known() -> None:
    """Such a request is translated only where it has to be."""
    for tool in ("code_interpreter", "container", "mcp", "web_search_preview"):
        assert responses_over_chat({"input": "x", "tools": [{"type": "web_search"}, {"type": tool}]}).loses_work
    assert responses_over_chat({"input": "x", "previous_input_messages": [{"role": "user"}]}).loses_work
    function = {"type": "function", "name": "mcp", "parameters": {}}
    for tools in (None, [], [function, {"type": "web_search"}]):
        assert not responses_over_chat({"input": "x", "tools": tools}).loses_work
