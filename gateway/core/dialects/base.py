"""The interface of a dialect: it reads requests, edits them for a node, follows answers and shapes errors."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from gateway.core.bodies import Body, exact_body, parse_body
from gateway.core.body_edits import edit_body
from gateway.core.dialects.answers import find_usage
from gateway.core.dialects.arguments import check_arguments
from gateway.core.dialects.counts import choices_of, plain_values
from gateway.core.dialects.error_shape import ErrorShape
from gateway.core.dialects.fields import optional
from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.reading.outline import Outline
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.intent import INTENT_FIELDS, UNSAID, Intent, read_intent
from gateway.core.thinking.sizes import measure_prompt, tokens_of
from gateway.core.usage.token_usage import Usage, from_openai

FORBIDDEN_FIELDS: Final = frozenset(
    {"kv_transfer_params", "ec_transfer_params", "cache_salt", "priority", "request_id", "session_id"}
)
"""Body fields that steer vLLM's engine, not the answer. They are taken out of clients' bodies.

A tenant's `priority` could starve others. `cache_salt`, `kv_transfer_params`, `ec_transfer_params` and `session_id`
reach into caches that tenants share. A chosen `request_id` could be another request's.
"""

_ENGINE_ARGUMENTS = FORBIDDEN_FIELDS | {"kv_cache_report_mode"}
"""Fields that vLLM also reads in `vllm_xargs`, which it hands to its engine unchecked."""


NEVER = (1 << 30,)
"""A version that no node has."""


class Ask:
    """A client's request, read in its dialect.

    `raw`: the body as it came, its counts as plain numbers (see `counts`). `body`: the same, parsed.
    `model`: None where the client named none. `continues`: the id of an earlier response that this one continues.
    `intent`: what is asked of thinking. `max_tokens`: of the answer; None where none, or a negative number, is given.
    `background`: the node answers at once, and works whether or not the client stays. `taken_since`: the first version
    of vLLM that is known to read all its fields in its dialect, `NEVER` where none does. `long`: it is made ready in
    steps. `continued`: the id of the response whose conversation the gateway has put before its input. `behind`: the
    number of the event behind which a stored stream is wanted whose node is asked for all of it. Only who makes one
    sets them.
    """

    __slots__ = (
        "_measured",
        "background",
        "behind",
        "body",
        "continued",
        "continues",
        "intent",
        "long",
        "max_tokens",
        "model",
        "raw",
        "stream",
        "taken_since",
    )

    def __init__(
        self,
        raw: bytes,
        body: Body,
        model: str | None,
        stream: bool,
        intent: Intent = UNSAID,
        max_tokens: int | None = None,
    ) -> None:
        self.raw = raw
        self.body = body
        self.model = model
        self.stream = stream
        self.continues: str | None = None
        self.continued: str | None = None
        self.intent = intent
        self.max_tokens = max_tokens
        self.background = False
        self.behind = -1
        self.taken_since: tuple[int, ...] = ()
        self.long = False
        self._measured: tuple[int, int] | None = None

    def input_tokens(self, bytes_per_token: float) -> int:
        """Tokens of its prompt, estimated (see `sizes`): limits, queue and routing ask, and it is walked once."""
        measured = self._measured
        if measured is None:
            measured = self._measured = measure_prompt(self.body)
        return tokens_of(measured, bytes_per_token)

    @property
    def tools(self) -> bool:
        """Whether the model may call tools in its answer."""
        return bool(self.body.get("tools")) and self.body.get("tool_choice") not in ("none", {"type": "none"})

    @property
    def choices(self) -> int:
        """The number of answers that come back together."""
        return choices_of(self.body)


class Dialect(ABC):
    """One public request format."""

    name: ClassVar[str]
    path: ClassVar[str]
    """The path at which the gateway and the nodes serve it."""

    also_at: ClassVar[tuple[str, ...]] = ()
    """Other paths at which the gateway serves the same; nodes are asked at `path`."""

    heeds: ClassVar[frozenset[str]] = frozenset()
    """The spellings of thinking (paths, see `intent`) that a node reads in this dialect."""

    output_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that bound an answer's tokens, in order of precedence; empty where nothing is generated."""

    templated: ClassVar[bool] = False
    """Whether a node renders the prompt by the model's chat template, whose switch turns thinking off, and splits the
    reasoning from the answer's content."""

    budget_since: ClassVar[tuple[int, ...]] = ()
    """The first version of vLLM that is known to hold a thinking budget in this dialect."""

    salt_since: ClassVar[tuple[int, ...]] = ()
    """The first version of vLLM that is known to read a `cache_salt` in this dialect."""

    takes_salt: ClassVar[bool] = True
    """Whether a node caches prompts of this dialect, so that a `cache_salt` has to keep tenants apart."""

    computes: ClassVar[bool] = True
    """Whether a model works for it. Counting and splitting tokens costs a tenant none."""

    anthropic: ClassVar[bool] = False
    """Whether it is one of Anthropic's formats, whose clients read Anthropic's headers."""

    adapts: ClassVar[bool] = False
    """Whether clients send in it what no node understands."""

    refers: ClassVar[bool] = False
    """Whether requests may name earlier responses, or items of them, in place of what these say."""

    mints_ids: ClassVar[bool] = False
    """Whether the gateway chooses the answer's id, by which later requests find its node and owner."""

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        """Read a request. Only fields that the gateway itself reads are checked; the node checks the others.

        `parsed`: the body from `parse_steps`, where `raw` was parsed before; or an `Outline`, of a body that this has
        read before. Raises `InvalidRequest`.
        """
        body = parse_body(raw) if parsed is None else parsed
        if type(body) is not Outline:
            raw = self._make_plain(raw, body)
        max_tokens = None
        for name in self.output_fields:
            bound = body.get(name)
            if bound is not None:
                max_tokens = bound if bound >= 0 else None
                break
        return Ask(
            raw=raw,
            body=body,
            model=optional(body, "model", str),
            stream=bool(optional(body, "stream", bool)),
            intent=self.intent(body) if self.output_fields and not INTENT_FIELDS.isdisjoint(body) else UNSAID,
            max_tokens=max_tokens,
        )

    def _make_plain(self, raw: bytes, body: Body) -> bytes:
        """Check `body`, and set in it what nodes would not understand, or not all alike; `raw` with the same."""
        check_arguments(body)
        changes = plain_values(body, self.output_fields)
        if self.adapts and (adapted := self.adapt(body)):
            exact = exact_body(raw, body)  # fields that are written anew keep their large numbers
            changes |= adapted if exact is body else self.adapt(exact)
        if changes:
            raw = edit_body(raw, body, changes, frozenset())
            body.update(changes)
        return raw

    def adapt(self, body: Body) -> Body:
        """The fields to set in a client's `body`, so that nodes understand it; called where the dialect `adapts`.
        Raises `InvalidRequest`."""
        return {}

    def intent(self, body: Body) -> Intent:
        """What `body`, which has a field for it, asks of thinking."""
        return read_intent(body, self.heeds)

    def changes(self, ask: Ask) -> dict[str, Any]:
        """The top-level fields that the gateway sets for itself, and hides the effect of."""
        return {}

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        """The top-level fields to set in `body` so that a node thinks as granted."""
        return {}

    def bound(self, body: Body, max_tokens: int) -> dict[str, Any]:
        """The fields to set so that `max_tokens` bounds the output: all those in `body`, or the last of
        `output_fields`."""
        given = [name for name in self.output_fields if body.get(name) is not None] or [self.output_fields[-1]]
        return {name: max_tokens for name in given if body.get(name) != max_tokens}

    def carries(self, grant: Grant) -> bool:
        """Whether this dialect's fields can tell a node the grant's budget."""
        return True

    def over_chat(self, body: Body) -> OverChat | None:
        """The translation of a request to chat; None where the dialect has none.

        Raises `InvalidRequest`, which names the field, where chat has no counterpart.
        """
        return None

    @abstractmethod
    def stream_filter(self, ask: Ask) -> StreamFilter:
        """A new filter for one streamed answer."""

    def usage(self, answer: bytes) -> Usage | None:
        """The usage that a plain answer reports."""
        found = find_usage(answer)
        return None if found is None else from_openai(found)

    def gave_up(self, answer: bytes) -> bool:
        """Whether a plain answer was aborted by its node."""
        return False

    @abstractmethod
    def error(self, shape: ErrorShape) -> bytes:
        """The body of an error answer."""

    @abstractmethod
    def error_event(self, shape: ErrorShape, number: int) -> bytes:
        """The event of an error in a stream that has begun; `number` is its own where the stream's events have some."""


def harmless_arguments(body: Body) -> dict[str, Any] | None:
    """`vllm_xargs` without the fields that steer the engine; None where it has none of them."""
    given = body.get("vllm_xargs")
    if type(given) is not dict or _ENGINE_ARGUMENTS.isdisjoint(given):
        return None
    return {name: value for name, value in given.items() if name not in _ENGINE_ARGUMENTS}
