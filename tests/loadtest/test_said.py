"""The load tests know a whole answer from one that only looks so."""

import httpx
import pytest

from loadtest.said import Said, read_plain, read_stream
from workers.fake import Fault, serve_fake

BODY = {"messages": [{"role": "user", "content": "hello"}]}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


async def both(*faults: Fault) -> tuple[Said, bytes]:
    """What a node says plainly, and its stream under faults."""
    async with serve_fake() as fake, httpx.AsyncClient(base_url=fake.url, timeout=20) as client:
        plain = await client.post("/v1/chat/completions", json=BODY)
        fake.set_faults(*faults)
        return read_plain(plain.content), (await client.post("/v1/chat/completions", json=STREAM)).content


async def test_a_whole_stream_says_what_a_plain_answer_says() -> None:
    plain, stream = await both()
    said = read_stream(stream)
    assert said is not None
    assert said.equals(plain)
    assert said.tokens == plain.tokens is not None
    assert read_stream(stream.replace(b'"completion_tokens":', b'"completion_tokens":1')) != said
    events = stream.split(b"\n\n")
    for at in range(2, len(events) - 3):
        wrong = read_stream(b"\n\n".join(events[:at] + events[at + 1 :]))
        assert wrong is not None
        assert not wrong.equals(plain)
    without = read_stream(b"\n\n".join(event for event in events if b'"usage"' not in event))
    assert without is not None
    assert without.tokens is None
    assert without.equals(plain)


@pytest.mark.parametrize("fault", [Fault("eof", after=5), Fault("error_event", after=5), Fault("eof", after=0)])
async def test_a_stream_that_broke_off_is_not_whole(fault: Fault) -> None:
    _, stream = await both(fault)
    assert read_stream(stream) is None


async def test_an_answer_that_was_given_up_is_another() -> None:
    plain, stream = await both(Fault("abort", after=5))
    said = read_stream(stream)
    assert said is not None
    assert not said.equals(plain)
    doubled = read_stream(stream.replace(b"data: [DONE]\n\n", b"data: [DONE]\n\ndata: [DONE]\n\n"))
    assert doubled is None
