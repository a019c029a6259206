"""A messages request as chat: what each field becomes, and what is refused by name."""

from typing import Any

import pytest

from gateway.core.dialects.over_chat import messages_over_chat
from gateway.core.errors import InvalidRequest

Json = dict[str, Any]
ASKED = [{"role": "user", "content": "hi"}]
TOOL = {"name": "look", "input_schema": {"properties": {}}, "cache_control": {"type": "ephemeral"}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": {"properties": {}, "type": "object"}}}


def chat(**fields: Any) -> Json:
    return messages_over_chat({"model": "m", "max_tokens": 9, "messages": ASKED, **fields}).chat


def turns(*messages: Json) -> list[Json]:
    return chat(messages=list(messages))["messages"]  # type: ignore[no-any-return]


def test_a_bare_request() -> None:
    assert chat() == {"model": "m", "max_tokens": 9, "messages": ASKED}


@pytest.mark.parametrize(
    ("asked", "becomes"),
    [
        ({"stop_sequences": ["A"]}, {"stop": ["A"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 3}, {"temperature": 0.5, "top_p": 0.9, "top_k": 3}),
        ({"chat_template_kwargs": {"low_effort": True}}, {"chat_template_kwargs": {"low_effort": True}}),
        ({"unheard_of": 1}, {"unheard_of": 1}),
        ({"n": 2, "logprobs": True, "top_logprobs": 2, "response_format": 1, "chat_template": "x", "stop": 7}, {}),
        ({"max_tokens": "9"}, {}),
        ({"max_tokens": 9.0}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": "16"}}, {"thinking_token_budget": 16}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16.0}}, {"thinking_token_budget": 16}),
        ({"metadata": {"user_id": "x"}, "service_tier": "auto", "context_management": {"edits": []}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 16}}, {"thinking_token_budget": 16}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "none"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "json_schema", "schema": {"type": "object"}},
                }
            },
        ),
        ({"tools": [TOOL]}, {"tools": [FUNCTION]}),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"tool_choice": {"type": "any"}}, {}),
        ({"tools": [], "tool_choice": {"type": "tool", "name": "look"}}, {}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}},
            {
                "tools": [FUNCTION],
                "tool_choice": {"type": "function", "function": {"name": "look"}},
                "parallel_tool_calls": True,
            },
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "none"}},
            {"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": True},
        ),
        (
            {"stream": True},
            {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ),
    ],
    ids=lambda value: ",".join(value) or "nothing",
)
def test_a_field_becomes(asked: Json, becomes: Json) -> None:
    assert chat(**asked) == {"model": "m", "max_tokens": 9, "messages": ASKED, **becomes}


def test_system_text_stands_in_front_without_the_hash_of_each_request() -> None:
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc=1f"},
        {"type": "text", "text": "Be "},
        {"type": "text", "text": "brief.", "cache_control": {"type": "ephemeral"}},
    ]
    assert chat(system=system)["messages"] == [{"role": "system", "content": "Be brief."}, *ASKED]
    assert chat(system="Be brief.")["messages"] == [{"role": "system", "content": "Be brief."}, *ASKED]


def test_system_text_in_the_middle_stays_there() -> None:
    reminder = {"role": "system", "content": [{"type": "text", "text": "Soon."}]}
    assert turns(*ASKED, reminder, *ASKED) == [*ASKED, {"role": "system", "content": "Soon."}, *ASKED]


def test_thinking_goes_back_as_reasoning() -> None:
    said = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "zz"},
        {"type": "text", "text": "Paris."},
    ]
    assert turns({"role": "assistant", "content": said}) == [
        {"role": "assistant", "reasoning": "Hm.", "content": "Paris."}
    ]


def test_calls_and_results_become_messages_of_their_own() -> None:
    used = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "Paris"}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "Sunny"}, image]}
    assert turns(
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ) == [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "Sunny"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
        {"role": "user", "content": "And now?"},
    ]


