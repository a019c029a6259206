"""What the gateway grants to an ask. Without a policy it grants what was asked, and changes nothing else."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.bodies import edit_body, insert_fields
from gateway.core.dialects.base import FORBIDDEN_FIELDS, Ask, Dialect
from gateway.core.grant import Grant, Headers
from gateway.core.intent import UNLIMITED, UNSAID
from gateway.core.response_ids import seal
from gateway.core.sizes import BYTES_PER_TOKEN, estimate_input


@dataclass(frozen=True, slots=True)
class Minting:
    """How the id of a stored response is made once its node is known (see `response_ids`)."""

    key: bytes
    nonce: bytes
    tenant: str


class Plan(NamedTuple):
    """One request as it will be sent: to a node that serves `model` (None: any), or to the one tagged `pinned_to`.

    `max_tokens`: output tokens granted to each answer, thinking included; None where nobody said.
    `thinking`: True or False where thinking is switched on or off, None where it stays as the model has it.
    `thinking_budget`: the most tokens of it that may be thinking; None: unlimited, or unknown.
    `hide`: the gateway takes reasoning out of the answer. `effort`, `low`: see `Intent`.
    `told`: headers that tell the client what was applied, on every answer, errors included.
    """

    ask: Ask
    dialect: Dialect
    model: str | None
    body: bytes
    minting: Minting | None = None
    pinned_to: bytes | None = None
    max_tokens: int | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None
    effort: str | None = None
    low: bool = False
    hide: bool = False
    told: Headers = ()
    bytes_per_token: float = BYTES_PER_TOKEN

    @property
    def grant(self) -> Grant:
        return Grant(self.max_tokens, self.thinking, self.thinking_budget, self.effort, self.low, self.hide, self.told)

    @property
    def carried(self) -> bool:
        """Whether a node that holds budgets can be told this plan's in the client's own dialect."""
        return self.dialect.carries(self.grant)

    @property
    def input_tokens(self) -> int:
        """An estimate of the prompt's tokens: from its text's bytes, token ids counted. Walks the prompt."""
        return estimate_input(self.ask.body, self.bytes_per_token)

    @property
    def output_tokens(self) -> int | None:
        """The most tokens that all answers to it can have together; None where nobody bounded them."""
        return None if self.max_tokens is None else self.max_tokens * self.ask.choices

    def body_for(self, node: bytes) -> bytes:
        """The body for the node tagged `node`: the same for all, but for an id that names its node."""
        if self.minting is None:
            return self.body
        minted = seal(self.minting.key, self.minting.nonce, node, self.minting.tenant)
        return insert_fields(self.body, {"request_id": minted})


def make_plan(
    ask: Ask,
    dialect: Dialect,
    model: str,
    minting: Minting | None,
    pinned_to: bytes | None,
    bytes_per_token: float = BYTES_PER_TOKEN,
) -> Plan:
    """The plan for `ask`: the node's own name for the model, what the gateway needs set, what clients may not set."""
    changes = dialect.changes(ask)
    if ask.model is not None and ask.model != model:
        changes["model"] = model
    grant = _as_asked(ask)
    if not ask.intent.heeded:
        changes.update(dialect.carry(ask.body, grant))
    return Plan(
        ask,
        dialect,
        model,
        edit_body(ask.raw, ask.body, changes, FORBIDDEN_FIELDS),
        minting if ask.body.get("store") is not False else None,
        pinned_to,
        *grant,
        bytes_per_token,
    )


def _as_asked(ask: Ask) -> Grant:
    """Where no policy speaks, everything is granted. What the node hides by itself is not the gateway's to hide."""
    if ask.intent is UNSAID:
        return Grant(ask.max_tokens)
    on, budget, effort, low, hide, heeded, _ = ask.intent
    limit = 0 if on is False else None if budget == UNLIMITED else budget
    return Grant(ask.max_tokens, on, limit, effort, low, hide is True and not heeded)
