"""Making API keys: `fg-` and 32 random bytes; what is kept of one is its SHA-256."""

import secrets

from gateway.core.tenants import key_digest


def make_key() -> tuple[str, str]:
    """A new key and its SHA-256 in hex."""
    key = f"fg-{secrets.token_urlsafe(32)}"
    return key, key_digest(key).hex()
