"""A chat template as Hugging Face's tokenizers render it: Jinja in a sandbox, with their filters and functions."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from gateway.core.bodies import Body
from gateway.counting.conversation import conversation_of


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what a model wrote, for training; the text in it is what counts here."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own interface

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class ChatTemplate:
    """One template, compiled. `special` are the tokenizer's named tokens (`bos_token` and so on)."""

    def __init__(self, text: str, special: Mapping[str, str]) -> None:
        """Raises `jinja2.TemplateError` where `text` is no template."""
        environment = _environment()
        self._template = environment.from_string(text)
        self._in_parts = _loops_over_content(environment.parse(text))
        self._knows_developers = "'developer'" in text or '"developer"' in text
        self._special = special

    def render(self, chat: Body) -> str:
        """The prompt of a chat request's body. Raises `NotCountable`, or whatever the template does."""
        messages, tools, arguments = conversation_of(chat, self._in_parts)
        if not self._knows_developers and any(message["role"] == "developer" for message in messages):
            messages = _with_one_system(messages)
        return self._template.render({**self._special, **arguments, "messages": messages, "tools": tools})


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own escapes what is dangerous in HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _loops_over_content(template: jinja2.nodes.Template) -> bool:
    """Whether a template goes through a message's content part by part: then vLLM gives it lists, else strings."""
    return any(_is_content(loop.iter) for loop in template.find_all(jinja2.nodes.For))


def _is_content(node: jinja2.nodes.Node | None) -> bool:
    match node:
        case jinja2.nodes.Filter() | jinja2.nodes.Test():
            return _is_content(node.node)
        case jinja2.nodes.Getitem(arg=jinja2.nodes.Slice()):
            return _is_content(node.node)
        case jinja2.nodes.Getitem(arg=jinja2.nodes.Const(value="content")) | jinja2.nodes.Getattr(attr="content"):
            return True
        case jinja2.nodes.Name(name="content"):
            return True
    return False


def _with_one_system(messages: list[Body]) -> list[Body]:
    """Developers' messages as system's, and all of those as one in front, for a template that knows no developer."""
    instructions = [message for message in messages if message["role"] in ("system", "developer")]
    if len(instructions) == 1 and messages[0] is instructions[0]:
        return [{"role": "system", "content": instructions[0]["content"]}, *messages[1:]]
    texts = [_joined(message["content"]) for message in instructions]
    system = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [system, *(message for message in messages if message["role"] not in ("system", "developer"))]


def _joined(content: str | list[Body]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
