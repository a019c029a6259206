"""Who is calling: a key, found by its SHA-256, belongs to one tenant."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.core.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who pays. `models` None means every model."""

    name: str
    models: frozenset[str] | None = None

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


def key_digest(key: str | bytes) -> bytes:
    """What is kept of a key: its SHA-256, 32 bytes. Keys are random and long, so no salt or stretching is needed."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


class Tenants:
    """Keys to tenants. Without any tenant configured, `anonymous` is everybody."""

    def __init__(self, keys: Iterable[tuple[bytes, Tenant]], anonymous: Tenant | None = None) -> None:
        """`keys`: pairs of a key's digest (see `key_digest`) and its tenant."""
        self._by_digest = dict(keys)
        self._anonymous = anonymous

    def authenticate(self, headers: Mapping[bytes, bytes]) -> Tenant:
        """The tenant of `Authorization: Bearer KEY` or `x-api-key: KEY`; `Unauthenticated` otherwise.

        `headers` has lower-case names. The bearer goes first, since both OpenAI's and Anthropic's SDKs send one
        where a token is set on purpose.
        """
        if self._anonymous is not None:
            return self._anonymous
        key = presented_key(headers)
        if key is None:
            raise Unauthenticated(
                "No API key was given: send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.",
                code="missing_api_key",
            )
        digest = key_digest(key)
        tenant = self._by_digest.get(digest)
        if tenant is None:
            raise Unauthenticated("The API key is not valid.", code="invalid_api_key")
        return tenant


def presented_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request carries, or None."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip() or None


def same_secret(presented: bytes | None, secret: str) -> bool:
    """Compare in constant time; nothing presented is never the same."""
    return presented is not None and hmac.compare_digest(presented, secret.encode())
