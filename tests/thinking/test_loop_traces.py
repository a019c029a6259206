"""Thoughts with tables, code, base64 and lists are not cut."""

import pytest

from gateway.core.thinking.loop_detector import LoopDetector
from tests.thinking.traces import trace


def cut(number: int) -> str | None:
    """Where the detector cuts a trace, in words; None where it does not."""
    kind, ids = trace(number)
    detector, kept = LoopDetector(3), bytearray()
    for made, token in enumerate(ids, 1):
        kept += b"[%d" % token
        if len(kept) >= detector.next_look and detector.look(kept):
            return f"trace {number} ({kind}) behind token {made}, period {detector.period}"
    return None


def false_cuts(first: int, end: int) -> list[str]:
    return [where for number in range(first, end) if (where := cut(number)) is not None]


def test_no_trace_is_cut() -> None:
    assert false_cuts(0, 300) == []


@pytest.mark.prove
def test_none_of_ten_thousand_traces_is_cut() -> None:
    assert false_cuts(0, 10_000) == []
