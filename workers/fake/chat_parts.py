"""What a decoding step means in a chat: reasoning, content, tool calls, logprobs."""

from collections.abc import Sequence
from typing import Any

from workers.fake.chat_job import ChatJob
from workers.fake.generation import Step
from workers.fake.node import Node
from workers.fake.toolcalls import ToolReader


def split_step(node: Node, job: ChatJob, step: Step, tools: ToolReader | None) -> dict[str, Any]:
    """A step's text as a delta: content, reasoning, tool calls; empty members left out."""
    reasoning, content = step.text("reasoning"), step.text("content")
    if not node.settings.reasoning_parser:
        reasoning, content = "", reasoning + content
    calls: list[dict[str, Any]] = []
    if tools is not None:
        content, calls = tools.feed(content, last=step.finish is not None)
    shown: dict[str, Any] = {"content": content, node.settings.reasoning_field: reasoning, "tool_calls": calls}
    if not job.body.include_reasoning:
        shown[node.settings.reasoning_field] = ""
    return {k: v for k, v in shown.items() if v}


def chat_logprobs(node: Node, ids: Sequence[int], top: int) -> dict[str, Any]:
    """`logprobs` of a chat choice: the token itself is always certain, the others are its neighbours."""
    return {"content": [_logprob(node, token, top) for token in ids]}


def _logprob(node: Node, token: int, top: int) -> dict[str, Any]:
    def entry(t: int, logprob: float) -> dict[str, Any]:
        data = node.tokenizer.token_bytes(t)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}

    return {**entry(token, -0.125), "top_logprobs": [entry(token + i, -0.125 - 2.0 * i) for i in range(top)]}
