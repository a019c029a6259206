"""Two watches in a row: the client's view of the outer one, the node's of the inner one."""

import json

import pytest

from gateway.core.dialects.stream_filter import STOP, ChainedFilter, StreamFilter
from gateway.core.usage.token_usage import Usage

pytestmark = pytest.mark.source_only("its filters inherit from a compiled class")


class Wrapping(StreamFilter):
    """Puts a pair of brackets around what it gets, and a last word behind all."""

    def __init__(self, brackets: bytes) -> None:
        super().__init__()
        self.brackets = brackets

    def feed(self, data: bytes) -> bytes:
        return self.brackets[:1] + data + self.brackets[1:] if data else b""

    def flush(self) -> bytes:
        return b"end" + self.brackets


def test_the_outer_gets_what_the_inner_passes_on_the_last_words_included() -> None:
    watch = ChainedFilter(Wrapping(b"()"), Wrapping(b"[]"))
    assert watch.feed(b"x") == b"[(x)]"
    assert watch.flush() == b"[end()]end[]"
    assert not watch.passes(b"x"), "what is written anew cannot go on as it came"


def test_what_is_known_of_the_end_comes_from_the_side_that_knows_it() -> None:
    inner, outer = Wrapping(b"()"), Wrapping(b"[]")
    watch = ChainedFilter(inner, outer)
    inner.ended, inner.follow_up, inner.wasted = True, STOP, 7
    outer.usage = Usage(1, 2, None, None)
    watch.feed(b"x")
    assert (watch.ended, watch.wasted, watch.usage) == (False, 7, outer.usage), "the client has not seen the end"
    assert [watch.follow_up, inner.follow_up] == [STOP, None], "who sends it sees it once"
    inner.usage, inner.failed = Usage(3, 4, None, None), True
    watch.flush()
    assert (watch.ended, watch.failed, watch.usage) == (False, True, inner.usage)
    outer.ended = True
    watch.flush()
    assert (watch.ended, watch.failed) == (True, False), "an error behind the answer's end is none of it"


def test_a_failure_that_only_the_outer_sees_counts() -> None:
    outer = Wrapping(b"[]")
    watch = ChainedFilter(Wrapping(b"()"), outer)
    outer.failed = True
    watch.feed(json.dumps({}).encode())
    assert watch.failed
