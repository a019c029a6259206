"""How many tokens an answer may have: asked for, by default, at most, and as the context window allows.

The order is: what is asked, else the default, else the most; clamped to the most (or refused); then what the window
leaves beside the prompt. The prompt's size mostly is an estimate, so the window may lower the tokens and nothing else:
no request is refused for it, no prompt cut. Whether it fits is the node's to say.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from gateway.core.bodies import Body
from gateway.core.errors import InvalidRequest
from gateway.core.thinking.grant import Headers, applied
from gateway.core.thinking.resolved import Resolved

PROMPT_MARGIN = 1.25
"""A prompt is taken for this much longer than its estimate, plus `TEMPLATE_TOKENS`: where it is longer than that, the
node refuses the sum; where it is not, a few tokens of the window stay unused."""

TEMPLATE_TOKENS = 64
"""What a chat template puts around a prompt."""

SWITCH_TOKENS = 16
"""What a counted prompt may still grow by: a full window may switch thinking off, which takes some tokens to say."""

LEAST_ROOM = 256
"""Tokens that are asked of the node however full the window seems: an estimate must not shrink an answer to nothing."""

OnExcess = Literal["clamp", "reject"]


@dataclass(frozen=True, slots=True)
class OutputRules:
    """What one layer of the config says, in tokens; None leaves it to the layer below."""

    default_tokens: int | None = None
    max_tokens: int | None = None
    on_excess: OnExcess | None = None


class Cap(NamedTuple):
    """`tokens` granted (None: no rule says anything), and the header that tells it."""

    tokens: int | None
    headers: Headers


def check_output(body: Body, fields: tuple[str, ...]) -> str | None:
    """The field by which a client bounds its answer, the winning one of `fields`; refuses less than none of tokens."""
    won = None
    for name in fields:
        value = body.get(name)
        if value is not None:
            won = won or name
            if value < 0:
                raise InvalidRequest(
                    f"The field {name!r} must be an integer of 0 or more.", param=name, code="invalid_type"
                )
    return won


def cap(asked: int | None, field: str | None, terms: Resolved[OutputRules]) -> Cap:
    """The tokens for a request that asks for `asked` in `field`."""
    rules = terms.rules
    tokens, source = asked, "request"
    if tokens is None and rules.default_tokens is not None:
        tokens, source = rules.default_tokens, terms.by("default_tokens", "default")
    if rules.max_tokens is not None and (tokens is None or tokens > rules.max_tokens):
        if asked is not None and rules.on_excess == "reject":
            raise _too_many(asked, field, terms)
        tokens, source = rules.max_tokens, terms.by("max_tokens", "max")
    return Cap(None, ()) if tokens is None else Cap(tokens, _cap_header(tokens, source, asked))


def within(room: int, asked: int | None, granted: Cap) -> Cap:
    """What is granted as far as the window has room for it (see `room_for`)."""
    if granted.tokens is None or granted.tokens <= room:
        return granted
    return Cap(room, _cap_header(room, "window", asked))


def room_for(window: int, input_tokens: int) -> int:
    """Tokens that a context window leaves for the answer to a prompt of about `input_tokens`."""
    return max(LEAST_ROOM, window - round(input_tokens * PROMPT_MARGIN) - TEMPLATE_TOKENS)


def room_beside(window: int, counted: int) -> int:
    """The same for a prompt of which the tokens are counted."""
    return max(LEAST_ROOM, window - counted - SWITCH_TOKENS)


def _too_many(asked: int, field: str | None, terms: Resolved[OutputRules]) -> InvalidRequest:
    most = terms.rules.max_tokens or 0
    headers = _cap_header(most, terms.by("max_tokens", "max"), asked)[0]
    return InvalidRequest(
        f"The field {field!r} is {asked}, and at most {most} is allowed: lower it.",
        param=field,
        code="max_tokens_exceeded",
        headers={headers[0].decode(): headers[1].decode()},
    )


def _cap_header(tokens: int, source: str, asked: int | None) -> Headers:
    return ((b"x-fleetgate-max-tokens", applied(str(tokens), source, None if asked is None else str(asked))),)
