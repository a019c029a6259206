"""Native streams whose thinking is hidden, as the strictest client reads them: no gap, no token lost, wherever cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budgets.hiding import HidingFilter, hider_of
from gateway.core.dialects import DIALECTS
from gateway.core.dialects.over_chat import OverChat
from tests.dialects.over_chat.drawn_answers import Drawn, answers, cut
from tests.dialects.over_chat.test_strict_streams import BOTH, MESSAGES, READERS, said, told

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}


@BOTH
@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
@given(data=st.data())
def test_a_native_stream_keeps_every_token(ask: OverChat, hidden: bool, data: st.DataObject) -> None:
    drawn: Drawn = data.draw(answers())
    native, _ = told(ask, [drawn.stream])
    dialect = BY_NAME["messages" if ask is MESSAGES else "responses"]
    inner = dialect.stream_filter(dialect.read(json.dumps({"model": "m", "stream": True}).encode()))
    stream_filter = HidingFilter(inner, hider_of(dialect)) if hidden else inner
    pieces = [
        piece if stream_filter.passes(piece) else stream_filter.feed(piece) for piece in data.draw(cut(native)) if piece
    ]
    stream = b"".join(pieces) + stream_filter.flush()
    assert hidden or stream == native
    reader = READERS[ask]().read(stream)
    assert reader.answer is not None and stream_filter.ended
    calls = [(call.id, call.name, call.arguments) for call in drawn.calls]
    assert said(reader.answer) == ("" if hidden else drawn.thinking, drawn.text, calls)
    if drawn.told_usage:
        assert stream_filter.usage is not None and stream_filter.usage.output == 8
