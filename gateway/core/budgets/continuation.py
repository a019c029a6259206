"""The requests that make an answer whose thinking budget the gateway holds.

The first request is the client's own, streamed and with token ids. At the budget `/v1/completions` continues the answer
from the token ids of the prompt, of the thinking so far, and of the marker that ends thinking: the state that the model
would be in had it ended thinking there by itself.
"""

from dataclasses import dataclass

from gateway.core.bodies import Body, parse_trusted
from gateway.core.budgets.transcript import TokenTranscript
from gateway.core.dialects.fields import optional
from gateway.core.errors import InvalidRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump
from gateway.core.reading.outline import Outline

END_TEXT, START_TEXT = "</think>", "<think>"

CARRIED = (
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
"""Fields that mean the same in chat and in completions, including those that only the gateway may set. A grammar begins
with the answer, so the continuation has it too."""

_RENDERED = (
    "add_generation_prompt",
    "add_special_tokens",
    "chat_template",
    "continue_final_message",
    "documents",
    "media_io_kwargs",
    "messages",
    "mm_processor_kwargs",
    "model",
    "tools",
)
"""Fields of a chat that say what its prompt is, and mean the same for `/tokenize`."""

_COUNTS = ("n", "best_of")
_SWITCHES = ("logprobs", "prompt_logprobs", "echo", "use_beam_search", "suffix")


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """How one budget is enforced.

    `budget`, `max_tokens`: tokens of the whole answer; `max_tokens` None: up to the node's `window`, also in tokens.
    `body`: the request, from which the continuation takes its fields. `start`, `end`: the markers' token ids.
    `exact`: the answer can be continued; else it ends at the budget with `length`.
    `splits`: the node splits reasoning from content; None: not known. `shows_marker`: raw text has the markers in it.
    `hide`: the client sees no reasoning. `keep_ids`, `pass_usage`: the client asked for token ids, for usage.
    `early_usage`: the first chunk tells the prompt's length.
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
        """Tokens left for the answer after `made`, the marker included; None where no bound is known."""
        if self.max_tokens is not None:
            return self.max_tokens - made
        return None if self.window is None else self.window - prompt - made

    def goes_on(self, transcript: TokenTranscript) -> int:
        """Tokens left for the answer where it goes on behind the thinking of `transcript`; 0 where it cannot."""
        room = self.room(transcript.prompt_tokens, transcript.made + len(self.end))
        return max(0, room or 0) if self.exact and transcript.complete else 0

    def continuation(self, prompt: bytes, made: list[bytes], count: int, room: int) -> bytes:
        """The body of the continuation. `prompt` and `made` are token ids as JSON writes them, with commas between."""
        fields: Body = {key: self.body[key] for key in ("model", *CARRIED) if self.body.get(key) is not None}
        minimum = self.body.get("min_tokens")
        if type(minimum) is int and minimum > count:
            fields["min_tokens"] = min(minimum - count, room)
        fields |= {"max_tokens": room, "stream": True, "stream_options": {"include_usage": True}}
        fields.setdefault("skip_special_tokens", True)  # as chat does; from 0.33 on a model may have it otherwise
        if self.keep_ids:
            fields["return_token_ids"] = True
        ids = b",".join([prompt, *made, ",".join(map(str, self.end)).encode()])
        return b"".join((dump(fields)[:-1], b',"prompt":[', ids, b"]}"))


@dataclass(frozen=True, slots=True)
class Overshoot:
    """How far beyond a budget a node may think that is trusted to hold it: a share of the budget, and tokens."""

    share: float = 0.05
    tokens: int = 16

    def limit(self, budget: int) -> int:
        """Tokens of thinking that are no overrun."""
        return int(budget * (1 + self.share)) + self.tokens


SLACK = Overshoot()


def countable(body: Body) -> bool:
    """Whether `body` asks for one answer that is the text of its tokens: they can be counted, and continued.
    That of an outline is not here to be continued."""
    if type(body) is Outline:
        return False
    try:
        _check(body)
    except InvalidRequest:
        return False
    return True


def budget_terms(
    body: bytes, budget: int, max_tokens: int | None, capabilities: Capabilities, stream: bool
) -> BudgetTerms:
    """The terms for a chat `body` that a node was sent."""
    return opening_request(parse_trusted(body), True, budget, max_tokens, capabilities, stream, False)[0]


def opening_request(
    body: Body, chat: bool, budget: int, max_tokens: int | None, capabilities: Capabilities, stream: bool, hide: bool
) -> tuple[BudgetTerms, Body]:
    """The terms for a chat or completions `body`, and the first request's body.

    `stream`: the client asked for a stream. `hide`: it sees no reasoning. Raises `InvalidRequest` where the thinking
    cannot be counted.
    """
    _check(body)
    options = body.get("stream_options") or {}
    terms = BudgetTerms(
        budget=budget,
        body=body,
        chat=chat,
        start=capabilities.think_start,
        end=capabilities.think_end,
        exact=bool(capabilities.think_end) and not (chat and (_calls_tools(body) or shows_pictures(body))),
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


def tokenize_prompt(body: Body) -> Body:
    """The body for /tokenize that renders the messages of the chat `body` as the node did. Raises `InvalidRequest`."""
    kwargs = dict(optional(body, "chat_template_kwargs", dict) or {})
    effort = body.get("reasoning_effort")
    if effort is not None:
        kwargs = {"reasoning_effort": effort, "enable_thinking": effort != "none", **kwargs}
    fields = {key: body[key] for key in _RENDERED if body.get(key) is not None}
    return {"add_generation_prompt": True, **fields, "chat_template_kwargs": kwargs}


def tokenize_text(body: Body, text: str) -> Body:
    """The body for /tokenize that tokenizes `text` for the model of `body`."""
    return {"model": body.get("model"), "prompt": text, "add_special_tokens": False}


def _check(body: Body) -> None:
    """Raises `InvalidRequest` for answers that would be counted or continued in several places at once."""
    for field in _COUNTS:
        if body.get(field) not in (None, 1):
            raise _not_enforceable(field, "send 1")
    for field in _SWITCHES:
        if body.get(field) is not None and body[field] is not False:
            raise _not_enforceable(field, "leave it out")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and type(prompt[0]) is not int:  # its items are of one kind
        raise _not_enforceable("prompt", "send one prompt a request")


def _not_enforceable(field: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(
        f"A thinking budget cannot be enforced together with the field {field!r}, since the node does not hold it by "
        f"itself: {remedy}, or send no budget.",
        param=field,
        code="thinking_budget_not_enforceable",
    )


def _calls_tools(body: Body) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") != "none"


def shows_pictures(body: Body, texts: tuple[str | None, ...] = ("text", None)) -> bool:
    """Whether a message holds more than text, which token ids cannot carry. `texts`: the types of parts that are."""
    messages = body.get("messages")
    for message in messages if type(messages) is list else ():
        content = message.get("content") if type(message) is dict else None
        for part in content if type(content) is list else ():
            if type(part) is dict and part.get("type") not in texts:
                return True
    return False
