"""What is asked of a node that is not proven to hold a thinking budget, and with what the answer is continued.

The first request is the client's own, streamed and with token ids. Where thinking goes past its budget, the answer
is continued by `/v1/completions` on the token ids of the prompt and of the thinking so far, and the marker that ends
thinking behind them: that is the state the model would be in had it ended thinking there by itself.
"""

from dataclasses import dataclass

from gateway.core.bodies import Body, parse_trusted
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump

END_TEXT, START_TEXT = "</think>", "<think>"

_CARRIED = (
    "allowed_token_ids",
    "bad_words",
    "cache_salt",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "priority",
    "repetition_penalty",
    "response_format",
    "seed",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
    "structured_outputs",
    "temperature",
    "top_k",
    "top_p",
    "user",
    "vllm_xargs",
)
"""Fields that mean the same on chat and on completions, those that only the gateway may set included. A grammar begins
with the answer, so it carries over too."""

_COUNTS = ("n", "best_of")
_SWITCHES = ("logprobs", "prompt_logprobs", "echo", "use_beam_search", "suffix")


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """How one budget is enforced.

    `budget` and `max_tokens` in tokens, of the whole answer (`max_tokens` None: up to the node's `window`, also in
    tokens). `body` is what the continuation inherits from. `start` and `end` are the markers' token ids; `exact` is
    False where the answer cannot be continued by hand: then it ends at the budget with `length`. `early_usage`: the
    first chunk says how long the prompt is.
    """

    budget: int
    body: Body
    chat: bool
    start: tuple[int, ...]
    end: tuple[int, ...]
    exact: bool
    splits: bool | None
    shows_marker: bool
    hide: bool
    keep_ids: bool
    pass_usage: bool
    early_usage: bool
    max_tokens: int | None = None
    window: int | None = None

    def room(self, prompt: int, made: int) -> int | None:
        """Tokens that are left for the answer after `made`, the marker included; None where nobody knows."""
        if self.max_tokens is not None:
            return self.max_tokens - made
        return None if self.window is None else self.window - prompt - made

    def continuation(self, prompt: bytes, made: list[bytes], count: int, room: int) -> bytes:
        """The body of the request that goes on. `prompt` and `made` are token ids as JSON writes them, with commas."""
        fields: Body = {key: self.body[key] for key in ("model", *_CARRIED) if self.body.get(key) is not None}
        minimum = self.body.get("min_tokens")
        if type(minimum) is int and minimum > count:
            fields["min_tokens"] = min(minimum - count, room)
        fields |= {"max_tokens": room, "stream": True, "stream_options": {"include_usage": True}}
        if self.keep_ids:
            fields["return_token_ids"] = True
        ids = b",".join([prompt, *made, ",".join(map(str, self.end)).encode()])
        return b"".join((dump(fields)[:-1], b',"prompt":[', ids, b"]}"))


@dataclass(frozen=True, slots=True)
class Overshoot:
    """How far beyond a budget a node may think that is trusted to hold it: a share of it, and tokens on top."""

    share: float = 0.05
    tokens: int = 16

    def limit(self, budget: int) -> int:
        return int(budget * (1 + self.share)) + self.tokens


SLACK = Overshoot()


def countable(body: Body) -> bool:
    """Whether a budget in `body` can be counted on the stream."""
    try:
        _check(body)
    except InvalidRequest:
        return False
    return True


def budget_terms(
    body: bytes, budget: int, max_tokens: int | None, capabilities: Capabilities, stream: bool
) -> BudgetTerms:
    """The terms for a chat `body` as a node got it."""
    return opening_request(parse_trusted(body), True, budget, max_tokens, capabilities, stream, False)[0]


def opening_request(
    body: Body, chat: bool, budget: int, max_tokens: int | None, capabilities: Capabilities, stream: bool, hide: bool
) -> tuple[BudgetTerms, Body]:
    """The terms for a chat or completions `body`, and the first request's body.

    `stream` is whether the client asked for one, `hide` whether it is to see no reasoning. Raises `InvalidRequest`
    for what cannot be counted at all.
    """
    _check(body)
    options = body.get("stream_options") or {}
    terms = BudgetTerms(
        budget=budget,
        body=body,
        chat=chat,
        start=capabilities.think_start,
        end=capabilities.think_end,
        exact=bool(capabilities.think_end) and not (chat and (_calls_tools(body) or _shows_pictures(body))),
        splits=capabilities.splits_reasoning if chat else False,
        shows_marker=body.get("skip_special_tokens") is False or bool(capabilities.marker_shown),
        hide=hide or body.get("include_reasoning") is False,
        keep_ids=bool(body.get("return_token_ids")),
        pass_usage=not stream or bool(options.get("include_usage")),
        early_usage=bool(options.get("include_usage") and options.get("continuous_usage_stats")),
        max_tokens=max_tokens,
        window=capabilities.window,
    )
    dropped = ("thinking_token_budget", "include_reasoning", "stream_options", "stream", "return_token_ids")
    first = {key: value for key, value in body.items() if key not in dropped}
    first |= {"stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True}
    if chat and budget == 0:
        first["chat_template_kwargs"] = {**(body.get("chat_template_kwargs") or {}), "enable_thinking": False}
    if terms.splits is False and chat:
        first.setdefault("skip_special_tokens", False)  # else the marker that ends thinking may not be in the text
    return terms, first


def _check(body: Body) -> None:
    """Refuse what would have to be counted or continued in several places at once, or written anew."""
    for field in _COUNTS:
        if body.get(field) not in (None, 1):
            raise _not_enforceable(field, "send 1")
    for field in _SWITCHES:
        if body.get(field) is not None and body[field] is not False:
            raise _not_enforceable(field, "leave it out")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) != 1 and not all(type(item) is int for item in prompt):
        raise _not_enforceable("prompt", "send one prompt a request")


def _not_enforceable(field: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(
        f"A thinking budget cannot be held together with the field {field!r}, since the node does not hold it by "
        f"itself: {remedy}, or send no budget.",
        param=field,
        code="thinking_budget_not_enforceable",
    )


def _calls_tools(body: Body) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") != "none"


def _shows_pictures(body: Body) -> bool:
    """Whether a message holds more than text: token ids alone could not carry it."""
    messages = body.get("messages")
    parts = [
        part
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    ]
    return any(isinstance(part, dict) and part.get("type") not in ("text", None) for part in parts)
