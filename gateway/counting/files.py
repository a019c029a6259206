"""A tokenizer and its chat template, read from the files that stand beside a model's weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import structlog
from tokenizers import Tokenizer

from gateway.core.bodies import Body
from gateway.counting.counter import PromptCounter
from gateway.counting.template import ChatTemplate

log = structlog.get_logger("fleetgate.counting")


class UnusableTokenizer(Exception):
    """A file that cannot be used; the text names it."""


def load_counters(paths: Mapping[str, Path]) -> dict[str, PromptCounter]:
    """By model, for models and their tokenizers. One that cannot be used is told in the log, and done without."""
    counters = {}
    for model, path in paths.items():
        try:
            counters[model] = load_counter(model, path)
        except UnusableTokenizer as error:
            log.error("tokenizer_load_failed", model=model, reason=str(error))
    return counters


def load_counter(model: str, path: Path) -> PromptCounter:
    """The counter of the tokenizer at `path`: a folder as Hugging Face has them, or the `tokenizer.json` in one.

    Raises `UnusableTokenizer`. Where there is no chat template, only completions can be counted.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        tokenizer = Tokenizer.from_str(file.read_text())
    except OSError as error:
        raise UnusableTokenizer(f"{file} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - the library raises plain ones
        raise UnusableTokenizer(f"{file} is not a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(text: str, special: bool) -> int:
        """Only the batch call lets other threads run meanwhile."""
        return len(tokenizer.encode_batch_fast([text], add_special_tokens=special)[0])

    return PromptCounter(model, count, _renderer(file.parent))


def _renderer(folder: Path) -> Callable[[Body], str] | None:
    """What renders a chat: with a template of its own for requests with tools, where the model brings one."""
    config = _read_config(folder / "tokenizer_config.json")
    texts = _template_texts(folder, config.get("chat_template"))
    special = {name: token for name, value in config.items() if name.endswith("_token") and (token := _token(value))}
    try:
        templates = {name: ChatTemplate(text, special) for name, text in texts.items()}
    except jinja2.TemplateError as error:
        raise UnusableTokenizer(f"the chat template in {folder} is invalid: {error}") from None
    plain = templates.get("default")
    with_tools = templates.get("tool_use", plain)
    if plain is None or with_tools is None:
        return None
    return lambda chat: (plain if chat.get("tools") is None else with_tools).render(chat)


def _template_texts(folder: Path, configured: Any) -> dict[str, str]:
    """Templates by name; files go before what the config says."""
    texts: dict[str, str] = {}
    if isinstance(configured, str):
        texts["default"] = configured
    elif isinstance(configured, list):
        texts = {each["name"]: each["template"] for each in configured}
    files = [folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    for file in files:
        if file.is_file():
            texts["default" if file.name == "chat_template.jinja" else file.stem] = file.read_text()
    return texts


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UnusableTokenizer(f"{file} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UnusableTokenizer(f"{file} is not a JSON object")
    return config


def _token(value: Any) -> str | None:
    """A named token: a string, or an object with its text as `content`."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
