"""Promises about answers that do not begin with the template's thought, and about beams: no budget holds there."""

from typing import Any

from tests.contract.client import CHAT, COMPLETIONS, QUESTION, USAGE, NodeClient

OFF: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
BUDGET: dict[str, Any] = {"thinking_token_budget": 3}
BEAMS: dict[str, Any] = {"use_beam_search": True, "n": 2, "max_tokens": 8, "ignore_eos": True}
GO_ON: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}


def begun(text: str) -> dict[str, Any]:
    """The fields that have a node go on with an answer of `text`."""
    return {"messages": [*QUESTION, {"role": "assistant", "content": text}], **GO_ON}


async def beam_search(node: NodeClient) -> None:
    """Beams: as many choices as asked, greedy, too; no budget is held, and no stop string found."""
    answer = await node.chat(**BEAMS, **BUDGET)
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert all(choice["message"]["reasoning"] and not choice["message"]["content"] for choice in answer["choices"])
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 16
    assert answer["usage"]["completion_tokens"] == 16
    free = await node.chat(**BEAMS, **OFF)
    text = free["choices"][0]["message"]["content"]
    again = await node.chat(**BEAMS, **OFF, stop=[text[2:5]], min_tokens=2)
    assert again["choices"][0]["message"]["content"] == text


async def beam_stream(node: NodeClient) -> None:
    """A stream of beams: the roles, then each choice whole, in one chunk. Completions have none."""
    stream = await node.chat_stream(**BEAMS, **BUDGET, stream_options=USAGE)
    roles, beams, usage = stream.chunks[:2], stream.chunks[2:-1], stream.chunks[-1]
    assert [chunk["choices"][0]["delta"] for chunk in roles] == [{"role": "assistant", "content": ""}] * 2
    assert [chunk["choices"][0]["index"] for chunk in beams] == [0, 1]
    assert all(chunk["choices"][0]["delta"]["reasoning"] for chunk in beams)
    assert [chunk["choices"][0]["finish_reason"] for chunk in beams] == ["length", "length"]
    assert usage["usage"]["completion_tokens_details"]["reasoning_tokens"] == 16
    body = {"model": node.model, "prompt": "One", "max_tokens": 4, "use_beam_search": True}
    assert len((await node.ok(COMPLETIONS, {**body, "n": 2}))["choices"]) == 2
    refused = await node.post(COMPLETIONS, {**body, "stream": True})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "Streaming is not currently supported with beam search"


async def no_generation_prompt(node: NodeClient) -> None:
    """Without a generation prompt the model opens its turn itself: all is reasoning, and said to be the user's."""
    for fields in ({}, BUDGET):
        answer = await node.chat(add_generation_prompt=False, max_tokens=10, **{"ignore_eos": True, **fields})
        message = answer["choices"][0]["message"]
        assert (message["role"], message["content"]) == ("user", None)
        assert message["reasoning"].startswith("assistant\n")
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
    stream = await node.chat_stream(add_generation_prompt=False, max_tokens=6)
    assert stream.chunks[0]["choices"][0]["delta"]["role"] == "user"
    assert (stream.joined("reasoning") or "").startswith("assistant\n")
    off = await node.chat(add_generation_prompt=False, max_tokens=10, **OFF)
    assert off["choices"][0]["message"]["content"].startswith("assistant\n")


async def begun_answer(node: NodeClient) -> None:
    """An answer that is gone on with counts as reasoning, and is told so unless it is streamed; no budget binds it.
    Where thinking is off it is an answer."""
    for fields in ({}, BUDGET):
        answer = await node.chat(**begun("The capital of France is"), max_tokens=8, **{"ignore_eos": True, **fields})
        message = answer["choices"][0]["message"]
        assert message["reasoning"]
        assert (message["role"], message["content"]) == ("assistant", None)
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 8
    asked = begun("The capital of France is")
    stream = await node.chat_stream(**asked, max_tokens=6, ignore_eos=True, stream_options=USAGE)
    assert stream.joined("content")
    assert not stream.joined("reasoning")
    assert stream.chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 6
    off = await node.chat(**begun("The capital of France is"), max_tokens=8, ignore_eos=True, **OFF)
    assert off["choices"][0]["message"]["reasoning"] is None
    assert off["choices"][0]["message"]["content"]


async def begun_thought(node: NodeClient) -> None:
    """A thought that is gone on with ends where its budget does, what the prompt holds of it included."""
    answer = await node.chat(**begun("<think>\nThe user"), thinking_token_budget=8, max_tokens=14, ignore_eos=True)
    message = answer["choices"][0]["message"]
    assert message["reasoning"]
    assert message["content"]
    assert 0 < answer["usage"]["completion_tokens_details"]["reasoning_tokens"] < 8


async def begun_response(node: NodeClient) -> None:
    """So it is with a response that goes on with an item."""
    part = {"type": "output_text", "text": "The capital of France is"}
    item = {"type": "message", "role": "assistant", "status": "incomplete", "content": [part]}
    body = {"model": node.model, "input": [*QUESTION, item], "max_output_tokens": 6, "temperature": 0}
    answer = await node.ok("/v1/responses", body)
    assert [item["type"] for item in answer["output"]] == ["reasoning"]
    stream = await node.stream("/v1/responses", body)
    assert [item["type"] for item in stream.chunks[-1]["response"]["output"]] == ["message"]
    off = await node.ok("/v1/responses", {**body, "reasoning": {"effort": "none"}})
    assert [item["type"] for item in off["output"]] == ["message"]


async def closed_answer(node: NodeClient) -> None:
    """Where the last turn is an answer and nothing is to be opened, there is nothing to say."""
    messages = [*QUESTION, {"role": "assistant", "content": "Paris."}]
    answer = await node.ok(CHAT, node.ask({"messages": messages, "add_generation_prompt": False}))
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"] is None
    assert answer["usage"]["completion_tokens"] == 1
