"""What is kept of an answer in memory."""

import gc
import json
import tracemalloc

from gateway.core.dialects.chat import Chat
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import FollowedRequest
from tests.resume.test_exact_text import CHAT, KNOWN

STREAMS, TOKENS = 20, 8000
A_STREAM, A_TOKEN = 16 * 1024, 8


def followed() -> Checkpoint:
    """One of a prompt of 10,000 tokens, after `TOKENS` of the answer."""
    body = {"model": "m", "stream": True, "max_tokens": 100_000, "messages": [{"role": "user", "content": "a"}]}
    raw = json.dumps({**body, "return_token_ids": True}).encode()
    inner = Chat().stream_filter(Chat().read(json.dumps(body).encode()))
    checkpoint = Checkpoint(inner, FollowedRequest(CHAT, raw), KNOWN, False, False)
    head = 'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":['
    role = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
    prompt = ",".join(map(str, range(10_000, 20_000)))
    checkpoint.feed(f'{head}{role},"prompt_token_ids":[{prompt}],"prompt_text":null}}\n\n'.encode())
    text = '{"index":0,"delta":{"reasoning":" word"},"logprobs":null,"finish_reason":null,"token_ids":['
    for token in range(100_000, 100_000 + TOKENS):
        event = f"{head}{text}{token}]}}]}}\n\n".encode()
        if checkpoint.pass_event(event) is None:
            checkpoint.feed(event)
    assert checkpoint.tokens.count == TOKENS
    return checkpoint


def test_a_stream_keeps_eight_bytes_a_token() -> None:
    followed()
    gc.collect()
    tracemalloc.start()
    try:
        kept = [followed() for _ in range(STREAMS)]
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / len(kept)
    finally:
        tracemalloc.stop()
    assert held <= A_STREAM + A_TOKEN * TOKENS


def test_the_ids_of_a_prompt_are_let_go() -> None:
    """Also those that the next node renders, once they are sent to it."""
    checkpoint = followed()
    prompt = list(range(10_000, 20_000))
    assert checkpoint.resume(KNOWN).path == "/tokenize"
    tracemalloc.start()
    try:
        checkpoint.feed(json.dumps({"tokens": prompt}).encode())
        checkpoint.flush()
        checkpoint.feed(json.dumps({"prompt": " word" * TOKENS}).encode())
        checkpoint.flush()
        assert checkpoint.follow_up is not None and checkpoint.follow_up.path == "/v1/completions"
        checkpoint.follow_up = None
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 3 * len(prompt)
    finally:
        tracemalloc.stop()
