"""A tool call of a chat stream: when its arguments are whole."""

from typing import Any

import pytest

from gateway.core.dialects.over_chat import chat_call
from gateway.core.dialects.over_chat.chat_call import ChatCall


@pytest.mark.source_only("what it patches is compiled into its callers")
def test_arguments_are_read_anew_only_when_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of a long text behind a long call asks."""
    read: list[str] = []

    def load(text: str) -> dict[str, Any] | None:
        read.append(text)
        return None if len(read) == 1 else {}

    monkeypatch.setattr(chat_call, "load_object", load)
    call = ChatCall("c", "f")
    for pieces, whole, reads in ((["{"], False, 0), (["}"], False, 1), (["}"], True, 2)):
        call.pieces += pieces
        assert [call.is_whole() for _ in range(9)] == [whole] * 9
        assert len(read) == reads
