"""What the gateway grants to an ask. Without a policy it grants what was asked, and changes nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.core.bodies import Body
from gateway.core.body_edits import edit_body, insert_fields
from gateway.core.dialects.base import FORBIDDEN_FIELDS, Ask, Dialect, harmless_arguments
from gateway.core.dialects.counts import MULTIPLIERS, least_output, rounds_of, sequences_of
from gateway.core.dialects.response_ids import seal
from gateway.core.responses.kept_turn import KeptTurn
from gateway.core.thinking.caps import cap, check_output, room_beside, room_for, within
from gateway.core.thinking.decision import decide, refuse_unholdable
from gateway.core.thinking.grant import Grant, Headers
from gateway.core.thinking.intent import INTENT_FIELDS, UNLIMITED, UNSAID, Intent
from gateway.core.thinking.loops import NO_BOUNDS, USUAL_BOUNDS, loop_bounds
from gateway.core.thinking.policy import Policy
from gateway.core.thinking.sizes import BYTES_PER_TOKEN

NO_GRANT: Final = Grant()

_COUNTS = frozenset({int, type(None)})
"""The types of what may stand in a field for the output: anything else is refused."""


@dataclass(frozen=True, slots=True)
class IdMinting:
    """How the id of a stored response is made once its node is known (see `response_ids`)."""

    key: bytes
    nonce: bytes
    tenant: str


class Plan:
    """One request as it will be sent: to a node that serves `model` (None: any), or to the one tagged `pinned_to`.

    Only who makes one sets its fields.
    """

    __slots__ = (
        "ask",
        "body",
        "bytes_per_token",
        "counted",
        "dialect",
        "grant",
        "kept",
        "least",
        "loops",
        "minting",
        "model",
        "over_chat",
        "pinned_to",
        "resumes",
        "salted",
    )

    def __init__(
        self,
        ask: Ask,
        dialect: Dialect,
        model: str | None,
        body: bytes,
        minting: IdMinting | None = None,
        pinned_to: bytes | None = None,
        grant: Grant = NO_GRANT,
        bytes_per_token: float = BYTES_PER_TOKEN,
    ) -> None:
        self.ask = ask
        self.dialect = dialect
        self.model = model
        self.body = body
        self.minting = minting
        self.pinned_to = pinned_to
        self.grant = grant
        self.bytes_per_token = bytes_per_token
        self.over_chat = False
        """Whether nodes are asked in chat, whatever the dialect (see `dialects.over_chat`)."""
        self.kept: KeptTurn | None = None
        """The turn that its answer completes, where the gateway is to keep it."""
        self.resumes = False
        """Whether its answer goes on on another node where its node breaks off, if it can."""
        self.loops = NO_BOUNDS
        """Which loops of its answer are ended, where its token ids are known."""
        self.salted = False
        self.counted: int | None = None
        """The prompt's tokens as the model's tokenizer counts them; nothing where they have to be estimated."""
        self.least = 0
        """Tokens that each answer surely has where nobody bounds it (see `counts`)."""

    def with_grant(self, grant: Grant, body: bytes) -> "Plan":
        """The same with another grant, and the body that says so."""
        made = Plan(self.ask, self.dialect, self.model, body, self.minting, self.pinned_to, grant, self.bytes_per_token)
        made.over_chat, made.kept, made.resumes, made.loops = self.over_chat, self.kept, self.resumes, self.loops
        made.salted, made.counted, made.least = self.salted, self.counted, self.least
        return made

    @property
    def max_tokens(self) -> int | None:
        """Output tokens granted to each answer, thinking included; None where nobody said."""
        return self.grant.max_tokens

    @property
    def thinking(self) -> bool | None:
        """Whether thinking is switched on or off; None where it stays as the model has it."""
        return self.grant.thinking

    @property
    def thinking_budget(self) -> int | None:
        """The most tokens of an answer that may be thinking, 0 where it is off; None: unlimited, or unknown."""
        return self.grant.thinking_budget

    @property
    def hide(self) -> bool:
        """Whether the gateway takes reasoning out of the answer."""
        return self.grant.hide

    @property
    def headers(self) -> Headers:
        """Headers that tell the client what was applied, on every answer, errors included."""
        return self.grant.headers

    @property
    def carried(self) -> bool:
        """Whether a node that holds budgets can be told this plan's in the client's own dialect."""
        return self.dialect.carries(self.grant)

    @property
    def input_tokens(self) -> int:
        """The prompt's tokens: counted, or estimated from its text's bytes, which walks the prompt."""
        return self.counted or self.ask.input_tokens(self.bytes_per_token)

    @property
    def sequences(self) -> int:
        """How many answers a node makes for it, one after the other or side by side."""
        body = self.ask.body
        return 1 if MULTIPLIERS.isdisjoint(body) else sequences_of(body) * rounds_of(body)

    @property
    def output_tokens(self) -> int | None:
        """The most tokens that all answers to it can have together; None where nobody bounded them. A node makes one
        where none is asked for (`echo` with `max_tokens` 0)."""
        return None if self.max_tokens is None else max(1, self.max_tokens) * self.sequences

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
    minting: IdMinting | None,
    pinned_to: bytes | None,
    terms: Policy | None = None,
    window: int | None = None,
    bytes_per_token: float = BYTES_PER_TOKEN,
    salt: str | None = None,
    counted: int | None = None,
    resumes: bool = False,
) -> Plan:
    """The plan for `ask`: what its tenant may have, the node's own name for the model, what the gateway needs set.

    `terms` are the rules for this tenant on this model (None: there are none), `window` the model's context window in
    tokens (None: not known), `salt` keeps its prompt apart from other tenants' in nodes' caches, `counted` is the
    prompt's length where it is known. `resumes`: its answer is to go on on another node where its node breaks off.
    Raises `InvalidRequest` where the rules refuse what is asked.
    """
    changes = dialect.changes(ask)
    if ask.model is not None and ask.model != model:
        changes["model"] = model
    if salt is not None and dialect.takes_salt:
        changes["cache_salt"] = salt
    if "vllm_xargs" in ask.body and (arguments := harmless_arguments(ask.body)) is not None:
        changes["vllm_xargs"] = arguments
    if terms is not None and dialect.output_fields:
        grant, enacted = under_rules(ask, dialect, terms, window, bytes_per_token, counted)
        changes.update(enacted)
    else:
        grant = Grant(ask.max_tokens) if ask.intent is UNSAID else as_asked(ask.intent, ask.max_tokens)
        if not ask.intent.heeded:
            changes.update(dialect.carry(ask.body, grant))
    if resumes and ask.stream and ask.body.get("include_reasoning") is False:
        # A node that hides reasoning sends no token ids of it, nor of what follows: the gateway hides it instead.
        changes["include_reasoning"] = True
        grant = grant.hidden()
    if "use_beam_search" in ask.body and dialect.name in ("chat", "completions"):
        off = grant.thinking is False and dialect.name == "chat"  # by the template: there is nothing to hold
        refuse_unholdable(ask.body, None if off else grant.thinking_budget)
    body = edit_body(ask.raw, ask.body, changes, FORBIDDEN_FIELDS)
    if minting is not None and ask.body.get("store") is False:
        minting = None
    plan = Plan(ask, dialect, model, body, minting, pinned_to, grant, bytes_per_token)
    plan.resumes = resumes
    plan.loops = USUAL_BOUNDS if terms is None else loop_bounds(terms.loops)
    plan.salted = "cache_salt" in changes
    plan.counted = counted
    plan.least = least_output(ask.body, window)
    return plan


def as_asked(intent: Intent, max_tokens: int | None) -> Grant:
    """Where no rule speaks, everything is granted. What the node hides by itself is not the gateway's to hide."""
    budget = 0 if intent.on is False else None if intent.budget == UNLIMITED else intent.budget
    if intent.most is not None and (budget is None or budget > intent.most):
        budget = intent.most
    return Grant(max_tokens, intent.on, budget, intent.effort, intent.low, intent.hide is True and not intent.heeded)


