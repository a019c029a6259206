"""Which prompts tell how long a token is: only those that are nothing but text, whatever a client can put into one."""

from typing import Any

import pytest

from gateway.core.limits.comparable import LONGEST, is_text

TEXT = [{"role": "user", "content": "hello"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"url": {"type": "string"}}}}}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": TEXT},
        {"messages": PARTS, "max_tokens": 5, "stream": True, "temperature": 0.5},
        {"messages": TEXT, "n": 4, "logprobs": True, "top_logprobs": 5},
        {"messages": TEXT, "tools": TOOLS},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]},
        {"messages": PARTS, "system": [{"type": "text", "text": "be brief"}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "x"}]}]},
        {"prompt": "hello"},
        {"prompt": ["hello"]},
        {"input": "hello", "instructions": "be brief"},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]},
    ],
)
def test_plain_text_can_be_compared(body: dict[str, Any]) -> None:
    assert is_text({"model": "m", **body})


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [IMAGE]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "image_url": "x"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"data": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
        {"messages": [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}]},
        {"messages": [{"role": "user", "content": {"image_url": "x"}}]},
        {"messages": "hello", "documents": [{"text": "long"}]},
        {"messages": TEXT, "truncate_prompt_tokens": 1},
        {"messages": TEXT, "chat_template": "{{ messages }}"},
        {"messages": TEXT, "mm_processor_kwargs": {}},
        {"messages": TEXT, "something_new": 1},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2, 3]]},
        {"prompt": ["one", "two"]},
        {"prompt": "x", "prompt_embeds": "AAAA"},
        {"prompt": "x", "echo": True},
        {"prompt": 5},
        {"input": "x", "previous_response_id": "resp_1"},
        {"input": ["one", "two"]},
        {"input": [{"type": "input_image", "image_url": "x"}]},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"messages": TEXT * (LONGEST + 1)},
    ],
)
def test_whatever_comes_between_text_and_tokens_cannot(body: dict[str, Any]) -> None:
    assert not is_text({"model": "m", **body})
