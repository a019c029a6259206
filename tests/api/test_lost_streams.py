"""What a client is told of an answer that broke off and cannot go on."""

import pytest

from gateway.api.errors import error_headers, shape_error
from gateway.core.errors import StreamLost, UpstreamCut


@pytest.mark.parametrize("repeatable", [True, False])
def test_it_is_told_how_much_had_come_and_whether_to_repeat_it(repeatable: bool) -> None:
    error = StreamLost("broken", tokens=812, repeatable=repeatable)
    shape = shape_error(error, "req_1")
    assert (shape.status, shape.code, shape.facts) == (
        502,
        "stream_not_resumable",
        {"tokens": 812, "retry_safe": repeatable},
    )
    assert ((b"x-should-retry", b"false") in error_headers(error, b"")) is not repeatable


def test_other_errors_have_no_such_facts() -> None:
    assert shape_error(UpstreamCut("broken"), "req_1").facts == {}