def under_rules(
    ask: Ask, dialect: Dialect, terms: Policy, window: int | None, bytes_per_token: float, counted: int | None
) -> tuple[Grant, Mapping[str, object]]:
    """What the rules leave of what is asked, and the fields that have to be set for that."""
    body = ask.body
    if ask.intent is UNSAID and INTENT_FIELDS.isdisjoint(body):
        asked = tuple([body.get(name) for name in dialect.output_fields])
        if _COUNTS.issuperset(map(type, asked)):
            usual = _usual(dialect, terms, asked, ask.tools)
            if window is None or _surely_fits(usual[0].max_tokens, window, ask, bytes_per_token):
                return usual
    grant = _ruled(ask, dialect, terms, window, bytes_per_token, counted)
    return grant, _enact(ask, dialect, terms, grant)


@lru_cache(maxsize=1024)
def _usual(
    dialect: Dialect, terms: Policy, asked: tuple[int | None, ...], tools: bool
) -> tuple[Grant, Mapping[str, object]]:
    """The same for a body that says nothing of thinking, with these values in the dialect's fields for the output, as
    far as it has them: there is nothing else that it depends on. Remembered, since most requests are of that kind:
    saves 3 to 5 % of a request under rules (docs/benchmarks.md)."""
    body: Body = {name: value for name, value in zip(dialect.output_fields, asked, strict=True) if value is not None}
    if tools:
        body["tools"] = [{}]
    ask = Ask(b"", body, None, stream=False, max_tokens=next((value for value in asked if value is not None), None))
    grant = _ruled(ask, dialect, terms, None, BYTES_PER_TOKEN, None)
    return grant, _enact(ask, dialect, terms, grant)


