"""The interface of a translation to chat."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.errors import BadUpstreamResponse, InvalidRequest
from gateway.core.json_text import dump, parse_object
from gateway.core.responses.kept_turn import KeptTurn

REASONING_FIELDS = ("reasoning", "reasoning_content")
"""The fields of a chat message's thinking: vLLM's, and its older name."""

NOT_CHAT = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)
"""Errors that reading an answer raises where it has not the form of chat's."""

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
"""Fields that change the prompt or the form of the answer in chat. They are left out, since nodes ignore them in other
dialects."""


class OverChat(ABC):
    """One request of another dialect as chat.

    `chat`: the body for `/v1/chat/completions`. `hide`: thinking is left out of the answer. `same_prompt`: the model
    sees the same prompt as by the dialect's own path. `loses_work`: a node may do something for the request in its own
    dialect that it does not do in chat, so that it is translated only where it has to be.
    """

    __slots__ = ("chat", "hide", "loses_work", "same_prompt")

    own_names: ClassVar[Mapping[str, str]] = {}
    """The client's names for fields of chat, for error messages."""

    def __init__(self, chat: Body) -> None:
        self.chat = chat
        self.hide = False
        self.same_prompt = True
        self.loses_work = False

    def keep(self, kept: KeptTurn | None, previous: str | None) -> KeptTurn | None:
        """Have the answer be that of `kept`, which it completes, and say that it goes on from the response `previous`.
        Returns `kept`; None where this dialect keeps nothing."""
        return None

    @abstractmethod
    def stream_filter(self) -> StreamFilter:
        """A new filter for a streamed answer: chat chunks in, the dialect's events out."""

    @abstractmethod
    def answer(self, chat: Mapping[str, Any]) -> Body:
        """The dialect's answer for a plain chat answer."""

    @abstractmethod
    def error(self, status: int, error: Mapping[str, Any]) -> Body:
        """The dialect's error for the `error` object of a node's error answer."""

    def in_own_words(self, error: InvalidRequest) -> InvalidRequest:
        """The error for a refusal of the chat, with the client's name for the field."""
        own = self.own_names.get(error.param or "")
        if own is not None:
            error.message = error.message.replace(repr(error.param), repr(own))
            error.param = own
        return error

    def plain(self, status: int, body: bytes) -> bytes:
        """The client's body for the node's; an error that is not in chat's format is passed on as it came.

        Raises `UpstreamError` for an answer that cannot be translated.
        """
        answer = parse_object(body)
        if status != 200:
            error = answer.get("error")
            return dump(self.error(status, error)) if isinstance(error, dict) else body
        try:
            if self.hide:
                for field in REASONING_FIELDS:
                    answer["choices"][0]["message"].pop(field, None)
            return dump(self.answer(answer))
        except NOT_CHAT:
            raise BadUpstreamResponse("The node's answer is not a chat completion.") from None


def pass_others(body: Body, understood: frozenset[str]) -> Body:
    """The fields of `body` that are sent unchanged: sampling, vLLM's extras, and unknown ones."""
    return {name: value for name, value in body.items() if name not in understood and name not in CHATS_OWN}


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """The thinking of a chat message or of a delta."""
    for field in REASONING_FIELDS:
        if message.get(field):
            return str(message[field])
    return None
