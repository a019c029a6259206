"""The fake goes on with a broken answer: prompt ids and output ids as a prompt of completions, cut at every token."""

import codecs
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.contract.client import CHAT, COMPLETIONS, QUESTION, USAGE, NodeClient, Stream, node_client
from workers.fake import FakeSettings, serve_fake
from workers.fake.tokens import IM_START, THINK_END, Tokenizer, is_special
from workers.fake.toolcalls import ToolReader

TOKENIZER = Tokenizer()
LOOK = {
    "name": "look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}, "n": {"type": "integer"}}},
}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": LOOK}]}
OFF: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}


def asked(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 90, **fields}


REQUESTS: dict[str, dict[str, Any]] = {
    "thinking": asked("hello"),
    "no thinking": asked("hello", **OFF),
    "effort none": asked("hello", reasoning_effort="none"),
    "low effort": asked("hello", reasoning_effort="low"),
    "budget": asked("hello", thinking_token_budget=9),
    "budget 0": asked("hello", thinking_token_budget=0),
    "budget 1": asked("hello", thinking_token_budget=1),
    "budget above": asked("hello", thinking_token_budget=999),
    "ends by length in the thought": asked("hello", max_tokens=7),
    "ends by length in the answer": asked("hello", max_tokens=17),
    "bytes": asked("hello [[wide]]"),
    "bytes, no thinking": asked("hello [[wide]] [[answer=30]]", **OFF),
    "bytes, cut by a budget": asked("hello [[wide]] [[think=60]]", thinking_token_budget=23),
    "bytes, cut by length": asked("hello [[wide]]", max_tokens=20),
    "a tool is called": asked("hello [[call]]", **TOOLS),
    "a tool is called, no thinking": asked("hello [[call]]", **TOOLS, **OFF),
    "two calls": asked("hello [[call=look,look]]", **TOOLS, thinking_token_budget=5, max_tokens=150),
    "tools that are not called": asked("hello", **TOOLS),
    "a history": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            *QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}]},
            {"role": "tool", "tool_call_id": "1", "content": "blue"},
            {"role": "user", "content": [{"type": "text", "text": "and"}, {"type": "text", "text": "so on"}]},
        ],
        "max_tokens": 60,
        **TOOLS,
    },
    "an answer that is gone on with": {
        "messages": [*QUESTION, {"role": "assistant", "content": "Paris is"}],
        "add_generation_prompt": False, "continue_final_message": True, "max_tokens": 30,
    },
    "no generation prompt": {"messages": QUESTION, "add_generation_prompt": False, "max_tokens": 30},
    "stop token": asked("hello", stop_token_ids=[ord(".")]),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Whole:
    """An unbroken answer: its ids, and its text with the marks in it."""

    prompt: list[int]
    ids: list[int]
    reasoning: str
    content: str
    calls: list[tuple[str, str]]
    finish: str
    usage: dict[str, Any]


def read_whole(stream: Stream) -> Whole:
    calls: dict[int, list[str]] = {}
    for chunk in stream.chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                seen = calls.setdefault(call["index"], ["", ""])
                seen[0] += call["function"].get("name", "")
                seen[1] += call["function"].get("arguments", "")
    finish = next(c["choices"][0]["finish_reason"] for c in reversed(stream.chunks) if c["choices"])
    return Whole(
        stream.chunks[0]["prompt_token_ids"],
        stream.token_ids(),
        stream.joined("reasoning"),
        stream.joined("content"),
        [(name, arguments) for name, arguments in calls.values()],
        finish,
        stream.chunks[-1]["usage"],
    )


async def whole_chat(node: NodeClient, fields: dict[str, Any]) -> Whole:
    return read_whole(await node.stream(CHAT, {**fields, "return_token_ids": True, "stream_options": USAGE}))


async def rest_of(node: NodeClient, fields: dict[str, Any], whole: Whole, made: int) -> Stream:
    kept: dict[str, Any] = {
        name: fields[name] for name in ("thinking_token_budget", "stop_token_ids") if name in fields
    }
    body = {
        **kept,
        "prompt": whole.prompt + whole.ids[:made],
        "max_tokens": fields["max_tokens"] - made,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "stream_options": USAGE,
    }
    return await node.stream(COMPLETIONS, body)


def raw_text(stream: Stream) -> str:
    return "".join(choice["text"] for chunk in stream.chunks for choice in chunk["choices"])


def parsed(raw: str, thinking: bool) -> tuple[str, str, list[tuple[str, str]]]:
    """Reasoning, content and calls of an answer's raw text."""
    reasoning, _, answer = raw.partition("</think>") if thinking else ("", "", raw)
    tools = ToolReader({"look": {"at": "string", "n": "integer"}})
    content, _ = tools.feed(answer, last=True)
    return reasoning, content, [(call["name"], call["arguments"]) for call in tools.calls]