def _ruled(
    ask: Ask, dialect: Dialect, terms: Policy, window: int | None, bytes_per_token: float, counted: int | None
) -> Grant:
    """What the rules leave of what is asked."""
    field = check_output(ask.body, dialect.output_fields)
    max_tokens = ask.max_tokens
    headers: Headers = ()
    if terms.output is not None:
        granted = cap(max_tokens, field, terms.output)
        if window is not None and not _surely_fits(granted.tokens, window, ask, bytes_per_token):
            granted = within(_room(ask, window, bytes_per_token, counted), max_tokens, granted)
        max_tokens, headers = granted
    grant = as_asked(ask.intent, max_tokens)
    if terms.thinking is None:
        return grant.with_headers(headers)
    decision = decide(ask.intent, terms.thinking, max_tokens, ask.tools)
    return Grant(
        max_tokens,
        decision.thinking,
        decision.budget,
        grant.effort,
        grant.low,
        decision.hide or grant.hide,
        headers + decision.headers,
    )


def _surely_fits(tokens: int | None, window: int, ask: Ask, bytes_per_token: float) -> bool:
    """Whether an answer of `tokens` has room beside the longest prompt that a body of this size can hold."""
    longest = int(len(ask.raw) / min(1.0, bytes_per_token))
    return tokens is None or tokens <= room_for(window, longest)


def _room(ask: Ask, window: int, bytes_per_token: float, counted: int | None) -> int:
    """Tokens that the window leaves for the answer."""
    return room_beside(window, counted) if counted else room_for(window, ask.input_tokens(bytes_per_token))


def _enact(ask: Ask, dialect: Dialect, terms: Policy, grant: Grant) -> dict[str, object]:
    """What has to stand in the body for the grant to hold: only what does not stand there already."""
    changes: dict[str, object] = {}
    if terms.output is not None and grant.max_tokens is not None:
        changes.update(dialect.bound(ask.body, grant.max_tokens))
    if terms.thinking is not None or not ask.intent.heeded:
        changes.update(dialect.carry(ask.body, grant))
    return changes
