"""The bodies that coding agents and SDKs send, for a node's own routes and for the same over chat.

Every body is sent to a node's native route and through a gateway that asks the node in chat: both answers must mean
the same, or be refusals. `DIFFERENT` has the bodies for which that cannot be, and why; docs/api.md has them in words.
"""

from typing import Any, NamedTuple

from tests.real.transparency_cases import (
    ANTHROPIC,
    FRANCE,
    MESSAGES,
    MESSAGES_TOOLS,
    MODEL,
    RESPONSES,
    RESPONSES_TOOLS,
    WEATHER,
    Case,
    Json,
)

_TOKENS = 4
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_SCHEMA: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def _response(name: str, *items: Json, **fields: Any) -> Case:
    """A response at temperature 0; `items` stand behind a user's turn."""
    asked: Json = {"model": MODEL, "temperature": 0, "max_output_tokens": _TOKENS, "store": False}
    return Case(f"responses: {name}", RESPONSES, {**asked, "input": [*FRANCE, *items], **fields})


def _message(name: str, *turns: Json, **fields: Any) -> Case:
    """A message at temperature 0; `turns` stand behind a user's turn."""
    asked: Json = {"model": MODEL, "temperature": 0, "max_tokens": _TOKENS}
    return Case(f"messages: {name}", MESSAGES, {**asked, "messages": [*FRANCE, *turns], **fields}, headers=ANTHROPIC)


# -- Input items of responses

