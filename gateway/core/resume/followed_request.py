"""The request whose answer a checkpoint follows, and the requests that continue that answer.

`/v1/completions` continues it from token ids: those of the prompt, which `/tokenize` renders again, and those of the
answer so far. The node is then in the state that the first one was in.
"""

from gateway.core.bodies import Body, parse_trusted
from gateway.core.budgets.continuation import CARRIED, tokenize_prompt
from gateway.core.dialects.stream_filter import FollowUpRequest
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump
from gateway.core.resume.stop_strings import StopStrings
from gateway.core.resume.tool_grammar import grammar_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GENERATING = (CHAT, COMPLETIONS)

_CONTINUED = (*(field for field in CARRIED if field != "stop"), "repetition_detection")
"""Stop strings are matched here, see `stop_strings`."""
_REPLACED = frozenset(
    {"add_special_tokens", "max_tokens", "min_tokens", "prompt", "stop", "stream_options", "truncate_prompt_tokens"}
)
"""Fields of a completions request that its continuation has another value of, or none."""

_USUAL_MAX_TOKENS = 16
"""vLLM's bound of a completions answer where the request has none."""


class FollowedRequest:
    """A request to a node: `path`, and `body` as it was sent."""

    __slots__ = ("_parsed", "body", "path")

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.body = body
        self._parsed: Body | None = None

    @property
    def chat(self) -> bool:
        return self.path == CHAT

    @property
    def generates(self) -> bool:
        """Whether its answer is text of the model's."""
        return self.path in GENERATING

    @property
    def parsed(self) -> Body:
        """The body, parsed when it is first asked for."""
        if self._parsed is None:
            self._parsed = parse_trusted(self.body)
        return self._parsed

    def forget_parsed(self) -> None:
        """Keep the bytes alone: parsed, a body takes ten times as much memory."""
        self._parsed = None

    def prompt_ids(self) -> bytes | None:
        """The ids of a prompt that is given as such, as JSON writes them; None for text and messages."""
        prompt = self.parsed.get("prompt")
        if type(prompt) is list and prompt and type(prompt[0]) is list:
            prompt = prompt[0]
        return ",".join(map(str, prompt)).encode() if type(prompt) is list and type(prompt[0]) is int else None

    def tokenize(self) -> FollowUpRequest:
        """The request for the ids of its prompt."""
        body = self.parsed
        if self.chat:
            return FollowUpRequest("/tokenize", dump(tokenize_prompt(body)))
        prompt = body.get("prompt")
        text = prompt[0] if type(prompt) is list and prompt else prompt
        if type(text) is not str:  # the ids are known: what is asked for is only that the node answers
            text = ""
        special = body.get("add_special_tokens") is not False
        return FollowUpRequest(
            "/tokenize", dump({"model": body.get("model"), "prompt": text, "add_special_tokens": special})
        )

    def detokenize(self, ids: bytes) -> FollowUpRequest:
        """The request for the text of `ids`, as JSON writes them."""
        return FollowUpRequest(
            "/detokenize", b"".join((dump({"model": self.parsed.get("model")})[:-1], b',"tokens":[', ids, b"]}"))
        )

    @property
    def stops(self) -> bool:
        """Whether stop strings end its answer."""
        return bool(_texts(self.parsed.get("stop")))

    def stop_strings(self) -> StopStrings | None:
        """Its stop strings, None where it has none."""
        stops = _texts(self.parsed.get("stop"))
        if not stops:
            return None
        minimum = self.parsed.get("min_tokens")
        included = self.parsed.get("include_stop_str_in_output") is True
        return StopStrings(stops, included, minimum if type(minimum) is int else 0)

    def max_tokens(self) -> int | None:
        """The most tokens of its whole answer; None: up to the node's window."""
        body = self.parsed
        bound = body.get("max_completion_tokens") if self.chat else None
        bound = body.get("max_tokens") if bound is None else bound
        return bound if bound is not None or self.chat else _USUAL_MAX_TOKENS

    def continuation(
        self, prompt: bytes, ids: bytes, made: int, room: int, special: bool, capabilities: Capabilities
    ) -> FollowUpRequest:
        """The request that continues the answer from its `made` tokens `ids`, for `room` more, on a node with these
        capabilities. `special`: a chat's special tokens are to be shown, such as the end of thinking."""
        body = self.parsed
        fields = self._fields(special)
        if body.get("thinking_token_budget") is not None and capabilities.native_budget is not False:
            fields["thinking_token_budget"] = body["thinking_token_budget"]
        minimum = body.get("min_tokens")
        if type(minimum) is int and minimum > made:
            fields["min_tokens"] = min(minimum - made, room)
        fields |= {"max_tokens": room, "stream": True, "stream_options": {"include_usage": True}}
        fields["return_token_ids"] = True
        every = prompt + b"," + ids if ids else prompt
        return FollowUpRequest(COMPLETIONS, b"".join((dump(fields)[:-1], b',"prompt":[', every, b"]}")))

    def _fields(self, special: bool) -> Body:
        """What the continuation has of the body as it is."""
        body = self.parsed
        skips = body.get("skip_special_tokens")
        if not self.chat:
            fields = {key: value for key, value in body.items() if key not in _REPLACED}
            return {**fields, "skip_special_tokens": True if skips is None else skips}
        fields = {key: body[key] for key in ("model", *_CONTINUED) if body.get(key) is not None}
        grammar = grammar_of(body)
        if grammar is not None:  # it goes before the body's own, as in chat
            fields.pop("response_format", None)
            fields["structured_outputs"] = grammar
        # Markers have to be seen where they are looked for; the node's own parsers need them, too.
        fields["skip_special_tokens"] = not (special or body.get("tools")) and skips is not False
        return fields


def _texts(stop: object) -> list[str]:
    texts = stop if isinstance(stop, list) else [stop]
    return [text for text in texts if isinstance(text, str) and text]
