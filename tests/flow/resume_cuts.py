"""Answers that are cut at each of their events in turn, for the tests of resumes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.flow.test_resume import MODEL, PATH, VARYING, Fleet, normal
from workers.fake import FakeNode, Fault

_MADE = ("/v1/chat/completions", "/v1/completions", "/tokenize")
_MOST = 80


def asked(node: FakeNode) -> int:
    """The requests that a node had for answers."""
    return sum(node.stats.requests.get(path, 0) for path in _MADE)


def whole(text: str) -> Any:
    """An answer without what differs between two answers to one request."""
    return normal(f"data: {text}") if text.startswith("{") else normal(text)


async def unbroken(made: Fleet, dialect: str, body: dict[str, Any]) -> tuple[FakeNode, int, httpx.Response]:
    """The answer to `body`, the node that gave it, and the requests that it took."""
    before = {id(node): asked(node) for node in made.nodes}
    answer = await made.client.post(PATH[dialect], json={"model": MODEL, **body})
    node = max(made.nodes, key=lambda each: asked(each) - before[id(each)])
    return node, asked(node) - before[id(node)], answer


async def cut_answers(
    made: Fleet,
    dialect: str,
    body: dict[str, Any],
    path: str = "/v1/chat",
    kind: Any = "die",
    first: int = 2,
    most: int | None = None,
) -> AsyncIterator[tuple[int, httpx.Response]]:
    """The answers to `body` whose first request on `path` is cut behind event `first`, behind the next one, and so on
    to the last at which a cut matters, or to number `most`; each with the number of that event."""
    home, usual, _ = await unbroken(made, dialect, body)
    for after in range(first, _MOST):
        for _ in made.nodes:
            home.set_faults(Fault(kind, after=after, next=1, path=path))
            before = {id(node): asked(node) for node in made.nodes}
            answer = await made.client.post(PATH[dialect], json={"model": MODEL, **body})
            taken = not home.node.faults.snapshot()
            made.heal()
            if taken:
                break
            home = max(made.nodes, key=lambda node: asked(node) - before[id(node)])
        assert taken, "no cut was made"
        if sum(map(asked, made.nodes)) - sum(before.values()) <= usual and not failed(answer):
            return
        yield after, answer
        if after == most:
            return
    raise AssertionError("the answer has no end")


def failed(answer: httpx.Response) -> bool:
    """Whether the client was told an error."""
    return (
        answer.status_code != httpx.codes.OK or "stream_not_resumable" in answer.text or "event: error" in answer.text
    )


async def resumes_everywhere(
    made: Fleet,
    dialect: str,
    body: dict[str, Any],
    path: str = "/v1/chat",
    kind: Any = "die",
    first: int = 2,
    most: int = _MOST,
) -> int:
    """Assert that the answer to `body` is the same wherever it is cut; returns the number of cuts, `most` at most."""
    _, _, answer = await unbroken(made, dialect, body)
    assert not failed(answer), answer.text
    if body.get("stream"):
        assert answer.headers["x-fleetgate-resumable"] in ("exact", "thinking")
    expected, cuts = whole(answer.text), 0
    async for after, got in cut_answers(made, dialect, body, path, kind, first):
        assert whole(got.text) == expected, f"cut behind event {after} of {path}"
        cuts += 1
        if cuts == most:
            break
    return cuts


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error with which a stream ended, or a plain answer."""
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    found: dict[str, Any] = json.loads(lines[-1][6:] if lines else answer.text)
    nested = found.get("error")
    return nested if isinstance(nested, dict) else found


__all__ = ["VARYING", "asked", "cut_answers", "error_of", "failed", "resumes_everywhere", "unbroken", "whole"]
