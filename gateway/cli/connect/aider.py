"""aider: `~/.aider.conf.yml`, and what it does not know of the model in two files beside it."""

from gateway.cli.connect.client import Asked, Call, Client, ConfigFile, Configured, Machine, Target, at
from gateway.cli.connect.shapes import chat_body

FILE = ".aider.conf.yml"
_PREFIX = "openai/"


def _files(target: Target) -> tuple[ConfigFile, ...]:
    name = f"{_PREFIX}{target.model}"
    conf = {
        "model": name,
        "weak-model": name,
        "openai-api-base": target.base,
        "openai-api-key": target.key,
        "show-model-warnings": False,
    }
    model = {"name": name, "edit_format": "diff", "use_repo_map": True, "use_temperature": False}
    files = [ConfigFile(FILE, "yaml", conf), ConfigFile(".aider.model.settings.yml", "yaml", [model])]
    if target.context is not None:
        size = {"max_input_tokens": target.context, "max_tokens": target.context, "mode": "chat"}
        files.append(ConfigFile(".aider.model.metadata.json", "json", {name: {**size, "litellm_provider": "openai"}}))
    return tuple(files)


def _configured(machine: Machine) -> Configured | None:
    tree = machine.tree(FILE, "yaml")
    base = at(tree, "openai-api-base") or machine.first("AIDER_OPENAI_API_BASE", "OPENAI_API_BASE")
    if not base:
        return None
    key = at(tree, "openai-api-key") or machine.first("AIDER_OPENAI_API_KEY", "OPENAI_API_KEY")
    model = at(tree, "model") or machine.first("AIDER_MODEL")
    return Configured(f"~/{FILE} and the environment", str(base), str(key), str(model).removeprefix(_PREFIX))


def _call(asked: Asked) -> Call:
    body = chat_body(asked, tools=False, usage=False)
    return Call("/chat/completions", {"user-agent": "OpenAI/Python 2.20.0", "x-stainless-retry-count": "0"}, body)


AIDER = Client(
    name="aider",
    title="aider",
    dialect="chat",
    v1_in_base=True,
    files=_files,
    configured=_configured,
    call=_call,
    remarks=("aider 0.86 shows the model's thinking with --no-stream only.",),
)
