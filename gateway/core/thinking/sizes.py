"""How long a prompt is, in tokens, before a node has counted it: its text's bytes by a calibrated ratio."""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.reading.outline import Outline

BYTES_PER_TOKEN = 4.0
"""English prose with the tokenizers in use; code has fewer, other scripts have more. Measured ratios come in later."""

MEDIA_TOKENS = 1024
"""What a picture, a sound or a file is taken for: models make some hundreds to some thousands of tokens of one."""

PROMPTS = frozenset(
    {
        "messages",
        "system",
        "tools",
        "input",
        "instructions",
        "prompt",
        "documents",
        "chat_template",
        "previous_input_messages",
        "prompt_embeds",
        "tokens",
        "query",
        "queries",
        "items",
        "text_1",
        "text_2",
        "data",
        "data_1",
        "data_2",
    }
)
"""The top-level fields that a prompt is made of, in any dialect."""

_READ_WITH = {
    "query": ("documents",),
    "queries": ("documents", "items"),
    "text_1": ("text_2",),
    "data_1": ("data_2",),
}
"""Fields of reranking and scoring, and those whose texts a lone text of theirs is read with, one after the other."""

_TURNS = frozenset({"messages", "system", "input"})
"""Those of them in which media stand: elsewhere a member with such a name is text, of a tool's schema, say."""

_MEDIA = frozenset({"image_url", "input_audio", "video_url", "audio_url", "file", "source", "image", "data", "url"})
"""Members of a turn that hold media: their bytes say nothing about tokens, but for what is text after all."""

_NO_MEDIA: frozenset[str] = frozenset()


def estimate_input(body: Body, bytes_per_token: float) -> int:
    """Tokens of a body's prompt, at least 1: UTF-8 bytes of its text over `bytes_per_token`, token ids one by one,
    media at `MEDIA_TOKENS` each."""
    return tokens_of(measure_prompt(body), bytes_per_token)


def tokens_of(measured: tuple[int, int], bytes_per_token: float) -> int:
    """The same of a prompt that was measured before."""
    ids, size = measured
    return max(1, ids + round(size / bytes_per_token))


def measure_prompt(body: Body) -> tuple[int, int]:
    """Of a body's prompt: tokens that are known by their number, and bytes of text. Walks all of it."""
    if type(body) is Outline:
        return body.ids, body.size
    ids = size = 0
    for name in body:
        if name in PROMPTS:
            more_ids, more_size = _measure(body[name], _MEDIA if name in _TURNS else _NO_MEDIA)
            times = _readings(body, name) if name in _READ_WITH else 1
            ids += more_ids * times
            size += more_size * times
    return ids, size


def _readings(body: Body, name: str) -> int:
    """How often the text in `name` is read."""
    if _parts(body[name]) > 1:
        return 1  # each with its own
    return max(1, *[_parts(body.get(other)) for other in _READ_WITH[name]])


def _parts(texts: Any) -> int:
    """How many texts there are: in a list, or in the `content` of a multi-modal one."""
    if type(texts) is dict:
        texts = texts.get("content")
    return len(texts) if type(texts) is list else 1


def _measure(value: Any, media: frozenset[str]) -> tuple[int, int]:
    """Tokens that are known by their number, and bytes of text."""
    ids = size = 0
    waiting: list[Any] = [value]
    blobs: list[Any] = []
    while waiting:
        part = waiting.pop()
        if type(part) is str:
            size += _bytes(part)
        elif type(part) is list:
            waiting += part
        elif type(part) is dict:
            if media.isdisjoint(part):
                waiting += part.values()
            else:
                ids += MEDIA_TOKENS
                for name, member in part.items():
                    (blobs if name in media else waiting).append(member)
        elif part is not None:
            ids += 1
    while blobs:
        part = blobs.pop()
        if type(part) is str:
            size += _bytes(part) if " " in part else 0  # addresses and base64 have none
        elif type(part) is list:
            blobs += part
        elif type(part) is dict:
            blobs += part.values()
    return ids, size


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
