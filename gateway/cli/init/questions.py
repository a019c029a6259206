"""What `fleetgate init` asks, and how it reads the answers: those given as options are not asked for."""

import re
import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from gateway.cli.options import misused
from gateway.cli.terminal import tell
from gateway.config.expectations import expected_at
from gateway.config.limits import LimitSettings
from gateway.config.thinking import ThinkingConfig
from gateway.config.types import Name, node_url
from gateway.core.redis.url import read_redis_url
from gateway.core.setting_names import TreePath

Answer = TypeVar("Answer")

NODE_PORT = 8000
"""vLLM's own."""


def say(line: str) -> None:
    """Words for a person; what programs read is on the standard output."""
    tell(line, err=True)


class Questions:
    """A person at the terminal, or nobody (`asks` is False): then every question has its default as an answer."""

    def __init__(self, asks: bool) -> None:
        self.asks = asks

    def value(
        self, option: str, given: str | None, question: str, default: str, read: Callable[[str], Answer]
    ) -> Answer:
        """`given` as it is read, else the answer to `question`. A wrong one ends the command with 2, or has it asked
        again."""
        if given is not None or not self.asks:
            try:
                return read(default if given is None else given)
            except ValueError as error:
                raise misused(f"{option}: {error}") from None

        hint = f" [{default}]" if default else ""
        while True:
            try:
                return read(_answer(f"{question}{hint}: ") or default)
            except ValueError as error:
                say(f"Error: {error}")

    def choice(self, given: bool | None, question: str, default: bool) -> bool:
        """Yes or no."""
        if given is not None or not self.asks:
            return default if given is None else given
        while True:
            answer = _answer(f"{question} [{'Y/n' if default else 'y/N'}]: ").lower()
            if answer in ("", "y", "yes", "n", "no"):
                return answer.startswith("y") if answer else default
            say("Error: answer y or n")


def _answer(prompt: str) -> str:
    """A line from the terminal. Raises EOFError at its end. Nothing of it is for the standard output, where `input` and
    what is made of it would write."""
    tell(prompt, err=True, nl=False)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def read_node_url(text: str) -> str:
    """The node's URL, with what people leave out or write too much: the scheme, vLLM's port, a path of its API."""
    url = re.sub(r"/v1(/.*)?$", "", text.rstrip("/"))
    if "://" not in url:
        host = url if re.search(r":[0-9]+$", url) else f"{url}:{NODE_PORT}"
        url = f"http://{host}"
    return node_url(url)


def read_tenant(text: str) -> str | None:
    """A tenant's name; `-` is none."""
    if text == "-":
        return None
    try:
        return str(TypeAdapter(Name).validate_python(text))
    except ValidationError:
        raise ValueError("a tenant's name begins with a letter or digit, then may have . _ / @ : - as well") from None


def limit_reader(name: str) -> Callable[[str], int | None]:
    """Reads a limit; empty is none."""

    def read(text: str) -> int | None:
        number = _whole(text)
        _check(("limits", "default", name), lambda: LimitSettings.model_validate({name: number}))
        return number

    return read


def read_budget(text: str) -> int | None:
    """The most tokens of thinking; empty is no limit."""
    number = _whole(text)
    _check(("thinking", "max_budget"), lambda: ThinkingConfig(max_budget=number))
    return number


def read_redis(text: str) -> str | None:
    """The URL of a Redis; empty is none."""
    if text:
        read_redis_url(text)
    return text or None


def _whole(text: str) -> int | None:
    if not text:
        return None
    digits = text.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!a} is no whole number")
    return int(digits)


def _check(path: TreePath, make: Callable[[], object]) -> None:
    """Raises ValueError with what is expected of the setting at `path`."""
    try:
        make()
    except ValidationError as error:
        raise ValueError(expected_at(path, dict(error.errors(include_url=False)[0]))) from None
