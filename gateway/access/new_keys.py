"""Makes API keys: random bytes, in the format of `core.access.api_keys`."""

import secrets

from gateway.core.access.api_keys import RANDOM_BYTES, key_digest, key_from


def make_key() -> tuple[str, str]:
    """A new key and its SHA-256 in hex."""
    key = key_from(secrets.token_bytes(RANDOM_BYTES))
    return key, key_digest(key).hex()
