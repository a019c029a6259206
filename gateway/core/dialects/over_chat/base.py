"""What every translation to chat has: a body for the node, and ways back for all that the node may answer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import BadUpstreamResponse, InvalidRequest
from gateway.core.json_text import dump, parse_object

REASONING_FIELDS = ("reasoning", "reasoning_content")
"""Where a chat message has its thinking: under vLLM's name, or its older one."""

NOT_CHAT = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""What reading an answer raises that has not the form of chat's: a node may send anything."""

CHATS_OWN = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "documents",
        "echo",
        "function_call",
        "functions",
        "logprob_token_ids",
        "logprobs",
        "max_completion_tokens",
        "modalities",
        "n",
        "prompt_logprobs",
        "response_format",
        "return_prompt_text",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "structured_outputs",
        "top_logprobs",
        "use_beam_search",
    }
)
"""Fields with which chat changes its prompt or the form of its answer. In another dialect a node takes no notice of
them, so they are left out."""


class OverChat(ABC):
    """One request of another dialect as chat.

    `chat` is the body for `/v1/chat/completions`; `hide` takes the thinking out of what comes back. `same_prompt` is
    False where the model is shown another prompt than by the dialect's own route.
    """

    __slots__ = ("chat", "hide", "same_prompt")

    own_names: ClassVar[Mapping[str, str]] = {}
    """What the client called a field that a complaint calls by chat's name."""

    def __init__(self, chat: Body) -> None:
        self.chat = chat
        self.hide = False
        self.same_prompt = True

    @abstractmethod
    def stream_filter(self) -> StreamFilter:
        """A fresh translator for a streamed answer: chat chunks in, the dialect's events out."""

    @abstractmethod
    def answer(self, chat: Mapping[str, Any]) -> Body:
        """The dialect's answer for a plain chat answer."""

    @abstractmethod
    def error(self, status: int, error: Mapping[str, Any]) -> Body:
        """The dialect's error for the `error` object of a node's error answer."""

    def in_own_words(self, error: InvalidRequest) -> InvalidRequest:
        """A refusal of the chat, with the client's name for the field."""
        own = self.own_names.get(error.param or "")
        if own is not None:
            error.message = error.message.replace(repr(error.param), repr(own))
            error.param = own
        return error

    def plain(self, status: int, body: bytes) -> bytes:
        """The client's body for the node's; an error that is not in chat's format passes as it came.

        Raises `UpstreamError` for an answer that cannot be told.
        """
        told = parse_object(body)
        if status != 200:
            error = told.get("error")
            return dump(self.error(status, error)) if isinstance(error, dict) else body
        try:
            if self.hide:
                for field in REASONING_FIELDS:
                    told["choices"][0]["message"].pop(field, None)
            return dump(self.answer(told))
        except NOT_CHAT:
            raise BadUpstreamResponse("The node's answer is not a chat completion.") from None


def pass_others(body: Body, understood: frozenset[str]) -> Body:
    """The fields of `body` that go to the node as they are: sampling, vLLM's extras, and what nobody here knows."""
    return {name: value for name, value in body.items() if name not in understood and name not in CHATS_OWN}


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """The thinking of a chat message, or a delta's piece of it."""
    for field in REASONING_FIELDS:
        if message.get(field):
            return str(message[field])
    return None
