"""Ids of stored responses, which carry the response's node and owner: no gateway remembers either.

vLLM keeps a stored response in one node's memory and lets the caller choose its id (`request_id`). The gateway's ids
name the node, and are sealed for the tenant with a key that all gateway processes share:

    resp_ + hex( nonce: 8 bytes | node: 4 bytes | HMAC-SHA256(key, nonce | node | tenant)[:12] )

An id opens only for the tenant that it was sealed for. For any other it is not found, whether or not it exists.
"""

import hashlib
import hmac

_PREFIX = "resp_"
_NONCE, _NODE, _MAC = 8, 4, 12

NONCE_BYTES = _NONCE


def node_tag(url: str) -> bytes:
    """The four bytes that name a node: a hash of its URL, the same in every process."""
    return hashlib.sha256(url.encode()).digest()[:_NODE]


def seal(key: bytes, nonce: bytes, node: bytes, tenant: str) -> str:
    """The id of a response of `tenant` on `node` (a `node_tag`); `nonce` is `NONCE_BYTES` random bytes."""
    return _PREFIX + (nonce + node + _mac(key, nonce + node, tenant)).hex()


def open_id(key: bytes, response_id: str, tenant: str) -> bytes | None:
    """The tag of the node that holds `response_id`; None where the id is not sealed for `tenant`."""
    try:
        sealed = bytes.fromhex(response_id.removeprefix(_PREFIX))
    except ValueError:
        return None
    if not response_id.startswith(_PREFIX) or len(sealed) != _NONCE + _NODE + _MAC:
        return None
    content, mac = sealed[: _NONCE + _NODE], sealed[_NONCE + _NODE :]
    return content[_NONCE:] if hmac.compare_digest(mac, _mac(key, content, tenant)) else None


def _mac(key: bytes, content: bytes, tenant: str) -> bytes:
    return hmac.digest(key, content + tenant.encode(), "sha256")[:_MAC]
