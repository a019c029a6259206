"""Endpoints without streams and thinking: those of pooling models, and vLLM's tokenizer."""

from typing import ClassVar

from gateway.core.bodies import Body
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.chat import ChatFilter
from gateway.core.dialects.counts import check_prompts
from gateway.core.dialects.error_shape import ErrorShape
from gateway.core.dialects.openai import openai_error, openai_error_event
from gateway.core.dialects.stream_filter import StreamFilter


class Plain(Dialect):
    """A JSON object in, a JSON object out, errors in OpenAI's format."""

    def stream_filter(self, ask: Ask) -> StreamFilter:
        return ChatFilter(pass_usage=True)

    def error(self, shape: ErrorShape) -> bytes:
        return openai_error(shape)

    def error_event(self, shape: ErrorShape, number: int) -> bytes:
        return openai_error_event(shape)


class Embeddings(Plain):
    name = "embeddings"
    path = "/v1/embeddings"


class Rerank(Plain):
    """Documents in the order of their relevance to a query, in the format of Jina and Cohere."""

    name = "rerank"
    path = "/v1/rerank"
    also_at: ClassVar[tuple[str, ...]] = ("/rerank", "/v2/rerank")


class Score(Plain):
    """How much two texts, or each of several and one, have to do with each other."""

    name = "score"
    path = "/v1/score"
    also_at: ClassVar[tuple[str, ...]] = ("/score",)


class Pooling(Plain):
    """What the model's pooler makes of a prompt."""

    name = "pooling"
    path = "/pooling"


class Tokenize(Plain):
    name = "tokenize"
    takes_salt = False
    path = "/tokenize"
    computes = False


class Detokenize(Plain):
    name = "detokenize"
    takes_salt = False
    path = "/detokenize"
    computes = False

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        check_prompts(ask.body.get("tokens"), "tokens")
        return ask
