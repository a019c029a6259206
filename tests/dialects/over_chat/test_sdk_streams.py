"""Streams over chat as the real SDKs gather them, from bytes cut anywhere: the same as a plain answer."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.dialects.over_chat import OverChat
from tests.dialects.over_chat.drawn_answers import Drawn, answers, cut
from tests.dialects.over_chat.test_strict_streams import BOTH, MESSAGES, told

Json = dict[str, Any]

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


class Pieces(httpx2.SyncByteStream):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


class Wire:
    """What the SDKs' clients are answered with."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Pieces(self.pieces))
        return httpx2.Response(200, json=json.loads(b"".join(self.pieces)))


WIRE = Wire()
HTTP = httpx2.Client(transport=httpx2.MockTransport(WIRE.answer), base_url="http://gateway")
ANTHROPIC = anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=HTTP, max_retries=0)
OPENAI = openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=HTTP, max_retries=0)


def gathered(ask: OverChat, pieces: list[bytes]) -> Json:
    """What an SDK makes of a stream."""
    WIRE.pieces = pieces
    final: Any
    if ask is MESSAGES:
        with ANTHROPIC.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
        ) as message:
            final = message.get_final_message()
    else:
        with OPENAI.responses.stream(model="m", input="hi") as response:
            final = response.get_final_response()
    return seen(final)


def plain(ask: OverChat, body: bytes) -> Json:
    """What it makes of a plain answer."""
    WIRE.pieces = [body]
    if ask is MESSAGES:
        asked: Any = [{"role": "user", "content": "hi"}]
        return seen(ANTHROPIC.messages.create(model="m", max_tokens=9, messages=asked))
    return seen(OPENAI.responses.create(model="m", input="hi"))


def seen(answer: Any) -> Json:
    """An SDK's object as JSON: without an item's status, what the SDK adds where it parses, and members of null."""
    made: Json = answer.to_dict(mode="json")
    for item in made.get("output", ()):
        item.pop("status", None)
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    if made.get("content") == [{"type": "text", "text": ""}]:  # a plain message has a block, also where it is empty
        made["content"] = []
    return {name: value for name, value in made.items() if value is not None}


@BOTH
@settings(max_examples=60)
@given(data=st.data())
def test_sdks_gather_the_plain_answer(ask: OverChat, data: st.DataObject) -> None:
    drawn: Drawn = data.draw(answers(interleaved=False, usage=True, limit=False))
    stream, _ = told(ask, [drawn.stream])
    assert gathered(ask, data.draw(cut(stream))) == plain(ask, ask.plain(200, drawn.plain()))


@BOTH
@settings(max_examples=40)
@given(data=st.data())
def test_sdks_raise_where_the_node_failed(ask: OverChat, data: st.DataObject) -> None:
    """Never is half an answer a whole one."""
    drawn: Drawn = data.draw(answers())
    events = drawn.stream.split(b"\n\n")
    place = data.draw(st.integers(0, len(events) - 2))
    broken = b"".join(each + b"\n\n" for each in events[:place]) + b'data: {"error":{"message":"died","code":500}}\n\n'
    stream, _ = told(ask, [broken])
    with pytest.raises((anthropic.APIError, openai.APIError)) as raised:
        gathered(ask, data.draw(cut(stream)))
    assert "died" in str(raised.value)
