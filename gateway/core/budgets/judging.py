"""Which requests can say something of a node: whether it holds thinking budgets, and how many tokens an event has.

A client is no witness against a node. What it can put into a body moves where an answer's thinking begins (an answer
that is already begun), what is counted as thinking, and how tokens become events. So only bodies are heard that hold
nothing but what is known to leave these alone; whatever is not listed here says nothing. And what they say is only a
reason to ask the node itself (see `fleet.canary`).
"""

from gateway.core.bodies import Body
from gateway.core.json_text import dump

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
        # Set by the gateway, or a count that is looked at.
        "cache_salt",
        "chat_template_kwargs",
        "n",
    }
)

_MARKER = b"think>"


def begins_in_thought(body: Body) -> bool:
    """Whether the answer to a chat or a message begins with the template's opening of a thought.

    Where an answer is already begun, nodes count the rest of it as reasoning: a budget neither holds nor binds there.
    """
    return body.get("add_generation_prompt") in (None, True) and not body.get("continue_final_message")


def is_plain(body: Body) -> bool:
    """Whether `body` asks for one answer, which begins in a thought, with nothing that moves what is counted."""
    template = body.get("chat_template_kwargs")
    return (
        body.keys() <= _PLAIN
        and type(n := body.get("n")) in (int, type(None))
        and n in (None, 1)
        and (
            template is None or (type(template) is dict and template.keys() <= {"enable_thinking", "reasoning_effort"})
        )
        and not _is_begun(body.get("messages"))
    )


def is_evidence(body: Body) -> bool:
    """Whether an answer to `body` that overran its budget is a reason to ask the node again whether it holds them."""
    return is_plain(body) and _MARKER not in dump({"messages": body.get("messages"), "system": body.get("system")})


def _is_begun(messages: object) -> bool:
    """Whether the last message is the model's own, which it may be asked to go on with."""
    last = messages[-1] if type(messages) is list and messages else None
    return type(last) is not dict or last.get("role") == "assistant"
