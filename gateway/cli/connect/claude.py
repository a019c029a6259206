"""Claude Code: `~/.claude/settings.json`, whose `env` goes over the shell's environment."""

from typing import Any
from uuid import uuid4

from gateway.cli.connect.client import Asked, Call, Client, ConfigFile, Configured, Machine, Target, at
from gateway.cli.connect.shapes import messages_body

FILE = ".claude/settings.json"
_MODELS = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
)


def _files(target: Target) -> tuple[ConfigFile, ...]:
    env = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_AUTH_TOKEN": target.key,
        **dict.fromkeys(_MODELS, target.model),
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    if target.context is not None:
        env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(target.context)
        env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(target.most_output)
    return (ConfigFile(FILE, "json", {"env": env}),)


def _configured(machine: Machine) -> Configured | None:
    settings = at(machine.tree(FILE, "json"), "env")
    env: dict[str, Any] = {**machine.environment, **(settings if isinstance(settings, dict) else {})}
    base = str(env.get("ANTHROPIC_BASE_URL") or "")
    if not base:
        return None
    key = env.get("ANTHROPIC_AUTH_TOKEN") or env.get("ANTHROPIC_API_KEY") or ""
    return Configured(f"~/{FILE} and the environment", base, str(key), str(env.get("ANTHROPIC_MODEL") or ""))


def _call(asked: Asked) -> Call:
    session = str(uuid4())
    headers = {
        "user-agent": "claude-cli/2.1.332 (external, sdk-cli)",
        "x-app": "cli",
        "x-claude-code-session-id": session,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
        "effort-2025-11-24",
    }
    return Call("/v1/messages?beta=true", headers, messages_body(asked, session))


CLAUDE = Client(
    name="claude",
    title="Claude Code",
    dialect="messages",
    v1_in_base=False,
    files=_files,
    configured=_configured,
    call=_call,
    remarks=(
        "WebSearch is a tool of Anthropic's servers and fails here: deny it in permissions, or use an MCP server.",
        "In a shell instead: export each line of env.",
    ),
)
