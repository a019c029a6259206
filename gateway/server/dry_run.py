"""The dry run: makes everything of a configuration that `fleetgate serve` makes, except processes and open ports.

`fleetgate check` does it, and `fleetgate serve` does it first, so that the two agree. It connects to nothing, logs
nothing and leaves nothing behind.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from gateway.app import build_app
from gateway.config.document import ConfigProblem, spell
from gateway.config.source import place_of
from gateway.config.tree import Config
from gateway.core.setting_names import TreePath
from gateway.server.process import ListenError, listen, uvicorn_settings
from gateway.wiring import parts

_Found = tuple[TreePath, str]


def find_problems(config: Config, file: Path | None, overrides: Mapping[str, Any] | None = None) -> list[ConfigProblem]:
    """The problems that keep a gateway from being made of `config`, in which `load_config` found none. `file`: where it
    was read; None where there is no file. `overrides`: those of the command line."""
    found = [*_hosts(config), *_tokenizers(config)] or list(_gateway(config))
    return [ConfigProblem(place_of(file, path, overrides), spell(path), expected) for path, expected in found]


def _hosts(config: Config) -> Iterator[_Found]:
    """Hosts that cannot be listened on. Ports are not tried: the gateway that will reload this file may use them."""
    for section, host in (("listen", config.listen.host), ("admin", config.admin.host)):
        try:
            listen(host, 0).close()
        except ListenError as error:
            yield (section, "host"), f"this machine cannot listen on {host}: {error.reason}"


def _tokenizers(config: Config) -> Iterator[_Found]:
    for index, model in enumerate(config.models):
        if model.tokenizer is not None:
            from gateway.counting.files import UnusableTokenizer, load_counter  # an optional extra

            try:
                load_counter(model.name, model.tokenizer)
            except UnusableTokenizer as error:
                yield ("models", index, "tokenizer"), str(error)


def _gateway(config: Config) -> Iterator[_Found]:
    """Any other error. Its text may quote a secret, so only its type is shown."""
    untokenized = tuple(model.model_copy(update={"tokenizer": None}) for model in config.models)  # loaded before
    try:
        with silence():
            build_app(config.model_copy(update={"models": untokenized}))
            parts.tls(config.listen.tls)
            uvicorn_settings(config)
    except Exception as error:  # noqa: BLE001 - `serve` would fail with any of them
        yield (), f"building the gateway from it failed ({type(error).__name__}): please report this, with the file"


@contextmanager
def silence() -> Iterator[None]:
    """Log nothing: no gateway runs yet."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()
