"""What every dialect can do: read an ask, say what the gateway must change in it, follow its answer, shape errors."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import orjson

from gateway.core.bodies import Body, parse_body
from gateway.core.body_edits import edit_body
from gateway.core.dialects.arguments import check_arguments
from gateway.core.dialects.counts import choices_of, plain_values
from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import InvalidRequest
from gateway.core.json_text import json_kind, parse_object
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.intent import INTENT_FIELDS, UNSAID, Intent, read_intent
from gateway.core.usage.token_usage import Usage, from_openai

FORBIDDEN_FIELDS = frozenset(
    {"kv_transfer_params", "ec_transfer_params", "cache_salt", "priority", "request_id", "session_id"}
)
"""Body fields that steer vLLM's engine, not the answer. Clients may not set them: they are taken out.

One tenant's `priority` would starve another's; `cache_salt`, `kv_transfer_params`, `ec_transfer_params` and
`session_id` reach into caches that tenants share, and a chosen `request_id` could be another request's.
"""

_ENGINE_ARGUMENTS = FORBIDDEN_FIELDS | {"kv_cache_report_mode"}
"""What vLLM also reads in `vllm_xargs`, which it hands to its engine as it comes."""

_USAGE = b'"usage":{'
_USAGE_FIELD = re.compile(rb'"usage"\s*:\s*(?=\{)')
_USAGE_WINDOW = 4096
_decoder = json.JSONDecoder()

LONGEST_MESSAGE = 2000
"""Characters of a node's error message that are told: vLLM repeats what it was sent in some."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class ErrorKind(Enum):
    """Kinds of errors that both public formats have a name for."""

    INVALID = "invalid"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """An error as a client sees it, before its dialect's clothes."""

    message: str
    fault: ErrorKind
    status: int
    code: str | None
    param: str | None
    request_id: str


class Ask(NamedTuple):
    """What a request wants, read out of its dialect.

    `raw` is the body as it came, its counts spelled plainly (see `counts`), `body` what it parses to. `model` is None
    where the client named none. `continues` is the id of an earlier response that this one builds on (responses
    dialect). `intent` is what it wants of thinking, `max_tokens` the most tokens that it wants back (None: it does not
    say, or less than none). `background`: the node answers at once, and works whether its client stays or not.
    """

    raw: bytes
    body: Body
    model: str | None
    stream: bool
    continues: str | None = None
    intent: Intent = UNSAID
    max_tokens: int | None = None
    background: bool = False

    @property
    def tools(self) -> bool:
        """Whether the model may call tools in its answer."""
        return bool(self.body.get("tools")) and self.body.get("tool_choice") not in ("none", {"type": "none"})

    @property
    def choices(self) -> int:
        """How many answers come back together."""
        return choices_of(self.body)


class Dialect(ABC):
    """One public request format."""

    name: ClassVar[str]
    path: ClassVar[str]
    """Where clients send it and where nodes serve it."""

    heeds: ClassVar[frozenset[str]] = frozenset()
    """The spellings of thinking (paths, see `intent`) that a node reads by itself in this dialect."""

    output_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that bound an answer's tokens, first the one that wins. None: nothing is generated."""

    templated: ClassVar[bool] = False
    """Whether a node renders the prompt by the model's chat template, whose switch turns thinking off, and splits the
    reasoning from the answer's content."""

    budget_since: ClassVar[tuple[int, ...]] = ()
    """The first version of vLLM that is known to hold a thinking budget in this dialect."""

    salt_since: ClassVar[tuple[int, ...]] = ()
    """The first version of vLLM that is known to read a `cache_salt` in this dialect."""

    takes_salt: ClassVar[bool] = True
    """Whether a node keeps prompts in this dialect, so that they need a `cache_salt` to be kept apart."""

    computes: ClassVar[bool] = True
    """Whether a model works for it: what only counts or splits tokens takes none of a tenant's."""

    anthropic: ClassVar[bool] = False
    """Whether its clients are Anthropic's, and read Anthropic's headers."""

    mints_ids: ClassVar[bool] = False
    """Whether the gateway chooses the answer's id, so that later calls about it find their node and owner."""

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        """Check what the gateway itself must understand; all other fields are the node's to judge. `parsed` is what
        `parse_steps` made of `raw`, where that was done before."""
        body = parse_body(raw) if parsed is None else parsed
        check_arguments(raw, body)
        changes = plain_values(body, self.output_fields)
        if changes:
            raw = edit_body(raw, body, changes, frozenset())
            body.update(changes)
        max_tokens = None
        for name in self.output_fields:
            asked = body.get(name)
            if asked is not None:
                max_tokens = asked if asked >= 0 else None
                break
        return Ask(
            raw=raw,
            body=body,
            model=optional_field(body, "model", str),
            stream=bool(optional_field(body, "stream", bool)),
            intent=self.intent(body) if self.output_fields and not INTENT_FIELDS.isdisjoint(body) else UNSAID,
            max_tokens=max_tokens,
        )

    def intent(self, body: Body) -> Intent:
        """What is wanted of thinking, for a body that says something about it."""
        return read_intent(body, self.heeds)

    def changes(self, ask: Ask) -> dict[str, Any]:
        """Top-level fields that the gateway needs set for its own sake (and hides from the answer again)."""
        return {}

    def carry(self, body: Body, grant: Grant) -> dict[str, Any]:
        """The top-level fields that make a node think as was granted, where `body` does not say so already."""
        return {}

    def bound(self, body: Body, max_tokens: int) -> dict[str, Any]:
        """`max_tokens` in every field that `body` has for it, in the last of `output_fields` where it has none."""
        given = [name for name in self.output_fields if body.get(name) is not None] or [self.output_fields[-1]]
        return {name: max_tokens for name in given if body.get(name) != max_tokens}

    def carries(self, grant: Grant) -> bool:
        """Whether a node that holds budgets can be told this one in this dialect's own fields."""
        return True

    def over_chat(self, body: Body) -> OverChat | None:
        """A request of this dialect as chat; None where the dialect has no such way.

        Raises `InvalidRequest`, which names the field, for what chat cannot carry.
        """
        return None

    @abstractmethod
    def stream_filter(self, ask: Ask) -> StreamFilter:
        """A fresh follower for one streamed answer."""

    def usage(self, answer: bytes) -> Usage | None:
        """The usage that a whole, plain answer reports."""
        found = find_usage(answer)
        return None if found is None else from_openai(found)

    def gave_up(self, answer: bytes) -> bool:
        """Whether a whole, plain answer says that its node ended it early for reasons of its own."""
        return False

    @abstractmethod
    def error(self, shape: ErrorShape) -> bytes:
        """The body of an error answer."""

    @abstractmethod
    def error_event(self, shape: ErrorShape) -> bytes:
        """The event that ends a stream which has already begun."""


