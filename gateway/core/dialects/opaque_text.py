"""Texts that a client keeps for the gateway, in a field that is opaque to it (`encrypted_content`).

They are encoded, not encrypted, and not signed: a text that comes back is worth as much as any other that the client
could have written in its place, a thought of the assistant or a message of the user.
"""

import binascii
from base64 import b64decode, urlsafe_b64encode

REASONING = "fleetgate-reasoning-1."
COMPACTION = "fleetgate-compaction-1."


def encode_text(kind: str, text: str) -> str:
    """`text` as the value of an opaque field; `kind` is one of the above."""
    return kind + urlsafe_b64encode(text.encode(errors="replace")).decode()


def decode_text(kind: str, value: str) -> str | None:
    """The text in a value that `encode_text` made; None for any other."""
    if not value.startswith(kind):
        return None
    try:
        return b64decode(value[len(kind) :], b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