@pytest.mark.parametrize("name", REQUESTS)
async def test_every_cut_goes_on_to_the_same_end(name: str) -> None:
    fields = REQUESTS[name]
    settings = FakeSettings(thinking_tokens=12, answer_tokens=8)
    async with serve_fake(settings) as first, serve_fake(replace(settings, tokens_per_event=3)) as second:
        async with node_client(first.url) as ours, node_client(second.url) as other:
            whole = await whole_chat(ours, fields)
            assert replace(await whole_chat(other, fields), usage={}) == replace(whole, usage={})
            assert len(whole.ids) == whole.usage["completion_tokens"]
            unbroken = raw_text(await rest_of(other, fields, whole, 0))
            for made in range(len(whole.ids)):
                rest = await rest_of(ours if made % 2 else other, fields, whole, made)
                check_rest(whole, made, rest, unbroken)


def check_rest(whole: Whole, made: int, rest: Stream, unbroken: str) -> None:
    """The rest of an answer of which `made` tokens had come: its ids, its text, its end, its usage."""
    choices = [choice for chunk in rest.chunks for choice in chunk["choices"]]
    ids = [i for choice in choices for i in choice["token_ids"]]
    assert ids == whole.ids[made:]
    finish = "stop" if whole.finish == "tool_calls" else whole.finish
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == [finish]
    assert rest.events[-1].data == "[DONE]"
    usage = rest.chunks[-1]["usage"]
    assert usage["completion_tokens"] == len(ids)
    assert usage["prompt_tokens"] == whole.usage["prompt_tokens"] + made
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    shown = decoder.decode(b"".join(map(TOKENIZER.token_bytes, whole.ids[:made])))
    if not decoder.getstate()[0]:  # within a character its text is lost, and only the ids go on
        assert shown + raw_text(rest) == unbroken


@pytest.mark.parametrize("name", REQUESTS)
async def test_the_raw_text_holds_what_chat_says(name: str) -> None:
    fields = REQUESTS[name]
    async with serve_fake() as fake, node_client(fake.url) as node:
        whole = await whole_chat(node, fields)
        raw = raw_text(await rest_of(node, fields, whole, 0))
        opened = fields.get("add_generation_prompt", True)
        thinking = opened and TOKENIZER.decode(whole.prompt).endswith("<think>\n")
        reasoning, content, calls = parsed(raw, thinking)
        if opened:
            assert (reasoning, content, calls) == (whole.reasoning, whole.content, whole.calls)
        else:
            assert raw.removeprefix("<|im_start|>") == whole.reasoning + whole.content
        assert ("</think>" in raw) == (THINK_END in whole.ids)
        assert (whole.finish == "tool_calls") == bool(calls)


async def test_the_requests_reach_what_they_are_for() -> None:
    async with serve_fake() as fake, node_client(fake.url) as node:
        found = {name: await whole_chat(node, fields) for name, fields in REQUESTS.items()}
    assert len({tuple(whole.ids) for whole in found.values()}) > len(found) - 4
    wide = found["bytes, cut by a budget"]
    end = wide.ids.index(THINK_END)
    assert wide.ids[end - 1] >= 0x80
    assert wide.reasoning.endswith("\ufffd")
    assert any(0x80 <= i < 0x100 for i in found["bytes, cut by length"].ids[-1:])
    assert [len(found[n].calls) for n in ("a tool is called", "two calls", "tools that are not called")] == [1, 2, 0]
    assert IM_START in found["no generation prompt"].ids
    assert found["stop token"].ids[-1] == ord(".")
    assert not (found["stop token"].reasoning + found["stop token"].content).endswith(".")
    assert THINK_END not in found["ends by length in the thought"].ids


async def test_a_character_comes_whole_and_its_ids_as_they_are_made() -> None:
    fields = REQUESTS["bytes, no thinking"]
    async with serve_fake() as fake, node_client(fake.url) as node:
        whole = await whole_chat(node, fields)
        rest = await rest_of(node, fields, whole, 0)
        chat = await node.stream(CHAT, {**fields, "return_token_ids": True})
        without = await node.stream(CHAT, fields)
    texts = [c["choices"][0]["text"] for c in rest.chunks if c["choices"]]
    deltas = [c["choices"][0]["delta"] for c in chat.chunks[1:]]
    for choice, delta in zip([c["choices"][0] for c in rest.chunks if c["choices"]], deltas, strict=True):
        assert delta == ({"content": choice["text"]} if choice["text"] else {})
        assert len(choice["token_ids"]) == 1
    assert texts.count("") > 5
    assert "\ufffd" not in "".join(texts)
    assert all(c["choices"][0]["delta"] or c["choices"][0]["finish_reason"] for c in without.chunks)
    assert without.joined("content") == whole.content


