"""What the gateway grants to an ask. Without a policy it grants what was asked, and changes nothing else."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.bodies import edit_body, insert_fields
from gateway.core.dialects.base import FORBIDDEN_FIELDS, Ask, Dialect
from gateway.core.response_ids import seal


@dataclass(frozen=True, slots=True)
class Minting:
    """How the id of a stored response is made once its node is known (see `response_ids`)."""

    key: bytes
    nonce: bytes
    tenant: str


class Plan(NamedTuple):
    """One request as it will be sent: to a node that serves `model` (None: any), or to the one tagged `pinned_to`."""

    ask: Ask
    dialect: Dialect
    model: str | None
    body: bytes
    minting: Minting | None = None
    pinned_to: bytes | None = None

    def body_for(self, node: bytes) -> bytes:
        """The body for the node tagged `node`: the same for all, but for an id that names its node."""
        if self.minting is None:
            return self.body
        minted = seal(self.minting.key, self.minting.nonce, node, self.minting.tenant)
        return insert_fields(self.body, {"request_id": minted})


def make_plan(ask: Ask, dialect: Dialect, model: str, minting: Minting | None, pinned_to: bytes | None) -> Plan:
    """The plan for `ask`: the node's own name for the model, what the gateway needs set, what clients may not set."""
    changes = dialect.changes(ask)
    if ask.model is not None and ask.model != model:
        changes["model"] = model
    return Plan(
        ask=ask,
        dialect=dialect,
        model=model,
        body=edit_body(ask.raw, ask.body, changes, FORBIDDEN_FIELDS),
        minting=minting if ask.body.get("store") is not False else None,
        pinned_to=pinned_to,
    )