_CALLED: Json = {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'}
_CUSTOM_CALLED: Json = {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin\n"}
_SHELL: Json = {
    "type": "local_shell_call",
    "id": "ls_1",
    "call_id": "c1",
    "status": "completed",
    "action": {"type": "exec", "command": ["ls"], "env": {}},
}


def _output(output: object = "Sunny", **fields: Any) -> Json:
    return {"type": "function_call_output", "call_id": "c1", "output": output, **fields}


def _said(*parts: Json, **fields: Any) -> Json:
    return {"type": "message", "role": "assistant", "content": list(parts), **fields}


def _reasoned(**fields: Any) -> Json:
    return {"type": "reasoning", "summary": [], **fields}


def _asked(*parts: Json, role: str = "user") -> Json:
    return {"type": "message", "role": role, "content": list(parts)}


def _text(text: str, kind: str = "input_text") -> Json:
    return {"type": kind, "text": text}


_AGAIN: Json = {"role": "user", "content": "And of Spain?"}
_THOUGHT = [{"type": "reasoning_text", "text": "France."}]
_SUMMARY = [{"type": "summary_text", "text": "France."}]
_IMAGE: Json = {"type": "input_image", "image_url": f"data:image/png;base64,{_PIXEL}", "detail": "auto"}

_ITEMS = (
    _response("input of one text", input="What is the capital of France?"),
    _response("empty input", input=[]),
    _response("text of a turn", input=[{"role": "user", "content": "Hi"}]),
    _response("turn in parts", input=[_asked(_text("Hi"), _text("there"))]),
    _response("part of chat's type", input=[_asked({"type": "text", "text": "Hi"})]),
    _response("turn without parts", input=[_asked()]),
    _response("turn without content", input=[{"type": "message", "role": "user"}]),
    _response("turn without role", input=[{"type": "message", "content": "Hi"}]),
    _response("turn of an unknown role", input=[{"type": "message", "role": "wizard", "content": "Hi"}]),
    _response("turn of a tool", {"role": "tool", "tool_call_id": "c1", "content": "Sunny"}),
    _response("developer", input=[_asked(_text("Be brief."), role="developer"), *FRANCE]),
    _response("system in the middle", {"role": "system", "content": "Be brief."}, _AGAIN),
    _response(
        "instructions and developer", instructions="Hm.", input=[_asked(_text("Hi."), role="developer"), *FRANCE]
    ),
    _response("empty instructions", instructions=""),
    _response(
        "ids and phases", _said(_text("Paris.", "output_text"), id="msg_1", status="completed", phase="final_answer")
    ),
    _response("answer as a text", {"type": "message", "role": "assistant", "content": "Paris."}, _AGAIN),
    _response("answer as a text without type", {"role": "assistant", "content": "Paris."}, _AGAIN),
    _response(
        "answer in a part without type", {"role": "assistant", "content": [_text("Paris.", "output_text")]}, _AGAIN
    ),
    _response("answer of an input part", _said(_text("Paris.")), _AGAIN),
    _response("answer in two parts", _said(_text("Par", "output_text"), _text("is.", "output_text")), _AGAIN),
    _response("answer with annotations", _said({**_text("Paris.", "output_text"), "annotations": []}), _AGAIN),
    _response("answer without parts", _said(), _AGAIN),
    _response("refusal", _said({"type": "refusal", "refusal": "No."}), _AGAIN),
    _response("reasoning with content", _reasoned(id="rs_1", content=_THOUGHT), _said(_text("Paris.", "output_text"))),
    _response("reasoning with a summary", _reasoned(id="rs_1", summary=_SUMMARY), _said(_text("P.", "output_text"))),
    _response("reasoning without id", _reasoned(content=_THOUGHT), _said(_text("Paris.", "output_text")), _AGAIN),
    _response("reasoning with nothing", _reasoned(id="rs_1", content=None, encrypted_content=None), _AGAIN),
    _response("reasoning without summary", {"type": "reasoning", "id": "rs_1", "content": _THOUGHT}, _AGAIN),
    _response("reasoning, empty and encrypted", _reasoned(id="rs_1", encrypted_content=""), _AGAIN),
    _response("reasoning, encrypted", _reasoned(id="rs_1", encrypted_content="gAAAA"), _AGAIN),
    _response("reasoning, encrypted, without id", _reasoned(encrypted_content="gAAAA", content=_THOUGHT), _AGAIN),
    _response("thoughts that follow each other", _reasoned(content=_THOUGHT), _reasoned(content=_THOUGHT), _AGAIN),
    _response("call and output", _CALLED, _output()),
    _response("call with id and status", {**_CALLED, "id": "fc_1", "status": "completed"}, _output(status="completed")),
    _response("call of a namespace", {**_CALLED, "namespace": "web"}, _output()),
    _response("call with empty arguments", {**_CALLED, "arguments": ""}, _output()),
    _response("call with arguments that are cut", {**_CALLED, "arguments": '{"city": "Pa'}, _output()),
    _response("call with arguments that are no object", {**_CALLED, "arguments": "[1]"}, _output()),
    _response(
        "call without arguments", {key: value for key, value in _CALLED.items() if key != "arguments"}, _output()
    ),
    _response("call without call_id", {key: value for key, value in _CALLED.items() if key != "call_id"}, _output()),
    _response("two calls", _CALLED, {**_CALLED, "call_id": "c2"}, _output(), {**_output("Rain"), "call_id": "c2"}),
    _response("output in parts", _CALLED, _output([_text("Sun"), _text("ny")])),
    _response("output without parts", _CALLED, _output([])),
    _response("output with an image", _CALLED, _output([_IMAGE])),
    _response("output that is an object", _CALLED, _output({"sky": "blue"})),
    _response("output of null", _CALLED, _output(None)),
    _response("output without call_id", _CALLED, {"type": "function_call_output", "output": "Sunny"}),
    _response("output without its call", _output()),
    _response("custom call", _CUSTOM_CALLED, {**_output("ok"), "type": "custom_tool_call_output"}),
    _response(
        "custom call, output in parts", _CUSTOM_CALLED, {**_output([_text("ok")]), "type": "custom_tool_call_output"}
    ),
    _response(
        "custom call of nothing", {**_CUSTOM_CALLED, "input": ""}, {**_output(""), "type": "custom_tool_call_output"}
    ),
    _response("shell call", _SHELL, {"type": "local_shell_call_output", "id": "lo_1", "output": "{}"}),
    _response(
        "web search call",
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    ),
    _response("item reference", {"type": "item_reference", "id": "msg_1"}),
    _response("compaction", {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"}),
    _response("additional tools", {"type": "additional_tools", "role": "developer", "tools": RESPONSES_TOOLS}),
    _response(
        "additional tools in front",
        input=[{"type": "additional_tools", "role": "developer", "tools": RESPONSES_TOOLS}, *FRANCE],
    ),
    _response("no additional tools", {"type": "additional_tools", "role": "developer", "tools": []}),
    _response("additional tools without role", {"type": "additional_tools", "tools": RESPONSES_TOOLS}),
    _response("unknown item", {"type": "weather_report", "text": "Sunny"}),
    _response("image", input=[_asked(_text("What?"), _IMAGE)]),
    _response(
        "image without detail", input=[_asked({"type": "input_image", "image_url": f"data:image/png;base64,{_PIXEL}"})]
    ),
    _response("image of a file", input=[_asked({"type": "input_image", "file_id": "file_1", "detail": "auto"})]),
    _response("file", input=[_asked({"type": "input_file", "file_id": "file_1"})]),
    _response(
        "answer to go on with", _said(_text("Par", "output_text"), status="incomplete"), reasoning={"effort": "none"}
    ),
    _response("thought to go on with", _reasoned(content=_THOUGHT, status="in_progress")),
)

# -- Fields of responses

_CUSTOM: Json = {"type": "custom", "name": "apply_patch", "description": "Edits files", "format": {"type": "text"}}
_GRAMMAR: Json = {**_CUSTOM, "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}}
_NAMESPACE: Json = {"type": "namespace", "name": "web", "description": "The web", "tools": RESPONSES_TOOLS}
_WEB: Json = {"type": "web_search"}
_NAMED: Json = {"type": "function", "name": "get_weather"}
_OFF: Json = {"reasoning": {"effort": "none"}}


def _choose(name: str, choice: object, *tools: Json, tokens: int = 24) -> Case:
    chosen = list(tools) or RESPONSES_TOOLS
    return _response(
        f"tool_choice {name}", input=WEATHER, tools=chosen, tool_choice=choice, max_output_tokens=tokens, **_OFF
    )


def _allow(mode: str, *tools: Json) -> Json:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


_FIELDS = (
    _choose("auto", "auto"),
    _choose("none", "none"),
    _choose("required", "required"),
    _choose("null", None),
    _choose("of no word known", "sometimes"),
    _choose("named", _NAMED),
    _choose("named in chat's form", {"type": "function", "function": {"name": "get_weather"}}),
    _choose("named, unknown", {"type": "function", "name": "get_rich"}),
    _choose("custom", {"type": "custom", "name": "apply_patch"}, _CUSTOM),
    _choose("named in a namespace", _NAMED, _NAMESPACE),
    _choose("allowed, auto", _allow("auto", _NAMED)),
    _choose("allowed, required", _allow("required", _NAMED)),
    _choose("allowed, none", _allow("auto")),
    _choose("allowed, unknown", _allow("auto", {"type": "function", "name": "get_rich"})),
    _choose(
        "allowed, one of two", _allow("required", {"type": "custom", "name": "apply_patch"}), *RESPONSES_TOOLS, _CUSTOM
    ),
    _choose("of a mode that is not known", _allow("sometimes", _NAMED)),
    _choose("of a hosted tool", {"type": "web_search_preview"}, *RESPONSES_TOOLS, _WEB),
    _choose("of a server's tool", {"type": "mcp", "server_label": "x"}),
    _choose("auto, of hosted tools only", "auto", _WEB),
    _choose("none, of hosted tools only", "none", _WEB),
    _choose("required, of hosted tools only", "required", _WEB),
    _response("tool_choice auto without tools", tool_choice="auto"),
    _response("tool_choice none without tools", tool_choice="none"),
    _response("tool_choice required without tools", tool_choice="required"),
    _response("tool_choice named without tools", tool_choice=_NAMED),
    _response("tool_choice allowed without tools", tool_choice=_allow("auto", _NAMED)),
    _response("no tools", tools=[]),
    _response("tools null", tools=None),
    _response("function without parameters", tools=[{"type": "function", "name": "ping"}]),
    _response(
        "function with nulls",
        tools=[{"type": "function", "name": "ping", "parameters": None, "strict": None, "description": None}],
    ),
    _response("function that is not strict", tools=[{**RESPONSES_TOOLS[0], "strict": False}]),
    _response("function in chat's form", tools=[{"type": "function", "function": {"name": "ping"}}]),
    _response("custom tool", tools=[_CUSTOM]),
    _response("custom tool of a grammar", tools=[_GRAMMAR]),
    _response("namespace", tools=[_NAMESPACE]),
    _response("web search", tools=[_WEB]),
    _response("web search and a function", tools=[*RESPONSES_TOOLS, _WEB], tool_choice="auto"),
    _response("local shell", tools=[{"type": "local_shell"}], tool_choice="auto"),
    _response("tool search", tools=[*RESPONSES_TOOLS, {"type": "tool_search"}]),
    _response("server's tool", tools=[{"type": "mcp", "server_label": "x", "server_url": "https://example.com"}]),
    _response("unknown tool", tools=[{"type": "telepathy"}]),
    _response("no parallel calls", tools=RESPONSES_TOOLS, parallel_tool_calls=False),
    _response("parallel calls as a text", tools=RESPONSES_TOOLS, parallel_tool_calls="false"),
    _response("max_tool_calls", tools=RESPONSES_TOOLS, max_tool_calls=3),
    _response("effort and summary", reasoning={"effort": "low", "summary": "auto"}),
    _response("effort null", reasoning={"effort": None, "summary": None}),
    _response("effort max", reasoning={"effort": "xhigh"}),
    _response("no effort", reasoning={}),
    _response("text format", text={"format": {"type": "text"}, "verbosity": "low"}),
    _response("text without format", text={"verbosity": "medium"}),
    _response(
        "JSON schema", text={"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA, "strict": True}}, **_OFF
    ),
    _response(
        "JSON schema, not strict",
        text={"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA, "strict": False}},
        **_OFF,
    ),
    _response("JSON schema without name", text={"format": {"type": "json_schema", "schema": _SCHEMA}}, **_OFF),
    _response("JSON schema without schema", text={"format": {"type": "json_schema", "name": "n"}}, **_OFF),
    _response("JSON object", text={"format": {"type": "json_object"}}, **_OFF),
    _response("unknown format", text={"format": {"type": "poem"}}),
    _response("metadata", metadata={"team": "a"}),
    _response("metadata of another kind", metadata={"team": 1}),
    _response("client_metadata", client_metadata={"x-codex": "1"}),
    _response("cache keys", prompt_cache_key="k", safety_identifier="s", prompt_cache_retention="24h"),
    _response("service tier", service_tier="priority", user="me"),
    _response("store false", store=False),
    _response("store true", store=True),
    _response("store null", store=None),
    _response("encrypted reasoning included", include=["reasoning.encrypted_content"]),
    _response("nothing included", include=[]),
    _response("include null", include=None),
    _response("sources included", include=["web_search_call.action.sources"]),
    _response("unknown included", include=["everything"]),
    _response("log probabilities", include=["message.output_text.logprobs"], top_logprobs=2, **_OFF),
    _response("log probabilities as a text", include=["message.output_text.logprobs"], top_logprobs="2", **_OFF),
    _response("log probabilities as 2.0", include=["message.output_text.logprobs"], top_logprobs=2.0, **_OFF),
    _response("number of log probabilities alone", top_logprobs=2),
    _response("previous response that is not there", previous_response_id="resp_nowhere"),
    _response("conversation", conversation="conv_1"),
    _response("prompt template", prompt={"id": "p_1"}),
    _response("background", background=True, store=True),
    _response("not in the background", background=False),
    _response("truncation auto", truncation="auto"),
    _response("truncation disabled", truncation="disabled"),
    _response("truncation null", truncation=None),
    _response("unknown truncation", truncation="middle"),
    _response("limit as a text", max_output_tokens="6"),
    _response("limit as 6.0", max_output_tokens=6.0),
    _response("limit of 6.5", max_output_tokens=6.5),
    _response("limit null", max_output_tokens=None, input="Say yes.", stop=["."], **_OFF),
    _response("temperature as a text", temperature="0"),
    _response("sampling", top_p=0.9, top_k=5, seed=3, presence_penalty=0.1, frequency_penalty=0.1),
    _response("stream options", stream=True, stream_options={"include_obfuscation": False}),
    _response("chat's number of answers", n=2),
    _response("chat's log probabilities", logprobs=True, top_logprobs=1),
    _response("chat's response format", response_format={"type": "json_object"}),
    _response("chat's functions", functions=[{"name": "f"}], function_call="auto"),
    _response("chat's limit", max_completion_tokens=3),
    _response("messages", enable_response_messages=True),
    _response("earlier messages", previous_input_messages=[{"role": "user", "content": "Hi"}]),
    _response("unknown field", unheard_of={"a": 1}),
)

# -- Turns of messages

_USED: Json = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}}
_THINKING: Json = {"type": "thinking", "thinking": "France.", "signature": "c2ln"}
_PICTURE: Json = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL}}


def _used(*blocks: Json) -> Json:
    return {"role": "assistant", "content": list(blocks)}


def _result(content: object = "Sunny", **fields: Any) -> Json:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": content, **fields}]}


def _without(block: Json, *names: str) -> Json:
    return {name: value for name, value in block.items() if name not in names}


_NO_ID = {"role": "user", "content": [{"type": "tool_result", "content": "Sunny"}]}
_NO_CONTENT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1"}]}
_PARIS: Json = {"type": "text", "text": "Paris."}
_SPAIN: Json = {"role": "user", "content": [{"type": "text", "text": "And of Spain?"}]}
_CACHED: Json = {"cache_control": {"type": "ephemeral"}}

_TURNS = (
    _message("text"),
    _message("text in a block", messages=[{"role": "user", "content": [{"type": "text", "text": "Hi", **_CACHED}]}]),
    _message("text in two blocks", messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}, _PARIS]}]),
    _message("empty text", messages=[{"role": "user", "content": [{"type": "text", "text": ""}, _PARIS]}]),
    _message("no blocks", messages=[{"role": "user", "content": []}, *FRANCE]),
    _message("content null", messages=[{"role": "user", "content": None}]),
    _message("content missing", messages=[{"role": "user"}]),
    _message("no messages", messages=[]),
    _message("unknown role", messages=[{"role": "wizard", "content": "Hi"}]),
    _message("system of one text", system="Be brief."),
    _message("system of nothing", system=""),
    _message(
        "system in blocks", system=[{"type": "text", "text": "Be "}, {"type": "text", "text": "brief.", **_CACHED}]
    ),
    _message("system without blocks", system=[]),
    _message("system with an image", system=[_PICTURE, {"type": "text", "text": "Be brief."}]),
    _message("system with an unknown block", system=[{"type": "riddle"}]),
    _message(
        "attribution",
        system=[{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "Be brief."}],
    ),
    _message("system in the middle", {"role": "system", "content": "Be brief."}, *FRANCE),
    _message(
        "system in the middle, of blocks", {"role": "system", "content": [{"type": "text", "text": "Hm."}]}, *FRANCE
    ),
    _message("system in the middle, of null", {"role": "system", "content": None}, *FRANCE),
    _message("system in the middle, of an image", {"role": "system", "content": [_PICTURE]}, *FRANCE),
    _message("answer", _used(_PARIS), _SPAIN),
    _message("answer without blocks", _used(), _SPAIN),
    _message("answer to go on with", {"role": "assistant", "content": "The capital"}),
    _message("thinking", _used(_THINKING, _PARIS), _SPAIN),
    _message("thinking without signature", _used(_without(_THINKING, "signature"), _PARIS), _SPAIN),
    _message("thinking of a signature only", _used(_without(_THINKING, "thinking"), _PARIS), _SPAIN),
    _message("thinking of nothing", _used({**_THINKING, "thinking": ""}, _PARIS), _SPAIN),
    _message("thinking of null", _used({**_THINKING, "thinking": None}, _PARIS), _SPAIN),
    _message("thinking that is redacted", _used({"type": "redacted_thinking", "data": "zz"}, _PARIS), _SPAIN),
    _message("thinking in the user's turn", {"role": "user", "content": [_THINKING, _PARIS]}),
    _message("two thoughts", _used(_THINKING, _THINKING, _PARIS), _SPAIN),
    _message("use and result", _used(_USED), _result()),
    _message("thought, text, use and result", _used(_THINKING, _PARIS, _USED), _result()),
    _message("use without id", _used(_without(_USED, "id")), _result()),
    _message("use without name", _used(_without(_USED, "name")), _result()),
    _message("use without input", _used(_without(_USED, "input")), _result()),
    _message("use of null", _used({**_USED, "input": None}), _result()),
    _message("use of a text", _used({**_USED, "input": "Paris"}), _result()),
    _message("use in the user's turn", {"role": "user", "content": [_USED, _PARIS]}),
    _message("result without id", _used(_USED), _NO_ID),
    _message("result without content", _used(_USED), _NO_CONTENT),
    _message("result of null", _used(_USED), _result(None)),
    _message("result of nothing", _used(_USED), _result([])),
    _message("result that is an error", _used(_USED), _result("No such city", is_error=True)),
    _message(
        "result in parts", _used(_USED), _result([{"type": "text", "text": "Sunny"}, {"type": "text", "text": "Warm"}])
    ),
    _message("result with an image", _used(_USED), _result([{"type": "text", "text": "Sunny"}, _PICTURE])),
    _message(
        "result with a document",
        _used(_USED),
        _result(
            [
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
                {"type": "text", "text": "Sunny"},
            ]
        ),
    ),
    _message(
        "result with a search result",
        _used(_USED),
        _result([{"type": "search_result", "source": "s", "title": "t", "content": []}]),
    ),
    _message(
        "result with a tool reference", _used(_USED), _result([{"type": "tool_reference", "tool_name": "get_weather"}])
    ),
    _message("result with a part without text", _used(_USED), _result([{"type": "text"}])),
    _message("result of an object", _used(_USED), _result({"sky": "blue"})),
    _message(
        "result in the assistant's turn",
        _used(_USED, {"type": "tool_result", "tool_use_id": "t1", "content": "Sunny"}),
        _SPAIN,
    ),
    _message(
        "result and text",
        _used(_USED),
        {"role": "user", "content": [*_result()["content"], {"type": "text", "text": "So?"}]},
    ),
    _message("result with cache_control", _used(_USED), _result("Sunny", **_CACHED)),
    _message("image", messages=[{"role": "user", "content": [_PICTURE, {"type": "text", "text": "What?"}]}]),
    _message(
        "image without source",
        messages=[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
    ),
    _message(
        "image of a file",
        messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}],
    ),
    _message(
        "document",
        messages=[{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}}]}],
    ),
    _message("tool reference", _used({"type": "tool_reference", "tool_name": "x"}, _PARIS), _SPAIN),
    _message(
        "server's tool use", _used({"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}), _SPAIN
    ),
    _message("unknown block", _used({"type": "riddle"}), _SPAIN),
)

# -- Fields of messages

_TOOL: Json = MESSAGES_TOOLS[0]
_DISABLED: Json = {"thinking": {"type": "disabled"}}


def _pick(name: str, choice: Json | None, **fields: Any) -> Case:
    asked: Json = {"messages": WEATHER, "tools": MESSAGES_TOOLS, "tool_choice": choice, "max_tokens": 24, **_DISABLED}
    return _message(f"tool_choice {name}", **{**asked, **fields})


_OPTIONS = (
    _pick("null", None),
    _pick("auto", {"type": "auto"}),
    _pick("auto, one at a time", {"type": "auto", "disable_parallel_tool_use": True}),
    _pick("auto, one at a time as a text", {"type": "auto", "disable_parallel_tool_use": "true"}),
    _pick("any", {"type": "any"}),
    _pick("any, one at a time", {"type": "any", "disable_parallel_tool_use": True}),
    _pick("tool", {"type": "tool", "name": "get_weather"}),
    _pick("tool, one at a time", {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}),
    _pick("tool, unknown", {"type": "tool", "name": "get_rich"}),
    _pick("tool without name", {"type": "tool"}),
    _pick("none", {"type": "none"}),
    _pick("none, one at a time", {"type": "none", "disable_parallel_tool_use": True}),
    _pick("unknown", {"type": "some"}),
    _pick("auto without tools", {"type": "auto"}, tools=None),
    _pick("none without tools", {"type": "none"}, tools=None),
    _pick("any without tools", {"type": "any"}, tools=None),
    _pick("tool without tools", {"type": "tool", "name": "get_weather"}, tools=None),
    _pick("auto of no tools", {"type": "auto"}, tools=[]),
    _pick("any of no tools", {"type": "any"}, tools=[]),
    _pick("null of no tools", None, tools=[]),
    _message("tool with cache_control", tools=[{**_TOOL, **_CACHED}]),
    _message("tool of type custom", tools=[{**_TOOL, "type": "custom"}]),
    _message("tool with fields of a beta", tools=[{**_TOOL, "eager_input_streaming": True, "input_examples": [{}]}]),
    _message("tool that is not strict", tools=[{**_TOOL, "strict": False}]),
    _message("tool that is strict as a text", tools=[{**_TOOL, "strict": "true"}]),
    _message("tool that waits", tools=[{**_TOOL, "defer_loading": True}]),
    _message("tool without schema", tools=[{"name": "ping"}]),
    _message("tool of an empty schema", tools=[{"name": "ping", "input_schema": {}}]),
    _message("server's tool", tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]),
    _message("stop sequences", stop_sequences=["zebra", "of"]),
    _message("no stop sequences", stop_sequences=[]),
    _message("stop sequences null", stop_sequences=None),
    _message("stop sequences of a text", stop_sequences="zebra"),
    _message("metadata", metadata={"user_id": "user_1"}),
    _message("metadata null", metadata=None),
    _message("service tier", service_tier="auto"),
    _message("context management", context_management={"edits": [{"type": "clear_tool_uses_20250919"}]}),
    _message("fields of betas", betas=["x-2026"], container=None, mcp_servers=[], speed="fast", diagnostics={}),
    _message("cache_control", **_CACHED),
    _message(
        "thinking enabled", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1030, stop_sequences=[" "]
    ),
    _message(
        "thinking enabled, as a text",
        thinking={"type": "enabled", "budget_tokens": "1024"},
        max_tokens=1030,
        stop_sequences=[" "],
    ),
    _message(
        "thinking enabled, as 1024.0",
        thinking={"type": "enabled", "budget_tokens": 1024.0},
        max_tokens=1030,
        stop_sequences=[" "],
    ),
    _message("thinking enabled without budget", thinking={"type": "enabled"}),
    _message("thinking enabled with little", thinking={"type": "enabled", "budget_tokens": 16}, max_tokens=20),
    _message("thinking disabled", **_DISABLED),
    _message("thinking adaptive", thinking={"type": "adaptive", "display": "summarized"}),
    _message("thinking null", thinking=None),
    _message("thinking unknown", thinking={"type": "much"}),
    _message("effort", output_config={"effort": "medium"}),
    _message("effort unknown", output_config={"effort": "huge"}),
    _message("JSON schema", output_config={"format": {"type": "json_schema", "schema": _SCHEMA}}, **_DISABLED),
    _message("JSON schema of nothing", output_config={"format": {"type": "json_schema"}}, **_DISABLED),
    _message("JSON schema of null", output_config={"format": None}, **_DISABLED),
    _message("unknown format", output_config={"format": {"type": "poem"}}, **_DISABLED),
    _message("limit as a text", max_tokens="6"),
    _message("limit as 6.0", max_tokens=6.0),
    _message("limit of 6.5", max_tokens=6.5),
    _message("limit of 0", max_tokens=0),
    _message("limit null", max_tokens=None),
    _message("temperature as a text", temperature="0"),
    _message("temperature out of range", temperature=3),
    _message("sampling", top_p=0.9, top_k=5),
    _message("chat's number of answers", n=2),
    _message("chat's log probabilities", logprobs=True, top_logprobs=1),
    _message("number of log probabilities alone", top_logprobs=1),
    _message("chat's response format", response_format={"type": "json_object"}),
    _message("chat's template", chat_template="{{ messages }}"),
    _message("chat's documents", documents="x"),
    _message("chat's stop", stop=7),
    _message("unknown field", unheard_of={"a": 1}),
)

