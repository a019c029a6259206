"""Ids of stored responses that carry their node and their owner, so that no gateway has to remember either.

vLLM keeps a stored response in one node's memory and lets the caller choose its id (`request_id`). The gateway
chooses one that says where it lives and for whom, sealed with a key that all gateway processes share:

    resp_ + hex( nonce: 8 bytes | node: 4 bytes | HMAC-SHA256(key, nonce | node | tenant)[:12] )

Whoever presents an id must be the tenant that it was sealed for; an id that does not open is not found, which
tells a stranger nothing about whether it exists.
"""

import hashlib
import hmac

_PREFIX = "resp_"
_NONCE, _NODE, _MAC = 8, 4, 12

NONCE_BYTES = _NONCE


def node_tag(url: str) -> bytes:
    """The four bytes that stand for a node: a hash of its URL, the same in every process."""
    return hashlib.sha256(url.encode()).digest()[:_NODE]


def seal(key: bytes, nonce: bytes, node: bytes, tenant: str) -> str:
    """The id of a response that `tenant` will have on `node` (a `node_tag`); `nonce` is `NONCE_BYTES` at random."""
    return _PREFIX + (nonce + node + _mac(key, nonce + node, tenant)).hex()


def open_id(key: bytes, response_id: str, tenant: str) -> bytes | None:
    """The tag of the node that holds `response_id`, or None where it is not an id sealed for `tenant`."""
    try:
        sealed = bytes.fromhex(response_id.removeprefix(_PREFIX))
    except ValueError:
        return None
    if not response_id.startswith(_PREFIX) or len(sealed) != _NONCE + _NODE + _MAC:
        return None
    told, mac = sealed[: _NONCE + _NODE], sealed[_NONCE + _NODE :]
    return told[_NONCE:] if hmac.compare_digest(mac, _mac(key, told, tenant)) else None


def _mac(key: bytes, told: bytes, tenant: str) -> bytes:
    return hmac.digest(key, told + tenant.encode(), "sha256")[:_MAC]
