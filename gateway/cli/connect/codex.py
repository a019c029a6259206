"""Codex: `~/.codex/config.toml`, a provider of its own that speaks responses."""

from uuid import uuid4

from gateway.cli.connect.client import Asked, Call, Client, ConfigFile, Configured, Machine, Target, at
from gateway.cli.connect.shapes import responses_body

FILE = ".codex/config.toml"
PROVIDER = "fleetgate"


def _files(target: Target) -> tuple[ConfigFile, ...]:
    settings: dict[str, object] = {"model": target.model, "model_provider": PROVIDER}
    if target.context is not None:
        settings["model_context_window"] = target.context
    settings |= {"show_raw_agent_reasoning": True, "web_search": "disabled"}
    provider = {
        "name": "fleetgate",
        "base_url": target.base,
        "wire_api": "responses",
        "experimental_bearer_token": target.key,
    }
    return (ConfigFile(FILE, "toml", {**settings, "model_providers": {PROVIDER: provider}}),)


def _configured(machine: Machine) -> Configured | None:
    tree = machine.tree(FILE, "toml")
    name = at(tree, "model_provider")
    provider = at(tree, "model_providers", name) if isinstance(name, str) else None
    if not isinstance(provider, dict) or not provider.get("base_url"):
        return None
    key = provider.get("experimental_bearer_token") or machine.first(str(provider.get("env_key") or ""))
    return Configured(f"~/{FILE}", str(provider["base_url"]), str(key), str(tree.get("model") or ""))


def _call(asked: Asked) -> Call:
    session = str(uuid4())
    headers = {
        "user-agent": "codex_exec/0.171.0 (Debian 12.0.0; x86_64) unknown (codex_exec; 0.171.0)",
        "accept": "text/event-stream",
        "originator": "codex_exec",
        "session-id": session,
        "thread-id": session,
    }
    return Call("/responses", headers, responses_body(asked, session))


CODEX = Client(
    name="codex",
    title="Codex",
    dialect="responses",
    v1_in_base=True,
    files=_files,
    configured=_configured,
    call=_call,
    remarks=(
        'The key can stay in the environment: env_key = "NAME" in place of experimental_bearer_token.',
        "Codex warns that it has no metadata of the model; it works without.",
    ),
)