BODIES = (*_ITEMS, *_FIELDS, *_TURNS, *_OPTIONS)


class Difference(NamedTuple):
    """The status of the node's own answer, that over chat, and why the answers differ."""

    native: int
    over_chat: int
    why: str


_LOOSE = Difference(400, 200, "nothing is lost by taking what the node's schema does not know")
_FAULT = Difference(500, 200, "the node fails")
_STATE = Difference(200, 400, "chat keeps nothing, and tells no messages")
_HEEDED = Difference(200, 200, "the node takes no notice of it")
_WHOLE = Difference(200, 200, "the node shows the model the first part only")
_SMALL = Difference(400, 200, "the gateway holds any budget")

DIFFERENT = {
    "responses: part of chat's type": _LOOSE,
    "responses: turn of a tool": _LOOSE,
    "responses: answer in a part without type": _LOOSE,
    "responses: answer in two parts": _WHOLE,
    "responses: answer without parts": _FAULT,
    "responses: refusal": _FAULT,
    "responses: reasoning without summary": _LOOSE,
    "responses: reasoning, encrypted": _LOOSE,
    "responses: reasoning, encrypted, without id": _LOOSE,
    "responses: web search call": _LOOSE,
    "responses: custom tool of a grammar": _LOOSE,
    "responses: encrypted reasoning included": _HEEDED,
    "responses: additional tools": _HEEDED,
    "responses: additional tools in front": _HEEDED,
    "responses: no additional tools": _HEEDED,
    "responses: additional tools without role": _LOOSE,
    "responses: tool_choice null": _LOOSE,
    "responses: tool_choice allowed, required": _HEEDED,
    "responses: tool_choice allowed, one of two": _HEEDED,
    "responses: tools null": _LOOSE,
    "responses: unknown tool": _LOOSE,
    "responses: metadata of another kind": _LOOSE,
    "responses: sources included": _LOOSE,
    "responses: background": _STATE,
    "responses: truncation null": _LOOSE,
    "responses: unknown truncation": _LOOSE,
    "responses: messages": _STATE,
    "messages: thinking enabled with little": _SMALL,
}