def harmless_arguments(body: Body) -> dict[str, Any] | None:
    """`vllm_xargs` without what steers the engine; None where it is fine as it is, or not there."""
    given = body.get("vllm_xargs")
    if type(given) is not dict or _ENGINE_ARGUMENTS.isdisjoint(given):
        return None
    return {name: value for name, value in given.items() if name not in _ENGINE_ARGUMENTS}


def optional_field(body: Body, name: str, kind: type[Any]) -> Any:
    """`body[name]` checked to be of `kind`, None where it is absent or null."""
    value = body.get(name)
    if value is None or type(value) is kind:
        return value
    expected = {str: "a string", bool: "true or false", int: "an integer", dict: "an object"}[kind]
    raise InvalidRequest(
        f"The field {name!r} must be {expected}, not {json_kind(value)}.", param=name, code="invalid_type"
    )


def find_usage(answer: bytes) -> Mapping[str, Any] | None:
    """The last `usage` object in a JSON text, without parsing the whole text.

    A quote inside a JSON string is escaped, so `"usage":` in the bytes is a key for certain.
    """
    end = len(answer)
    while (at := answer.rfind(b'"usage"', 0, end)) >= 0:
        if answer.startswith(_USAGE, at):  # as vLLM writes it: no pattern is needed
            return _object_at(answer, at + len(_USAGE) - 1)
        match = _USAGE_FIELD.match(answer, at)
        if match is not None:
            return _object_at(answer, match.end())
        end = at  # a string, such as a token's text
    return None


def _object_at(answer: bytes, at: int) -> Mapping[str, Any] | None:
    """The object that begins at `at`.

    orjson reads whole texts only, so its end is looked for by counting braces. Those in a string mislead the count, and
    what is cut too short is no JSON: then Python's parser, five times slower, finds the end by itself.
    """
    window = answer[at : at + _USAGE_WINDOW]
    end = window.find(b"}") + 1
    while end and window.count(b"{", 0, end) > window.count(b"}", 0, end):
        end = window.find(b"}", end) + 1
    try:
        usage = orjson.loads(window[:end])
    except orjson.JSONDecodeError:
        try:
            usage, _ = _decoder.raw_decode(window.decode(errors="replace"))
        except (ValueError, RecursionError):
            return None
    return usage if isinstance(usage, dict) else None


def find_error_status(answer: bytes) -> int:
    """The HTTP status that a node's error event names as its code; 500 where it names none and blames itself, else
    400."""
    error = parse_object(answer).get("error")
    if not isinstance(error, dict):
        return 500
    code, kind = error.get("code"), str(error.get("type", ""))[:64]
    if type(code) is int and 100 <= code <= 599:
        return code
    return 500 if "internal" in kind.lower() or kind == "api_error" else 400


def find_error_message(answer: bytes) -> str | None:
    """The message of a node's error answer, whichever format it is in, as far as it can be shown: in one line, and not
    all of a long one."""
    error = parse_object(answer).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return _UNPRINTABLE.sub(" ", message[:LONGEST_MESSAGE]) if isinstance(message, str) else None
