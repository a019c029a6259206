"""The chunks of chat and completions streams, read and written where a budget is enforced.

Nearly every event is one that `slice_delta` knows by its bytes; the others are parsed.
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
    """A plain event of a chat stream: whether it carries reasoning, its token ids as JSON has them between the
    brackets, and the event without them (null, as where nobody asked)."""

    reasoning: bool
    ids: bytes
    event: bytes


def slice_delta(event: bytes, head: bytes) -> Delta | None:
    """What `event` is, by its bytes alone; None where that is not certain.

    `head` is how the stream's events begin, up to and with the bracket of the choices. A quote inside generated
    text is escaped, so the names of fields, quotes included, stand where they seem to stand.
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
    """How the events of a stream begin, `event` being one of them; empty where it looks otherwise."""
    at = event.find(b'"choices":[')
    return event[: at + 11] if event.startswith(b"data: {") and at > 0 else b""


def take_prompt_ids(event: bytes) -> tuple[bytes, bytes | None]:
    """The event with an empty list for the prompt's token ids, and those ids as JSON has them between the brackets.

    They can be a hundred thousand: so they are sliced, not parsed.
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
    """Whether they are numbers with commas between: they go into the next request as they are."""
    return ids.replace(b",", b"").isdigit() and b",," not in ids and not ids.startswith(b",") and not ids.endswith(b",")


def ids_json(ids: object) -> bytes:
    """A parsed list of token ids as JSON has them between the brackets; empty where it is not one."""
    if not isinstance(ids, list) or not all(type(item) is int and item >= 0 for item in ids):
        return b""
    return ",".join(map(str, ids)).encode()


def read_chunk(data: bytes) -> dict[str, Any]:
    """The chunk in an event's data, with as much of its form as every reader of chunks needs: `choices` is a list of
    objects, or not there, and `delta` in them too. `BadUpstreamResponse` for anything else."""
    chunk = parse_object(data)
    choices = chunk.get("choices")
    if not chunk or not (choices is None or isinstance(choices, list)):
        raise not_a_chunk()
    for choice in choices or ():
        if not isinstance(choice, dict) or not isinstance(choice.get("delta") or {}, dict):
            raise not_a_chunk()
    return chunk


def not_a_chunk() -> BadUpstreamResponse:
    return BadUpstreamResponse("The node sent an event that is not a chunk of a completion.")


def write_chunk(chunk: dict[str, Any]) -> bytes:
    """One event."""
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
    """Where in `ids` (as JSON writes them) `marker` stands last, -1 where it does not."""
    if not marker:
        return -1
    return (b"," + ids + b",").rfind(b",%b," % ",".join(map(str, marker)).encode())
