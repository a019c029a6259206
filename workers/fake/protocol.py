"""The request bodies that the node reads, with the fields and types of vLLM; unknown fields are ignored in silence.

Pydantic makes the words of type errors, so that they are vLLM's own.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
TokenIds = list[Annotated[int, Field(ge=0)]]


class Body(BaseModel):
    """A body that keeps unknown fields out of the way."""

    model_config = ConfigDict(extra="ignore")
    model: str | None = None


class StreamOptions(BaseModel):
    """`stream_options`; usage in every event only together with the usage event."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class JsonSchema(BaseModel):
    """The schema of a `json_schema` response format."""

    name: str
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(BaseModel):
    """`response_format` of chat."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Generation(Body):
    """What chat and completions share."""

    n: int | None = 1
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    use_beam_search: bool = False
    skip_special_tokens: bool | None = True
    thinking_token_budget: Any = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    cache_salt: str | None = None
    request_id: str | None = None
    priority: int = 0


class Function(BaseModel):
    """A tool's function."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool as chat has it."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(BaseModel):
    """The function that a named tool choice names."""

    name: str


class NamedChoice(BaseModel):
    """A tool choice that names its function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatBody(Generation):
    """`/v1/chat/completions`."""

    messages: list[dict[str, Any]]
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = "none"
    parallel_tool_calls: bool | None = True
    reasoning_effort: Effort | None = None
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(Generation):
    """`/v1/completions`."""

    prompt: TokenIds | list[TokenIds] | str | list[str] | None = None
    max_tokens: int | None = 16
    echo: bool | None = False
    logprobs: int | None = None


class TokenizePrompt(Body):
    """`/tokenize` of a text."""

    prompt: str


class TokenizeChat(Body):
    """`/tokenize` of a conversation."""

    messages: list[dict[str, Any]]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Tool] | None = None


class Detokenize(Body):
    """`/detokenize`."""

    tokens: TokenIds