def test_what_a_node_leaves_out_is_left_out() -> None:
    made = turns(
        {"role": "system", "content": [{"type": "image", "source": {}}, {"type": "text", "text": "Hm."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "signature": "s"},
                {"type": "tool_reference", "tool_name": "x"},
                {"type": "text", "text": "So"},
            ],
        },
    )
    assert made == [
        {"role": "system", "content": "Hm."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So"},
    ]


def test_calls_and_results_that_say_little() -> None:
    document = {"type": "document", "source": {"type": "text", "data": "x"}}
    result = {"type": "tool_result", "content": [document, {"type": "text", "text": "Sunny"}, {"type": "text"}]}
    made = turns(
        {"role": "assistant", "content": [{"type": "tool_use"}, {"type": "tool_use", "name": "look", "input": None}]},
        {"role": "user", "content": [result, {"type": "tool_result", "tool_use_id": "t"}]},
    )
    calls = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in made[0]["tool_calls"]]
    assert calls == [("call_0", "", "{}"), ("call_1", "look", "{}")]
    assert made[1:] == [
        {"role": "tool", "tool_call_id": "", "content": "Sunny\n"},
        {"role": "tool", "tool_call_id": "t", "content": ""},
    ]


@pytest.mark.parametrize(("content", "told"), [("Sunny", "Sunny"), (None, ""), ([{"a": None}], "[{'a': None}]")])
def test_a_result_in_the_assistants_turn_is_text(content: Any, told: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "t", "content": content}
    assert turns({"role": "assistant", "content": [block]}) == [
        {"role": "assistant", "content": f"Tool result: {told}"}
    ]


@pytest.mark.parametrize("stream", [True, False, "yes", 0])
def test_switches_in_every_spelling_of_a_nodes(stream: Any) -> None:
    on = stream in (True, "yes")
    made = chat(tools=[{**TOOL, "strict": stream}], tool_choice={"type": "any", "disable_parallel_tool_use": stream})
    assert (made["tools"][0]["function"]["strict"], made["parallel_tool_calls"]) == (on, not on)


def test_parts_stay_parts_where_there_are_several() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert turns({"role": "user", "content": [{"type": "text", "text": "What is this?"}, url]}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            ],
        }
    ]


def test_tools_that_the_conversation_adds_and_takes_away() -> None:
    late = {**TOOL, "name": "late", "defer_loading": True}
    changes = [
        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "late"}},
        {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {**TOOL, "name": "new"}}},
        {"type": "tool_removal", "tool": {"type": "tool_reference", "name": "look"}},
    ]
    made = chat(tools=[TOOL, late], messages=[*ASKED, {"role": "system", "content": changes}])
    assert [tool["function"]["name"] for tool in made["tools"]] == ["late", "new"]
    assert "defer_loading" not in made["tools"][0]["function"]
    assert made["messages"] == ASKED


@pytest.mark.parametrize(
    ("param", "asked"),
    [
        ("max_tokens", {"max_tokens": None}),
        ("max_tokens", {"max_tokens": "many"}),
        ("messages", {"messages": "hi"}),
        ("messages.0", {"messages": ["hi"]}),
        ("messages.0.role", {"messages": [{"role": "wizard", "content": "x"}]}),
        ("messages.0.content", {"messages": [{"role": "user"}]}),
        ("messages.0.content.0.type", {"messages": [{"role": "user", "content": [{"type": "document"}]}]}),
        ("thinking.type", {"thinking": {"type": "much"}}),
        ("thinking.budget_tokens", {"thinking": {"type": "enabled"}}),
        ("output_config.effort", {"output_config": {"effort": "huge"}}),
        ("tools.0.input_schema", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("tools.0.input_schema", {"tools": [{"type": "computer_toolset_20260801"}]}),
        ("tools.0.name", {"tools": [{"input_schema": {}}]}),
        ("tool_choice.type", {"tools": [TOOL], "tool_choice": {"type": "some"}}),
        ("system.0.type", {"system": [{"type": "riddle"}]}),
        ("system.0.type", {"system": [{"type": ["text"]}]}),
        ("messages.0.content.0.type", {"messages": [{"role": "user", "content": [{"type": {}}]}]}),
        ("messages.0.content", {"messages": [{"role": "system", "content": None}]}),
        ("tool_choice.disable_parallel_tool_use", {"tool_choice": {"type": "auto", "disable_parallel_tool_use": "x"}}),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(param: str, asked: Json) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**asked)
    assert refused.value.param == param
    assert param in refused.value.message
