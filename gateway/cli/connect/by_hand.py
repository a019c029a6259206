"""Clients whose settings lie where no other program should write: in an editor's own store, in a container's start."""

from gateway.cli.connect.client import Asked, Call, Client, Configured, Machine, Target
from gateway.cli.connect.shapes import chat_body


def _cline(target: Target) -> str:
    window = "" if target.context is None else f"Context Window Size: {target.context}\n"
    return (
        "In Cline's settings, for Plan and Act mode:\n\n"
        f"API Provider:        OpenAI Compatible\nBase URL:            {target.base}\n"
        f"OpenAI-Compatible API Key: {target.key}\nModel ID:            {target.model}\n{window}"
        "\nUnder Model Configuration, switch Supports Images off."
    )


def _openwebui(target: Target) -> str:
    return (
        "In the environment that Open WebUI is started with (docker run --env, or environment: in a compose file):\n\n"
        f"OPENAI_API_BASE_URL={target.base}\nOPENAI_API_KEY={target.key}\n"
        f"DEFAULT_MODELS={target.model}\nENABLE_OLLAMA_API=false\n\n"
        "Once it has stored settings of its own these are read no more: then Admin Panel, Settings, Connections."
    )


def _in_environment(machine: Machine) -> Configured | None:
    base = machine.first("OPENAI_API_BASE_URL")
    key, model = machine.first("OPENAI_API_KEY"), machine.first("DEFAULT_MODELS").split(",")[0]
    return Configured("the environment", base, key, model) if base else None


def _cline_call(asked: Asked) -> Call:
    return Call("/chat/completions", {"user-agent": "OpenAI/JS 5.12.2"}, chat_body(asked))


def _openwebui_call(asked: Asked) -> Call:
    body = chat_body(asked, tools=False, usage=False)
    return Call("/chat/completions", {"user-agent": "Python/3.11 aiohttp/3.13.2"}, body)


CLINE = Client(
    name="cline",
    title="Cline",
    dialect="chat",
    v1_in_base=True,
    files=lambda target: (),
    configured=lambda machine: None,
    call=_cline_call,
    by_hand=_cline,
)
OPENWEBUI = Client(
    name="openwebui",
    title="Open WebUI",
    dialect="chat",
    v1_in_base=True,
    files=lambda target: (),
    configured=_in_environment,
    call=_openwebui_call,
    by_hand=_openwebui,
)
