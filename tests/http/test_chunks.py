"""A chunk is known at sight only where it is one, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.http.chunks import LONGEST, chunk_of, data_of_chunk


@given(st.binary(min_size=1, max_size=LONGEST + 10))
def test_a_chunk_of_any_length_is_known(data: bytes) -> None:
    framed = b"%x\r\n%b\r\n" % (len(data), data)
    assert data_of_chunk(framed) == (data if len(framed) < LONGEST else b"")
    if len(data) < LONGEST:
        assert chunk_of(data) == framed


@pytest.mark.parametrize(
    "framed",
    [
        b"",
        b"0\r\n\r\n",  # the end of a body
        b"3\r\nhel",
        b"3\r\nhel\r",
        b"3\r\nhello\r\n",
        b"5\r\nhel\r\n",
        b"3\r\nhel\r\n2\r\nlo\r\n",
        b"3;x=y\r\nhel\r\n",
        b"03\r\nhel\r\n",  # a parser may take it: at sight it is not certain
        b"hel\r\n",
        b"+3\r\nhel\r\n",
        b"-" + b"a" * 18 + b"\r\n",  # as long as no chunk is
    ],
)
def test_anything_else_is_left_to_a_parser(framed: bytes) -> None:
    assert data_of_chunk(framed) == b""
