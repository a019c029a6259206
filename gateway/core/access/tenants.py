"""Who is calling: a key, found by its SHA-256, belongs to one tenant and may be allowed less than it."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.core.access.api_keys import key_id, selector
from gateway.core.errors import Unauthenticated
from gateway.core.limits.rules import Limits
from gateway.core.thinking.policy import PolicyLayer

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who pays. `models` None means every model.

    `cache_salt` keeps its prompts apart in the nodes' prefix caches; None shares them with everybody.
    `rules` are its own for thinking and output, None where it has none. `limits` are of all it does, `model_limits`
    of what it does with one model, by the nodes' name for it. `service_class` is the highest that it may have, None for
    the default one; `share` its part against other tenants that wait in the same class.
    """

    name: str
    models: frozenset[str] | None = None
    cache_salt: str | None = None
    rules: PolicyLayer | None = None
    limits: Limits | None = None
    model_limits: Mapping[str, Limits] = field(default_factory=dict)
    service_class: str | None = None
    share: float = 1.0

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


def cache_salt(secret: bytes, tenant: str) -> str:
    """What keeps `tenant`'s prompts apart in the nodes' caches: a name that nobody without `secret` can work out."""
    return hmac.digest(secret, b"cache_salt:" + tenant.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class KeyGrant:
    """What one key allows: no more than its tenant may. `models` None means all of the tenant's.

    `digest` is the key's SHA-256, `expires` seconds since 1970. `limits` are this key's, under its tenant's.
    """

    digest: bytes
    tenant: str
    models: frozenset[str] | None = None
    expires: float = NEVER
    limits: Limits | None = None
    service_class: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A tenant, come in by one of its keys. `key` is the key's id; None where no key was needed."""

    tenant: Tenant
    key: str | None = None
    models: frozenset[str] | None = None
    expires: float = NEVER
    limits: Limits | None = None
    service_class: str | None = None

    def may_use(self, model: str) -> bool:
        return (self.models is None or model in self.models) and self.tenant.may_use(model)


def identity_of(tenant: Tenant, grant: KeyGrant) -> Identity:
    """`tenant` as it comes in by the key of `grant`."""
    return Identity(tenant, key_id(grant.digest), grant.models, grant.expires, grant.limits, grant.service_class)


class Tenants:
    """The tenants and keys of the configuration. Where there are none, `anonymous` is everybody."""

    def __init__(
        self, tenants: Iterable[Tenant] = (), keys: Iterable[KeyGrant] = (), anonymous: Tenant | None = None
    ) -> None:
        """`keys` name tenants of `tenants`."""
        self.by_name: Mapping[str, Tenant] = {tenant.name: tenant for tenant in tenants}
        self.anonymous = None if anonymous is None else Identity(anonymous)
        self._identities = {
            selector(grant.digest): (grant.digest, identity_of(self.by_name[grant.tenant], grant)) for grant in keys
        }

    def of_key(self, digest: bytes) -> Identity | None:
        """Whose key has this SHA-256."""
        found = self._identities.get(selector(digest))
        return found[1] if found is not None and hmac.compare_digest(found[0], digest) else None


def demanded_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key of a request that needs one; `Unauthenticated` where it carries none."""
    key = presented_key(headers)
    if key is None:
        raise Unauthenticated(
            "The API key is missing: send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'.",
            code="missing_api_key",
        )
    return key


def presented_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key of `Authorization: Bearer KEY` or `x-api-key: KEY`, or None. `headers` has lower-case names.

    The bearer goes first, since both OpenAI's and Anthropic's SDKs send one where a token is set on purpose.
    """
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key", b"").strip() or None


def same_secret(presented: bytes | None, secret: str) -> bool:
    """Compare in constant time; nothing presented is never the same."""
    return presented is not None and hmac.compare_digest(presented, secret.encode())
