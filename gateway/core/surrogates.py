"""Lone surrogates (`\\ud800`) in a body: JSON can spell them, UTF-8 cannot, and no node reads them.

orjson refuses them, so only a body that Python's parser read can hold one.
"""

from typing import Any

from gateway.core.errors import InvalidRequest


def check_surrogates(raw: bytes, body: dict[str, Any]) -> None:
    """Raises `InvalidRequest` where `body`, parsed from `raw`, holds a lone surrogate. Its depth is bounded."""
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return
    waiting: list[tuple[str, Any]] = [("", body)]
    while waiting:
        path, value = waiting.pop()
        if type(value) is dict:
            for key, child in value.items():
                if _has_lone_surrogate(key):
                    raise _lone_surrogate(path, "has a key with")
                waiting.append((f"{path}.{key}" if path else key, child))
        elif type(value) is list:
            waiting.extend((f"{path}.{index}", child) for index, child in enumerate(value))
        elif type(value) is str and _has_lone_surrogate(value):
            raise _lone_surrogate(path, "holds")


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _lone_surrogate(path: str, holds: str) -> InvalidRequest:
    where = f"The field {path!r}" if path else "The body"
    return InvalidRequest(
        f"{where} {holds} a lone surrogate, which is not a character: most likely text was cut inside of one. "
        "Cut it elsewhere.",
        param=path or None,
        code="invalid_json",
    )
