"""The fields of a body that decide its cost, read as nodes read them.

A count that the gateway did not recognise would pass every limit. So every spelling that nodes certainly read is read
(`core/lax_numbers.py`) and replaced by the plain number, which no node reads otherwise. Any other spelling is refused.

    field                                     effect
    max_tokens, max_completion_tokens,        tokens of each answer; where chat has two of them, the first in
    max_output_tokens                         `Dialect.output_fields` wins, and the others are set to it
    n, best_of                                answers to each prompt (with use_beam_search: beams)
    prompt, prompt_embeds                     a list may hold many prompts
    min_tokens                                what an answer that nothing bounds has at the least
    ignore_eos                                such an answer goes on to the end of the context window
    max_tool_calls                            rounds of a response whose tools the node calls by itself
    echo                                      one token, also with max_tokens 0
    stream_interval                           tokens in one event; unfinished answers are counted by their events
    use_beam_search                           one event at the stream's end; unfinished answers have none
    truncate_prompt_tokens                    a shorter prompt, never a longer one
    background                                the node works on when the client has left (`Ask.background`)
"""

from typing import Any, Final

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.lax_numbers import LARGEST, read_count, read_switch
from gateway.core.reading.outline import Outline

COUNTS: Final = frozenset(
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
SWITCHES: Final = frozenset({"echo", "ignore_eos", "use_beam_search"})
_FIELDS: Final = COUNTS | SWITCHES

MULTIPLIERS: Final = frozenset({"best_of", "max_tool_calls", "n", "prompt", "prompt_embeds"})
"""The fields without which a node makes one answer, in one round."""


def plain_values(body: Body, output_fields: tuple[str, ...]) -> Body:
    """The fields to set in `body` so that each one above is a plain number or boolean, and `output_fields` agree.

    Raises `InvalidRequest` for a value that is neither.
    """
    changes: Body = {}
    found = _FIELDS.intersection(body)
    for name in found:
        value = body[name]
        kind = type(value)
        if (
            value is None
            or (kind is int and name in COUNTS and value <= LARGEST)
            or (kind is bool and name in SWITCHES)
        ):
            continue
        if name in COUNTS:
            changes[name] = read_count(value, name)
        else:  # in one conditional expression with a count, the compiled switch becomes the number 1
            changes[name] = read_switch(value, name)
    if len(found) > 1 and len(output_fields) > 1:
        _agree(body, output_fields, changes)
    return changes


def check_prompts(value: Any, name: str) -> None:
    """Raises `InvalidRequest` unless a prompt is text, token ids, or a list of either."""
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
        f"The field {name!r} must be a string, a list of token ids, or a list of both.", param=name, code="invalid_type"
    )


def sequences_of(body: Body) -> int:
    """The number of answers that a node generates side by side."""
    n, best_of = body.get("n"), body.get("best_of")
    if n is None and best_of is None:
        return prompts_of(body)
    each = max(n if type(n) is int else 1, best_of if type(best_of) is int else 1, 1)
    return each * prompts_of(body)


def choices_of(body: Body) -> int:
    """The number of answers that come back: `n` for each prompt."""
    n = body.get("n")
    return (n if type(n) is int and n > 1 else 1) * prompts_of(body)


def rounds_of(body: Body) -> int:
    """The most rounds of generating for one answer: one, and one for each call of a tool that the node runs."""
    if type(body) is Outline:
        return body.rounds
    calls, tools = body.get("max_tool_calls"), body.get("tools")
    if type(calls) is not int or calls <= 0 or type(tools) is not list:
        return 1
    return 1 + calls if any(type(tool) is dict and tool.get("type") != "function" for tool in tools) else 1


def least_output(body: Body, window: int | None) -> int:
    """The least tokens of an answer that nothing bounds; `window`: the model's context window in tokens."""
    if body.get("ignore_eos") is True and window is not None:
        return window
    least = body.get("min_tokens")
    return least if type(least) is int and least > 0 else 0


def tokens_an_event(body: Body) -> int:
    """Tokens in one event, as the client chose."""
    interval = body.get("stream_interval")
    return interval if type(interval) is int and interval > 1 else 1


def comes_at_once(body: Body) -> bool:
    """Whether a node sends nothing, even in a stream, before the answer is whole."""
    return body.get("use_beam_search") is True


def prompts_of(body: Body) -> int:
    """The number of prompts. Completions take several: texts, lists of token ids, and embeddings."""
    if type(body) is Outline:
        return body.prompts
    prompt, embeds = body.get("prompt"), body.get("prompt_embeds")
    texts = len(prompt) if type(prompt) is list and prompt and type(prompt[0]) is not int else 1
    return texts + len(embeds) if type(embeds) is list else texts


def _agree(body: Body, output_fields: tuple[str, ...], changes: Body) -> None:
    """Set all of the fields to the first one's value: versions of vLLM may differ in which of them wins."""
    given = [name for name in output_fields if body.get(name) is not None]
    if len(given) < 2:
        return
    won = changes.get(given[0], body[given[0]])
    for name in given[1:]:
        if changes.get(name, body[name]) != won:
            changes[name] = won
