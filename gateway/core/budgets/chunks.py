"""The chunks of chat and completions streams, read and written where a budget is enforced.

`slice_delta` reads nearly every event by its bytes; the others are parsed.
"""

from typing import Any, NamedTuple

from gateway.core.errors import BadUpstreamResponse
from gateway.core.json_text import dump, parse_object

_IDS = b',"token_ids":['
_CLOSE = b"]}]}\n\n"
_NOT_FINISHED = b'"},"logprobs":null,"finish_reason":null'
_PROMPT_IDS = b'"prompt_token_ids":['
_CONTENT = b'{"index":0,"delta":{"content":"'
_DELTAS = (b'{"index":0,"delta":{"reasoning":"', _CONTENT, b'{"index":0,"delta":{"reasoning_content":"')
_OTHERS = (b'"tool_calls":', b'","content":', b'","reasoning')


class Delta(NamedTuple):
    """An event of a chat stream with a piece of text and nothing else.

    `reasoning`: the text is reasoning. `ids`: its token ids, as JSON has them between the brackets. `event`: the event
    without them, for a client that did not ask for them.
    """

    reasoning: bool
    ids: bytes
    event: bytes


def slice_delta(event: bytes, head: bytes) -> Delta | None:
    """The delta in `event`, by its bytes alone; None where it is not certain.

    `head` is the beginning of the stream's events, up to and with the bracket of the choices. A quote inside generated
    text is escaped, so a field's name with its quotes cannot be text.
    """
    if not head or not event.startswith(head) or not event.endswith(_CLOSE):
        return None
    at = event.rfind(_IDS)
    if at < 0 or not event.endswith(_NOT_FINISHED, 0, at):
        return None
    start = next((start for start in _DELTAS if event.startswith(start, len(head))), None)
    if start is None or any(other in event[len(head) + len(start) :] for other in _OTHERS):
        return None
    ids = event[at + len(_IDS) : -len(_CLOSE)]
    if not ids.replace(b",", b"").isdigit():
        return None
    return Delta(start != _CONTENT, ids, event[:at] + b',"token_ids":null}]}\n\n')


def head_of(event: bytes) -> bytes:
    """The beginning of the events of a stream, of which `event` is one; empty where it is no such event."""
    at = event.find(b'"choices":[')
    return event[: at + 11] if event.startswith(b"data: {") and at > 0 else b""


def take_prompt_ids(event: bytes) -> tuple[bytes, bytes | None]:
    """The event with an empty list for the prompt's token ids, and the ids as JSON has them between the brackets.

    There can be a hundred thousand of them, so they are sliced, not parsed.
    """
    at = event.find(_PROMPT_IDS)
    if at < 0:
        return event, None
    start = at + len(_PROMPT_IDS)
    end = event.find(b"]", start)
    ids = event[start : max(start, end)].replace(b" ", b"")
    if end < 0 or (ids and not _is_ids(ids)):
        raise not_a_chunk()
    return event[:start] + event[end:], ids


def _is_ids(ids: bytes) -> bool:
    """Whether they are numbers with commas between. They go into the next request as they are."""
    return ids.replace(b",", b"").isdigit() and b",," not in ids and not ids.startswith(b",") and not ids.endswith(b",")


def ids_json(ids: object) -> bytes:
    """A parsed list of token ids as JSON has them between the brackets; empty for anything else."""
    if not isinstance(ids, list) or not all(type(item) is int and item >= 0 for item in ids):
        return b""
    return ",".join(map(str, ids)).encode()


def read_chunk(data: bytes) -> dict[str, Any]:
    """The chunk in an event's data: its `choices` are a list of objects or absent, and so is `delta` in each.

    Raises `BadUpstreamResponse` for anything else.
    """
    chunk = parse_object(data)
    choices = chunk.get("choices")
    if not chunk or not (choices is None or isinstance(choices, list)):
        raise not_a_chunk()
    for choice in choices or ():
        if not isinstance(choice, dict) or not isinstance(choice.get("delta") or {}, dict):
            raise not_a_chunk()
    return chunk


def not_a_chunk() -> BadUpstreamResponse:
    """The error for an event that cannot be read."""
    return BadUpstreamResponse("The node sent an event that is not a chunk of a completion.")


def write_chunk(chunk: dict[str, Any]) -> bytes:
    """The event of a chunk."""
    return b"data: " + dump(chunk) + b"\n\n"


def chat_choice(delta: dict[str, Any], finish: str | None = None, reason: Any = None) -> dict[str, Any]:
    """The choice of a chat chunk, as vLLM writes it."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    if finish is not None:
        choice["stop_reason"] = reason
    return {**choice, "token_ids": None}


def text_choice(text: str, finish: str | None = None, reason: Any = None) -> dict[str, Any]:
    """The choice of a completions chunk, as vLLM writes it."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": reason}
    return {**choice, "prompt_token_ids": None, "token_ids": None}


def ids_of(choice: dict[str, Any]) -> list[int] | None:
    """The token ids of a parsed choice, None where the node sent none."""
    ids = choice.get("token_ids")
    return ids if isinstance(ids, list) and all(type(item) is int and item >= 0 for item in ids) else None


def last_of(ids: bytes, marker: tuple[int, ...]) -> int:
    """The last place of `marker` in `ids` (as JSON writes them), -1 where it does not occur."""
    if not marker:
        return -1
    return (b"," + ids + b",").rfind(b",%b," % ",".join(map(str, marker)).encode())
