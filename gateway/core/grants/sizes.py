"""How long a prompt is, in tokens, before a node has counted it: its text's bytes by a calibrated ratio."""

from typing import Any

from gateway.core.bodies import Body

BYTES_PER_TOKEN = 4.0
"""English prose with the tokenizers in use; code has fewer, other scripts have more. Measured ratios come in later."""

_PROMPTS = ("messages", "system", "tools", "input", "instructions", "prompt")
"""The top-level fields that a prompt is made of, in any dialect."""

_NOT_TEXT = frozenset({"image_url", "input_audio", "video_url", "audio_url", "file", "source", "image", "data", "url"})
"""Members that hold no text: their bytes say nothing about tokens."""


def estimate_input(body: Body, bytes_per_token: float) -> int:
    """Tokens of a body's prompt, at least 1: UTF-8 bytes of its text over `bytes_per_token`, token ids one by one."""
    size = 0
    ids = 0
    waiting: list[Any] = [body[name] for name in _PROMPTS if name in body]
    while waiting:
        part = waiting.pop()
        if type(part) is str:
            size += len(part) if part.isascii() else len(part.encode(errors="replace"))
        elif type(part) is list:
            waiting += part
        elif type(part) is dict:
            waiting += [value for name, value in part.items() if name not in _NOT_TEXT]
        elif type(part) is int:
            ids += 1
    return max(1, ids + round(size / bytes_per_token))
