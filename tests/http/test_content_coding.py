"""Compressed bodies: which codings are taken, and what is held to while one is unpacked."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest

from gateway.core.errors import BodyTooLarge, InvalidRequest
from gateway.core.http.content_coding import FREE, MAX_MEMBERS, MAX_RATIO, SLACK, STEP_OUT, BodyDecoder, coding_of

MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


def unpacked(packed: bytes, coding: str) -> tuple[bytes, int]:
    """What comes out, and in how many steps."""
    unpacker, pieces, steps = BodyDecoder(packed, coding), [], 0
    while not unpacker.done:
        piece = unpacker.step()
        assert len(piece) <= STEP_OUT
        pieces.append(piece)
        steps += 1
    return b"".join(pieces), steps


@pytest.mark.parametrize(
    ("lines", "coding"),
    [
        ([b"gzip"], "gzip"),
        ([b"GZip"], "gzip"),
        ([b"x-gzip"], "gzip"),
        ([b"deflate"], "deflate"),
        ([b" identity , gzip,"], "gzip"),
        ([b"identity", b"deflate"], "deflate"),
        ([b"identity"], None),
        ([b""], None),
        ([], None),
        ([b"gzip, gzip"], "gzip, gzip"),
        ([b"gzip", b"deflate"], "gzip, deflate"),
        ([b"zstd"], "zstd"),
        ([b"x-deflate"], "x-deflate"),
    ],
)
def test_codings_are_read_from_every_line(lines: list[bytes], coding: str | None) -> None:
    fields = [(b"host", b"a"), *((b"content-encoding", line) for line in lines)]
    assert coding_of(fields) == coding


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("size", [0, 1, 2, STEP_OUT - 1, STEP_OUT, STEP_OUT + 1, 3 * MIB])
def test_what_was_packed_comes_out(kind: str, size: int) -> None:
    coding, pack = PACK[kind]
    text = random.Random(size).randbytes(size // 2).hex().encode()[:size]
    assert unpacked(pack(text), coding)[0] == text


def test_what_came_out_of_the_last_bytes_is_not_lost() -> None:
    """A run may be read whole before it is given whole: the decoder then holds what its input no longer tells."""
    for size in range(FREE - 600, FREE, 7):
        assert len(unpacked(zlib.compress(bytes(size)), "deflate")[0]) == size


@pytest.mark.parametrize("kind", PACK)
def test_every_cut_and_every_surplus_is_refused(kind: str) -> None:
    coding, pack = PACK[kind]
    packed = pack(b'{"model":"m"}' * 3)
    for end in range(1, len(packed)):
        with pytest.raises(InvalidRequest, match=r"in the middle|invalid|incorrect"):
            unpacked(packed[:end], coding)
    for surplus in (b"\0", b"x", b"\x1f\x8b", packed[:-1]):
        with pytest.raises(InvalidRequest, match=f"not valid {coding}"):
            unpacked(packed + surplus, coding)


@pytest.mark.parametrize("kind", PACK)
def test_whatever_was_changed_is_refused_or_unpacked(kind: str) -> None:
    """No byte makes zlib raise anything else; what has a checksum never comes out otherwise than it went in."""
    coding, pack = PACK[kind]
    text = b'{"model":"m","input":"some words, some words"}'
    packed = pack(text)
    for at in range(len(packed)):
        for byte in (0, 255, packed[at] ^ 1, packed[at] ^ 128):
            changed = packed[:at] + bytes([byte]) + packed[at + 1 :]
            try:
                out, _ = unpacked(changed, coding)
            except InvalidRequest as error:
                assert error.param == "content-encoding"
            else:
                assert out == text or kind == "raw deflate" or at < 2  # two bytes choose between wrapped and raw


def test_members_follow_each_other_up_to_a_bound() -> None:
    members = [gzip.compress(b"%d," % n * 8) for n in range(MAX_MEMBERS)]
    assert unpacked(b"".join(members), "gzip")[0] == b"".join(b"%d," % n * 8 for n in range(MAX_MEMBERS))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_MEMBERS} members"):
        unpacked(b"".join([*members, members[0]]), "gzip")
    with pytest.raises(InvalidRequest, match="bytes after its end"):
        unpacked(zlib.compress(b"a") * 2, "deflate")


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_ends_soon_after_what_is_free(kind: str) -> None:
    coding, pack = PACK[kind]
    unpacker, given = BodyDecoder(pack(bytes(31 * MIB)), coding), 0
    with pytest.raises(BodyTooLarge, match=f"more than {MAX_RATIO} times"):
        while True:
            given += len(unpacker.step())
    assert given <= FREE + MAX_RATIO * 4096


def test_what_repeats_itself_is_served_where_it_is_short() -> None:
    text = b"hello " * (FREE // 6)
    assert unpacked(gzip.compress(text), "gzip")[0] == text


@pytest.mark.parametrize("kind", ["blocks", "members"])
def test_what_unpacks_to_nothing_is_refused_early(kind: str) -> None:
    """8 MiB of empty blocks, or of empty members, which cost time and no memory."""
    if kind == "blocks":
        compressor = zlib.compressobj(wbits=31)
        packed = compressor.compress(b"") + compressor.flush(zlib.Z_FULL_FLUSH)
        packed += b"\0\0\0\xff\xff" * (8 * MIB // 5)
    else:
        packed = gzip.compress(b"") * (8 * MIB // 20)
    unpacker = BodyDecoder(packed, "gzip")
    steps = 0
    with pytest.raises(InvalidRequest, match=r"less than half|members"):
        while True:
            unpacker.step()
            steps += 1
    assert steps < SLACK // 20


def test_what_cannot_be_compressed_is_taken() -> None:
    """A compressor stores it, with a few bytes more."""
    noise = random.Random(1).randbytes(MIB)
    assert unpacked(gzip.compress(noise), "gzip")[0] == noise
    assert unpacked(zlib.compress(noise, 0), "deflate")[0] == noise