async def test_what_a_parser_holds_back_comes_as_an_empty_delta_with_ids() -> None:
    fields = REQUESTS["a tool is called"]
    async with serve_fake() as fake, node_client(fake.url) as node:
        told = await node.stream(CHAT, {**fields, "return_token_ids": True})
        without = await node.stream(CHAT, fields)
    choices = [chunk["choices"][0] for chunk in told.chunks[1:]]
    empty = [choice["token_ids"] for choice in choices if choice["delta"] == {}]
    assert [THINK_END] in empty
    assert sum(is_special(ids[0]) for ids in empty) == 4  # the ends of the thought, of the call, of the turn; its begin
    assert len(empty) > 10
    shown = [chunk["choices"][0] for chunk in without.chunks]
    assert [choice["delta"] for choice in shown if not choice["delta"] and choice["finish_reason"] is None] == []
    assert len(without.chunks) == len(told.chunks) - len(empty) + 1  # the finish


@pytest.mark.parametrize("name", REQUESTS)
async def test_tokenize_renders_what_chat_is_asked(name: str) -> None:
    fields = REQUESTS[name]
    kept = {
        n: fields[n] for n in ("messages", "tools", "add_generation_prompt", "continue_final_message") if n in fields
    }
    kwargs = dict(fields.get("chat_template_kwargs") or {})
    if "reasoning_effort" in fields:
        kwargs |= {
            "enable_thinking": fields["reasoning_effort"] != "none",
            "reasoning_effort": fields["reasoning_effort"],
        }
    async with serve_fake() as fake, node_client(fake.url) as node:
        whole = await whole_chat(node, fields)
        shown = await node.ok("/tokenize", {**kept, **({"chat_template_kwargs": kwargs} if kwargs else {})})
    assert shown["tokens"] == whole.prompt
    assert shown["count"] == len(whole.prompt) == whole.usage["prompt_tokens"]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("length", [2, 5, 9])
async def test_stop_strings_hold_text_back_while_the_ids_run_ahead(keep: bool, length: int) -> None:
    fields = asked("hello", **OFF)
    async with serve_fake() as fake, node_client(fake.url) as node:
        free = (await whole_chat(node, fields)).content
        stop = free[30 : 30 + length]
        at = free.index(stop)
        stopped = {**fields, "stop": ["never said at all", stop][length == 9 :], "include_stop_str_in_output": keep}
        stream = await node.stream(CHAT, {**stopped, "return_token_ids": True})
        body = {"prompt": stream.chunks[0]["prompt_token_ids"], "return_token_ids": True}
        raw = await node.stream(COMPLETIONS, {**body, **{k: v for k, v in stopped.items() if k != "messages"}})
    texts = [c["choices"][0]["delta"].get("content", "") for c in stream.chunks[1:]]
    assert texts == [c["choices"][0]["text"] for c in raw.chunks]
    assert "".join(texts) == free[: at + (length if keep else 0)]
    assert stream.chunks[-1]["choices"][0]["stop_reason"] == stop
    held = 0 if keep else max(map(len, stopped["stop"])) - 1
    made, out = b"", ""
    for chunk in stream.chunks[1:-1]:
        made += b"".join(map(TOKENIZER.token_bytes, chunk["choices"][0]["token_ids"]))
        out += chunk["choices"][0]["delta"].get("content", "")
        assert out == made.decode()[: max(0, len(made.decode()) - held)]


async def test_a_grammar_holds_in_what_follows_a_thought_and_begins_afresh_in_an_answer() -> None:
    schema = {"type": "object", "properties": {"ok": {"enum": ["yes"]}}, "required": ["ok"]}
    wanted = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    fields = asked("hello", **wanted)
    async with serve_fake() as fake, node_client(fake.url) as node:
        whole = await whole_chat(node, fields)
        assert json.loads(whole.content) == {"ok": "yes"}
        end = whole.ids.index(THINK_END) + 1
        for made in range(len(whole.ids) - 1):
            body = {"prompt": whole.prompt + whole.ids[:made], "max_tokens": 80, "return_token_ids": True, **wanted}
            rest = await node.stream(COMPLETIONS, body)
            ids = [i for chunk in rest.chunks for i in chunk["choices"][0]["token_ids"]]
            assert ids == (whole.ids[made:] if made <= end else whole.ids[end:])


async def test_bodies_differ_in_their_texts_and_nodes_do_not() -> None:
    async with serve_fake() as first, serve_fake(FakeSettings(rate=5000, tokens_per_event=2)) as second:
        async with node_client(first.url) as ours, node_client(second.url) as other:
            texts = set()
            for number in range(20):
                fields = asked(f"request {number}")
                mine, theirs = await whole_chat(ours, fields), await whole_chat(other, fields)
                assert (mine.ids, mine.reasoning, mine.content) == (theirs.ids, theirs.reasoning, theirs.content)
                texts.add((mine.reasoning, mine.content))
    assert len(texts) == 20
