"""Texts that a client keeps for the gateway, in a field that is opaque to it (`encrypted_content`).

They are encoded, not encrypted, and not signed: a text that comes back is worth as much as any other that the client
could have written in its place, a thought of the assistant or a message of the user.
"""

import binascii
from base64 import b64decode, urlsafe_b64encode

REASONING = "fleetgate-reasoning-1."
COMPACTION = "fleetgate-compaction-1."


_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\f\r"))
"""Characters that take six bytes in JSON and less than two here: a body of them would become four times as long."""

_FEW = 64
"""Of them in any text; a long one may have one in `_FEW`."""


def encode_text(kind: str, text: str) -> str:
    """`text` as the value of an opaque field; `kind` is one of the above."""
    return kind + urlsafe_b64encode(text.encode(errors="replace")).decode()


def decode_text(kind: str, value: str) -> str | None:
    """The text in a value that `encode_text` made; None for any other, and for one that is mostly control characters,
    for which no memory was reserved."""
    if not value.startswith(kind):
        return None
    try:
        text = b64decode(value[len(kind) :], b"-_", validate=True)
        controls = len(text) - len(text.translate(None, _CONTROLS))
        return text.decode() if controls <= max(_FEW, len(text) // _FEW) else None
    except (binascii.Error, ValueError):
        return None
