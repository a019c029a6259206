"""Seals the records of turns: encrypted, and bound to the tenant, the conversation and the turn that they are of.

    record       the turn before it: 16 hex | digest: 16 hex | nonce: 12 bytes | AES-256-GCM(compressed content), tag
    its key      HMAC-SHA256(response key, label | conversation | tenant), so that each conversation has its own
    bound to     the turn, the turn before it, and the digest

What stands before the nonce is read by the scripts in Redis; changed there, the record opens no more. A content is
compressed where that makes it smaller; its first byte says whether it was.
"""

import hmac
import os
import zlib
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core.responses.kept_ids import Place

NO_TURN: Final = "0" * 16
"""Stands for the turn before the first one."""

_HEX: Final = 16
_NONCE: Final = 12
_TAG: Final = 16
_LABEL: Final = b"fleetgate kept conversation\0"
_DIGEST_LABEL: Final = b"fleetgate kept digest\0"
_PLAIN, _DEFLATED = b"p", b"z"

SMALL: Final = 256
"""Bytes of a content that is not compressed: it would hardly become smaller."""

OVERHEAD: Final = 2 * _HEX + _NONCE + _TAG + 1
"""Bytes of a record beside its content."""


class SealedTurn(NamedTuple):
    """What stands unsealed in a record."""

    before: str
    digest: str


class Sealer:
    """`key`: the response key, the same in all gateways."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.digest_key = hmac.digest(key, _DIGEST_LABEL, "sha256")

    def seal(self, tenant: str, place: Place, before: str | None, digest: str, content: bytes) -> bytes:
        """The record of a turn."""
        head = (before or NO_TURN).encode() + digest.encode()
        packed = _PLAIN + content
        if len(content) > SMALL and len(deflated := zlib.compress(content, 1)) < len(content):
            packed = _DEFLATED + deflated
        nonce = os.urandom(_NONCE)
        return head + nonce + self._cipher(tenant, place).encrypt(nonce, packed, head + place.turn.encode())

    def unseal(self, tenant: str, place: Place, record: bytes, most: int) -> bytes | None:
        """The content of a record, which has at most `most` bytes; None where it does not open."""
        head, nonce, sealed = record[: 2 * _HEX], record[2 * _HEX : 2 * _HEX + _NONCE], record[2 * _HEX + _NONCE :]
        if len(sealed) <= _TAG:
            return None
        try:
            packed = self._cipher(tenant, place).decrypt(nonce, sealed, head + place.turn.encode())
            return packed[1:] if packed[:1] == _PLAIN else zlib.decompressobj().decompress(packed[1:], most)
        except (InvalidTag, zlib.error):
            return None

    def _cipher(self, tenant: str, place: Place) -> AESGCM:
        label = _LABEL + bytes.fromhex(place.conversation) + tenant.encode()
        return AESGCM(hmac.digest(self._key, label, "sha256"))


def head_of(record: bytes) -> SealedTurn:
    """What a record says unsealed."""
    return SealedTurn(record[:_HEX].decode(errors="replace"), record[_HEX : 2 * _HEX].decode(errors="replace"))
