"""Bodies as agents send them, in each dialect: streamed, with a tool that the model may call."""

from typing import Any

from gateway.cli.connect.client import Asked

TOOL = "report_status"
QUESTION = f"Call the tool {TOOL} with the status ready. Then say in one sentence that you are ready."
SYSTEM = "You are an agent. Use tools where they help."
_ABOUT = "Report the status of this connection."
_SCHEMA = {
    "type": "object",
    "properties": {"status": {"type": "string", "description": "The word that was asked for."}},
    "required": ["status"],
    "additionalProperties": False,
}


def chat_body(asked: Asked, *, tools: bool = True, usage: bool = True) -> dict[str, Any]:
    """Chat, as OpenAI's SDKs and Vercel's AI SDK send it."""
    body: dict[str, Any] = {
        "model": asked.model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked.question}],
        "stream": True,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    if tools:
        function = {"name": TOOL, "description": _ABOUT, "parameters": _SCHEMA}
        body |= {"tools": [{"type": "function", "function": function}], "tool_choice": "auto"}
    return body


def messages_body(asked: Asked, session: str) -> dict[str, Any]:
    """Messages, as Claude Code sends them: adaptive thinking, an effort, system turns, the session in the metadata."""
    return {
        "model": asked.model,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": asked.question}]},
            {"role": "system", "content": [{"type": "text", "text": "# Environment\nPlatform: linux"}]},
        ],
        "system": [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": TOOL, "description": _ABOUT, "input_schema": _SCHEMA}],
        "metadata": {"user_id": f'{{"device_id":"check","account_uuid":"","session_id":"{session}"}}'},
        "max_tokens": asked.most_output,
        "thinking": {"type": "adaptive", "display": "updates"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }


def responses_body(asked: Asked, session: str) -> dict[str, Any]:
    """Responses, as Codex sends them: developer turns, a namespace of tools, a hosted tool, nothing stored."""
    tool = {"type": "function", "name": TOOL, "description": _ABOUT, "strict": False, "parameters": _SCHEMA}
    inner = {**tool, "name": "wait", "description": "Wait for another agent."}
    return {
        "model": asked.model,
        "input": [
            _item("developer", SYSTEM),
            _item("user", "<environment_context>\n  <shell>bash</shell>\n</environment_context>"),
            _item("user", asked.question),
        ],
        "tools": [tool, {"type": "namespace", "name": "agents", "description": "Other agents.", "tools": [inner]}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": session,
        "client_metadata": {"session_id": session},
    }


def _item(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
