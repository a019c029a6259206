"""What a vLLM 0.32 node answers, as assertions that hold on a real one and on the fake one.

Each function is one promise; `PROMISES` lists them all. They know nothing of the model but that it thinks and answers.
"""

from collections.abc import Awaitable, Callable

from tests.contract import begun, chat, completions, dialects, errors, node
from tests.contract.client import NodeClient

Promise = Callable[[NodeClient], Awaitable[None]]
PROMISES: tuple[Promise, ...] = (
    chat.chat_plain,
    chat.chat_stream,
    chat.chat_stream_usage,
    chat.chat_running_usage,
    chat.chat_token_ids,
    chat.budgets,
    chat.no_thinking,
    chat.lengths,
    chat.stop_strings,
    chat.several_choices,
    chat.logprobs,
    chat.tools,
    chat.json_schema,
    completions.completions_plain,
    completions.completions_stream,
    completions.resume,
    dialects.messages_plain,
    dialects.messages_stream,
    dialects.responses_plain,
    dialects.responses_stream,
    dialects.unknown_response,
    node.small_endpoints,
    node.metrics,
    node.prefix_cache,
    node.client_leaves,
    begun.beam_search,
    begun.beam_stream,
    begun.no_generation_prompt,
    begun.begun_answer,
    begun.begun_thought,
    begun.begun_response,
    begun.closed_answer,
    errors.errors,
    errors.more_errors,
)
