"""Records open for their tenant, conversation and turn, and only as they were written."""

import os
import zlib

import pytest

from gateway.core.responses.kept_ids import PLACE_BYTES, Place, new_place
from gateway.responses.sealing import NO_TURN, OVERHEAD, Sealer, head_of

PLACE = new_place(os.urandom(PLACE_BYTES))
DIGEST, MOST = "d" * 16, 1 << 20
SEALER = Sealer(b"secret" * 6)


def sealed(content: bytes = b'{"items":[]}', before: str | None = None) -> bytes:
    return SEALER.seal("acme", PLACE, before, DIGEST, content)


@pytest.mark.parametrize("content", [b"", b"x", b'{"a":1}' * 1000, os.urandom(4000)])
def test_it_opens_as_it_was(content: bytes) -> None:
    record = sealed(content)
    assert SEALER.unseal("acme", PLACE, record, MOST) == content
    assert Sealer(b"secret" * 6).unseal("acme", PLACE, record, MOST) == content, "in every gateway"
    assert len(record) <= OVERHEAD + len(content)
    assert content not in record or len(content) < 2


def test_text_is_compressed() -> None:
    assert len(sealed(b"The same again and again. " * 400)) < 1000


def test_it_says_what_it_goes_on_from() -> None:
    assert head_of(sealed(before="a" * 16)) == ("a" * 16, DIGEST)
    assert head_of(sealed()) == (NO_TURN, DIGEST)


def test_nobody_else_opens_it() -> None:
    record = sealed()
    assert SEALER.unseal("other", PLACE, record, MOST) is None
    assert SEALER.unseal("acme", Place(PLACE.conversation, "0" * 16), record, MOST) is None
    assert SEALER.unseal("acme", Place("0" * 24, PLACE.turn), record, MOST) is None
    assert Sealer(b"another").unseal("acme", PLACE, record, MOST) is None


def test_no_byte_of_it_can_be_changed() -> None:
    record = sealed(b'{"items":[],"response":{}}', before="b" * 16)
    for at in range(len(record)):
        changed = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        assert SEALER.unseal("acme", PLACE, changed, MOST) is None
    for length in range(len(record)):
        assert SEALER.unseal("acme", PLACE, record[:length], MOST) is None


def test_the_same_is_sealed_another_way_each_time() -> None:
    assert sealed() != sealed()


def test_no_more_is_unpacked_than_is_wanted() -> None:
    record = sealed(bytes(1 << 20))
    assert len(record) < 1 << 14
    assert SEALER.unseal("acme", PLACE, record, 5000) == bytes(5000)
    assert zlib.compress(bytes(1 << 20), 1) not in record
