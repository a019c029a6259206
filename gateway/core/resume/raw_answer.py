"""stub"""

from typing import Any


class RawAnswer:
    __slots__ = ()

    def __init__(self, body: dict[str, Any], chat_id: str = "") -> None: ...
    def feed(self, text: str, last: bool = False) -> list[dict[str, Any]]:
        return [{"content": text}] if text else []

    def finish_reason(self, given: str) -> str:
        return given


def grammar_of(body: dict[str, Any]) -> dict[str, Any] | None:
    return None
