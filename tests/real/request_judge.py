"""Run by vLLM's own Python: reads what vLLM's request classes say of bodies.

stdin: [[path, body], ...]. stdout, last line: the fields that each class declares, and for each body what is wrong with
it, or null.
"""

import json
import sys
from importlib import import_module
from typing import Any

_ENTRYPOINTS = "vllm.entrypoints"
CLASSES = {
    "/v1/chat/completions": ("openai.chat_completion", "ChatCompletionRequest"),
    "/v1/completions": ("openai.completion", "CompletionRequest"),
    "/v1/responses": ("openai.responses", "ResponsesRequest"),
    "/v1/messages": ("anthropic", "AnthropicMessagesRequest"),
    "/v1/messages/count_tokens": ("anthropic", "AnthropicCountTokensRequest"),
    "/v1/embeddings": ("pooling.embed", "EmbeddingCompletionRequest"),
}


def fault_of(kind: Any, body: dict[str, Any]) -> str | None:
    try:
        kind.model_validate(body)
    except Exception as error:  # noqa: BLE001 -- vLLM's checks raise whatever their code raises: 400 or 500
        return f"{type(error).__name__}: {error}"[:600]
    return None


if __name__ == "__main__":
    kinds: dict[str, Any] = {
        path: getattr(import_module(f"{_ENTRYPOINTS}.{module}.protocol"), name)
        for path, (module, name) in CLASSES.items()
    }
    declared = {path: sorted(kind.model_fields) for path, kind in kinds.items()}
    faults = [fault_of(kinds[path], body) for path, body in json.load(sys.stdin)]
    print(json.dumps({"declared": declared, "faults": faults}))
