"""Continue: `~/.continue/config.yaml`, one more model in its list."""

from gateway.cli.connect.client import Asked, Call, Client, ConfigFile, Configured, Machine, Target, at
from gateway.cli.connect.shapes import chat_body

FILE = ".continue/config.yaml"
NAME = "fleetgate"


def _files(target: Target) -> tuple[ConfigFile, ...]:
    model: dict[str, object] = {
        "name": NAME,
        "provider": "openai",
        "model": target.model,
        "apiBase": target.base,
        "apiKey": target.key,
        "roles": ["chat", "edit", "apply"],
        "capabilities": ["tool_use"],
    }
    if target.context is not None:
        model["defaultCompletionOptions"] = {"contextLength": target.context}
    opening = {"name": "Local", "version": "1.0.0", "schema": "v1"}
    return (ConfigFile(FILE, "yaml", {"models": [model]}, opening),)


def _configured(machine: Machine) -> Configured | None:
    models = at(machine.tree(FILE, "yaml"), "models")
    listed = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    model = next((model for model in listed if model.get("name") == NAME), None)
    if model is None:
        return None
    key, base = machine.expand(model.get("apiKey")), machine.expand(model.get("apiBase"))
    return Configured(f"~/{FILE}", base, key, str(model.get("model") or ""))


def _call(asked: Asked) -> Call:
    return Call("/chat/completions", {"user-agent": "node-fetch"}, chat_body(asked, usage=False))


CONTINUE = Client(
    name="continue",
    title="Continue",
    dialect="chat",
    v1_in_base=True,
    files=_files,
    configured=_configured,
    call=_call,
    remarks=("Choose the model fleetgate in the list under Continue's chat.",),
)
