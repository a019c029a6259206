"""The fields of a body that decide what it costs a node, read by the node's own rules.

A count that the gateway took for none would pass every limit. So each spelling that is certain is read
(`core/lax_numbers.py`), and the body goes on with the plain number in its place: no node can read it otherwise.
Every other spelling is refused.

    field                                     what it moves
    max_tokens, max_completion_tokens,        tokens of each answer; where chat has two of them, the first in
    max_output_tokens                         `Dialect.output_fields` wins, and the others are set to it
    n, best_of                                answers to each prompt (with use_beam_search: beams)
    prompt, prompt_embeds                     a list may hold many prompts
    min_tokens                                what an answer that nothing bounds has at the least
    ignore_eos                                such an answer goes on to the end of the context window
    max_tool_calls                            rounds of a response whose tools the node calls by itself
    echo                                      one token, also with max_tokens 0
    stream_interval                           tokens in one event, which an answer that is left is counted by
    use_beam_search                           one event at the end of a stream, which one that is left has none of
    truncate_prompt_tokens                    only less of the prompt
    background                                the node goes on when its client has left (`Ask.background`)
"""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.lax_numbers import LARGEST, read_count, read_switch

COUNTS = frozenset(
    {
        "best_of",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "max_tool_calls",
        "min_tokens",
        "n",
        "stream_interval",
        "truncate_prompt_tokens",
    }
)
SWITCHES = frozenset({"echo", "ignore_eos", "use_beam_search"})
_FIELDS = COUNTS | SWITCHES


def plain_values(body: Body, output_fields: tuple[str, ...]) -> Body:
    """What has to be set in `body` so that each field above is a plain number or boolean, and those of
    `output_fields` agree. Raises `InvalidRequest` for what is neither."""
    changes: Body = {}
    if _FIELDS.isdisjoint(body):
        return changes
    for name in _FIELDS.intersection(body):
        value = body[name]
        kind = type(value)
        if (
            value is None
            or (kind is int and name in COUNTS and value <= LARGEST)
            or (kind is bool and name in SWITCHES)
        ):
            continue
        changes[name] = read_count(value, name) if name in COUNTS else read_switch(value, name)
    if len(output_fields) > 1:
        _agree(body, output_fields, changes)
    return changes


def check_prompts(value: Any, name: str) -> None:
    """Refuse a prompt that is neither text, nor token ids, nor a list of either."""
    if value is None or type(value) is str:
        return
    kinds = set(map(type, value)) if type(value) is list else {type(value)}
    if kinds == {list}:
        kinds = {kind for part in value for kind in set(map(type, part))}
        if kinds <= {int}:
            return
    elif type(value) is list and len(kinds) <= 1 and kinds <= {int, str}:
        return
    raise InvalidRequest(
        f"The field {name!r} must be a text, a list of token ids, or a list of either.", param=name, code="invalid_type"
    )


def sequences_of(body: Body) -> int:
    """How many answers a node generates side by side."""
    n, best_of = body.get("n"), body.get("best_of")
    if n is None and best_of is None:
        return _prompts(body)
    each = max(n if type(n) is int else 1, best_of if type(best_of) is int else 1, 1)
    return each * _prompts(body)


def choices_of(body: Body) -> int:
    """How many answers come back: `n` for each prompt."""
    n = body.get("n")
    return (n if type(n) is int and n > 1 else 1) * _prompts(body)


def rounds_of(body: Body) -> int:
    """How often a node may generate for one answer: once, and once more for each call of a tool of its own."""
    calls, tools = body.get("max_tool_calls"), body.get("tools")
    if type(calls) is not int or calls <= 0 or type(tools) is not list:
        return 1
    return 1 + calls if any(type(tool) is dict and tool.get("type") != "function" for tool in tools) else 1


def least_output(body: Body, window: int | None) -> int:
    """Tokens that an answer surely has where nothing bounds it; `window`: the model's context window in tokens."""
    if body.get("ignore_eos") is True and window is not None:
        return window
    least = body.get("min_tokens")
    return least if type(least) is int and least > 0 else 0


def tokens_an_event(body: Body) -> int:
    """Tokens that the client has a node gather for one event of its stream."""
    interval = body.get("stream_interval")
    return interval if type(interval) is int and interval > 1 else 1


def comes_at_once(body: Body) -> bool:
    """Whether a node sends nothing before its answer is whole, also where it is asked for a stream."""
    return body.get("use_beam_search") is True


def _prompts(body: Body) -> int:
    """Completions take several prompts: texts or lists of token ids; and embeddings in their place or besides."""
    prompt, embeds = body.get("prompt"), body.get("prompt_embeds")
    texts = len(prompt) if type(prompt) is list and prompt and type(prompt[0]) is not int else 1
    return texts + len(embeds) if type(embeds) is list else texts


def _agree(body: Body, output_fields: tuple[str, ...], changes: Body) -> None:
    """Which one wins is the node's to say, and not all versions need say the same: so they say the same themselves."""
    given = [name for name in output_fields if body.get(name) is not None]
    if len(given) < 2:
        return
    won = changes.get(given[0], body[given[0]])
    for name in given[1:]:
        if changes.get(name, body[name]) != won:
            changes[name] = won
