"""The public request formats."""

from gateway.core.dialects.base import Ask, Dialect
from gateway.core.dialects.chat import Chat, Completions
from gateway.core.dialects.compact import Compact
from gateway.core.dialects.error_shape import ErrorKind, ErrorShape
from gateway.core.dialects.input_tokens import InputTokens
from gateway.core.dialects.messages import CountTokens, Messages
from gateway.core.dialects.plain import Detokenize, Embeddings, Pooling, Rerank, Score, Tokenize
from gateway.core.dialects.responses import Responses, StoredResponses

DIALECTS: tuple[Dialect, ...] = (
    Chat(),
    Completions(),
    Responses(),
    Messages(),
    CountTokens(),
    Embeddings(),
    Tokenize(),
    Detokenize(),
    InputTokens(),
    Compact(),
    Rerank(),
    Score(),
    Pooling(),
)

__all__ = ["DIALECTS", "Ask", "Dialect", "ErrorKind", "ErrorShape", "StoredResponses"]
