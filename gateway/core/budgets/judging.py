"""Which requests are evidence of how a node holds thinking budgets, and of how many tokens an event has.

A client's word does not count against a node. Fields of a body can move where thinking begins, what is counted as
thinking, and how tokens become events. So a body is evidence only if all its fields are listed here: those are known to
move none of it. Evidence is a reason to ask the node itself (see `fleet.canary`), no more.
"""

from gateway.core.bodies import Body
from gateway.core.json_text import dump
from gateway.core.reading.outline import Outline

_PLAIN = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "min_p",
        "model",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "seed",
        "stream",
        "stream_options",
        "system",
        "temperature",
        "thinking",
        "thinking_token_budget",
        "tools",
        "tool_choice",
        "top_k",
        "top_p",
        "user",
        # Set by the gateway, or checked below.
        "cache_salt",
        "chat_template_kwargs",
        "n",
    }
)

_MARKER = b"think>"


def begins_in_thought(body: Body) -> bool:
    """Whether the answer begins with the template's opening of a thought.

    Nodes count the rest of an answer that the client has begun as reasoning, and hold no budget there.
    """
    return body.get("add_generation_prompt") in (None, True) and not body.get("continue_final_message")


def is_plain(body: Body) -> bool:
    """Whether `body` asks for one answer that begins in a thought, with no field that moves what is counted."""
    template = body.get("chat_template_kwargs")
    return (
        type(body) is not Outline
        and body.keys() <= _PLAIN
        and type(n := body.get("n")) in (int, type(None))
        and n in (None, 1)
        and (
            template is None or (type(template) is dict and template.keys() <= {"enable_thinking", "reasoning_effort"})
        )
        and not _is_begun(body.get("messages"))
    )


def is_evidence(body: Body) -> bool:
    """Whether an overrun by an answer to `body` is evidence against its node."""
    return is_plain(body) and _MARKER not in dump({"messages": body.get("messages"), "system": body.get("system")})


def _is_begun(messages: object) -> bool:
    """Whether the last message is the model's own, so that the answer may continue it."""
    last = messages[-1] if type(messages) is list and messages else None
    return type(last) is not dict or last.get("role") == "assistant"
