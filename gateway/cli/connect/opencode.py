"""OpenCode: `~/.config/opencode/opencode.json`, a provider of Vercel's openai-compatible package."""

from uuid import uuid4

from gateway.cli.connect.client import Asked, Call, Client, ConfigFile, Configured, Machine, Target, at
from gateway.cli.connect.shapes import chat_body
from gateway.cli.connect.trees import merge

FILE = ".config/opencode/opencode.json"
OVER = ".config/opencode/opencode.jsonc"
PROVIDER = "fleetgate"


def _files(target: Target) -> tuple[ConfigFile, ...]:
    model: dict[str, object] = {
        "name": target.model,
        "reasoning": True,
        "tool_call": True,
        "interleaved": {"field": "reasoning_content"},
    }
    if target.context is not None:
        model["limit"] = {"context": target.context, "output": target.most_output}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "fleetgate",
        "options": {"baseURL": target.base, "apiKey": target.key},
        "models": {target.model: model},
    }
    chosen = f"{PROVIDER}/{target.model}"
    settings = {"provider": {PROVIDER: provider}, "model": chosen, "small_model": chosen}
    return (ConfigFile(FILE, "json", settings, {"$schema": "https://opencode.ai/config.json"}, OVER),)


def _configured(machine: Machine) -> Configured | None:
    tree = merge(machine.tree(FILE, "json"), machine.tree(OVER, "json"))
    provider, _, model = str(at(tree, "model") or "").partition("/")
    options = at(tree, "provider", provider, "options")
    if not isinstance(options, dict) or not options.get("baseURL"):
        return None
    key = machine.expand(options.get("apiKey"))
    return Configured(f"~/{FILE}", machine.expand(options["baseURL"]), key, model)


def _call(asked: Asked) -> Call:
    session = f"ses_{uuid4().hex[:26]}"
    headers = {
        "user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14",
        "x-session-affinity": session,
        "x-session-id": session,
    }
    return Call("/chat/completions", headers, {"max_tokens": asked.most_output, **chat_body(asked)})


OPENCODE = Client(
    name="opencode",
    title="OpenCode",
    dialect="chat",
    v1_in_base=True,
    files=_files,
    configured=_configured,
    call=_call,
    remarks=('The key can stay in the environment: "apiKey": "{env:NAME}".',),
)
