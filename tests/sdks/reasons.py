"""Why a request that a provider would take may be refused here: the rows of docs/fields.md, each with its values."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.sdks.drawing import Body
from tests.sdks.sending import Outcome

_OWN_ITEMS = frozenset(
    {
        *("apply_patch_call", "apply_patch_call_output", "compaction_trigger", "computer_call", "computer_call_output"),
        *("configuration_update", "item_reference", "local_shell_call", "local_shell_call_output", "program"),
        *("program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output", None),
    }
)
"""Items of a provider's own tools; a reference may have no type."""

_READ_BLOCKS = frozenset(
    {"text", "image", "thinking", "redacted_thinking", "tool_use", "tool_result", "tool_reference"}
)


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else None


REASONS: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("/v1/chat/completions", "tools.N.type"): lambda value: value == "custom",
    ("/v1/chat/completions", "tool_choice"): lambda value: _kind(value) in ("allowed_tools", "custom"),
    ("/v1/responses", "background"): lambda value: value is True,
    ("/v1/responses", "prompt"): lambda value: value is not None,
    ("/v1/responses", "input.N.type"): lambda value: value in _OWN_ITEMS,
    ("/v1/responses", "input.N.encrypted_content"): bool,
    ("/v1/responses", "input.N.content.N.type"): lambda value: value == "input_file",
    ("/v1/responses", "input.N.content.N.file_id"): lambda value: value is not None,
    ("/v1/responses", "input.N.output.N.type"): lambda value: value == "input_file",
    ("/v1/responses", "input.N.output.N.file_id"): lambda value: value is not None,
    ("/v1/messages", "tools.N.input_schema"): lambda value: value is None,
    ("/v1/messages", "messages.N.content.N.type"): lambda value: value not in _READ_BLOCKS,
    ("/v1/messages/count_tokens", "tools.N.input_schema"): lambda value: value is None,
    ("/v1/messages/count_tokens", "messages.N.content.N.type"): lambda value: value not in _READ_BLOCKS,
}


def unexplained(outcome: Outcome) -> str | None:
    """What is wrong with an answer; None where nothing is, or it was refused for one of the reasons."""
    if outcome.status == 200:
        return None
    said = f"{outcome.call.method} {outcome.number}: {outcome.status} {outcome.error}"
    if outcome.status != 400:
        return said
    named = outcome.error.get("param") or re.findall(r"'([\w.]+)'", outcome.error["message"])[0]
    about = REASONS.get((outcome.call.path, re.sub(r"\b\d+\b", "N", named)))
    if about is None or not about(_at(outcome.sent, named)):
        return said
    return None


def reasons_in(path: str, body: Body) -> list[str]:
    """The fields of a body whose values are such a reason."""
    given = dict(_leaves(body, ""))
    return [
        field
        for (endpoint, field), about in REASONS.items()
        if endpoint == path
        for name, value in given.items()
        if re.sub(r"\b\d+\b", "N", name) == field and about(value)
    ]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every member of a value with its path; what a tool or an item has no type or no schema for is None."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        where = f"{path}.{name}" if path else str(name)
        yield where, inner
        yield from _leaves(inner, where)
        if isinstance(inner, dict):
            yield from ((f"{where}.{absent}", None) for absent in ("input_schema", "type") if absent not in inner)


def _at(body: Body, path: str) -> Any:
    """The value at a path, None where there is none."""
    value: Any = body
    for step in path.split("."):
        inner = dict(enumerate(value)) if isinstance(value, list) else value if isinstance(value, dict) else {}
        value = inner.get(int(step) if isinstance(value, list) else step)
    return value
