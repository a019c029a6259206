"""What an API key looks like: `fg-`, 40 random characters, 6 that check them. All are letters and digits.

    fg- 0123456789abcdefghijABCDEFGHIJ0123456789 0aB1cD
        40 x log2(62) = 238 bits of chance       CRC-32 of all before it, in base 62

The checksum tells a typo from a key that is gone without asking anybody, and lets scanners for leaked secrets be
certain of what they found (GitHub's tokens are built the same way). Nobody can be kept from computing it: it
is no protection against guessing. What is kept of a key is its SHA-256; the first 8 bytes of that name it.
"""

import hashlib
import re
import zlib

RANDOM_BYTES = 40
"""What a new key is made of; far more than 238 bits, so that its characters are as good as evenly spread."""

PATTERN = r"fg-[0-9A-Za-z]{46}"
"""For secret scanners."""

ID_PATTERN = r"key_[0-9a-f]{16}"
"""Of `key_id`."""

_SHAPE = re.compile(PATTERN.encode())
_BEGUN = re.compile(rb"fg-[0-9A-Za-z]*")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 40, 6
_SELECTOR_BYTES = 8


def key_from(random: bytes) -> str:
    """The key that `RANDOM_BYTES` random bytes make."""
    body = "fg-" + _base62(int.from_bytes(random), _BODY)
    return body + _base62(zlib.crc32(body.encode()), _CHECK)


def is_whole(key: bytes) -> bool:
    """Whether `key` has a key's shape and its checksum fits; False for keys of other makes."""
    if _SHAPE.fullmatch(key) is None:
        return False
    return key[-_CHECK:] == _base62(zlib.crc32(key[:-_CHECK]), _CHECK).encode()


def is_damaged(key: bytes) -> bool:
    """Whether `key` begins as a key of this make and is not whole: mistyped, cut off, or with more behind it."""
    return _BEGUN.fullmatch(key) is not None and not is_whole(key)


def key_digest(key: str | bytes) -> bytes:
    """What is kept of a key: its SHA-256, 32 bytes. Keys are random and long, so no salt or stretching is needed."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def selector(digest: bytes) -> bytes:
    """The part of a digest that a key is looked up by; the whole is then compared in constant time."""
    return digest[:_SELECTOR_BYTES]


def key_id(digest: bytes) -> str:
    """The name of a key that may be shown and logged: `key_` and 16 hex digits."""
    return "key_" + selector(digest).hex()


def _base62(number: int, length: int) -> str:
    """The last `length` digits of `number`."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
