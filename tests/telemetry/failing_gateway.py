"""A gateway in which everything fails that can, holding secrets in its variables, messages and causes.

`python -m tests.telemetry.failing_gateway json` (or text) writes the log to stderr and ends.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import sys
import threading
from dataclasses import replace
from typing import Any, NoReturn

import httpx
import pydantic
from uvicorn import Server

from gateway.aio.inline_task import InlineTask
from gateway.app import build_app
from gateway.config.tree import Config
from gateway.core.bodies import Body
from gateway.core.dialects.chat import Chat
from gateway.core.errors import GatewayError
from gateway.server.gateway_app import GatewayApp
from gateway.server.process import listen, uvicorn_settings
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.logs import configure_logging
from tests.support.compiled import is_compiled
from tests.support.gateways import eventually, running_gateway
from tests.support.nodes import MODEL

SECRETS = {
    "client key": "sk-client-" + "k1" * 12,
    "prompt": "My diagnosis is melancholia, tell nobody",
    "response_secret": "response-secret-value-5150",
    "node api_key": "node-key-value-7331",
    "redis password": "redispassw0rd",
    "admin token": "admin-token-value-9000",
    "cache_salt": hashlib.sha256(b"salt").hexdigest(),
}
"""What must not be in a log, by what it is."""

PLACES = (
    *(() if is_compiled() else ("request_failed",)),
    "request_task_failed",
    "background_task_failed",
    "uncaught_thread_exception",
    "unraisable_exception",
    "uncaught_exception",
    "asgi_failed",
    "Exception in callback",
    "Exception in 'lifespan' protocol",
    "Task exception was never retrieved",
)
"""Events that have to be there: each stands for one way out of the process."""


def fail() -> NoReturn:
    """Raises an error that quotes every secret, caused by others; 900 calls hold them, too."""
    kept = dict(SECRETS)
    url = f"redis://user:{SECRETS['redis password']}@127.0.0.1:6379/0?token={SECRETS['admin token']}"
    inner = [httpx.InvalidURL(f"no URL: {SECRETS['node api_key']!r}"), OSError(SECRETS["response_secret"].encode())]
    group = ExceptionGroup(f"{url} {SECRETS['cache_salt']!r}", inner)
    try:
        _deeper(900, kept)
    except KeyError as error:
        group.__cause__ = ValueError(f"invalid: {json.dumps(SECRETS['prompt'])} of Bearer {SECRETS['client key']}")
        group.__cause__.__cause__ = error
    try:
        _Form.model_validate({"count": SECRETS["prompt"], SECRETS["client key"]: 1})
    except pydantic.ValidationError as error:
        error.__cause__ = group
        raise error from group
    raise AssertionError


class _Form(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    count: int


def _deeper(levels: int, kept: dict[str, str]) -> None:
    if levels == 0:
        raise KeyError(kept["prompt"], kept["client key"])
    body = {"prompt": [kept["prompt"]] * 40, "nested": {"key": kept}}
    _deeper(levels - 1, kept)
    assert body


def _failing_dialect() -> Chat:
    class FailingDialect(Chat):
        def read(self, raw: bytes, parsed: Body | None = None) -> NoReturn:
            fail()

    return FailingDialect()


class _Call:
    """A client's request, as far as a pipeline asks for it before it fails."""

    request_id = "req_1"
    status = 0
    headers = {b"authorization": f"Bearer {SECRETS['client key']}".encode()}  # noqa: RUF012
    address = "127.0.0.1"
    gone = False
    weighty = False

    async def read_body(self, owner: str) -> bytes:
        return json.dumps({"prompt": SECRETS["prompt"]}).encode()

    def fail(self, error: GatewayError) -> None:
        assert error.message


class _FailsAtItsEnd:
    def __del__(self) -> None:
        fail()


async def _later() -> None:
    fail()


def _config() -> dict[str, Any]:
    key = hashlib.sha256(SECRETS["client key"].encode()).hexdigest()
    return {
        "nodes": [{"url": "http://127.0.0.1:1", "api_key": SECRETS["node api_key"]}],
        "models": [{"name": MODEL}],
        "redis": {"url": f"redis://user:{SECRETS['redis password']}@127.0.0.1:1/0"},
        "admin": {"token": SECRETS["admin token"]},
        "response_secret": SECRETS["response_secret"],
        "tenants": [{"name": "a", "cache_salt": True, "keys": [{"sha256": key}]}],
    }


class _FailingMemory:
    @property
    def held(self) -> int:
        fail()


async def run() -> None:
    loop = asyncio.get_running_loop()
    settings = _config()
    async with running_gateway(ready=False, **settings) as gateway:
        app = gateway.app
        app.admin.add_api_route("/fail", fail, response_model=None)
        async with httpx.AsyncClient() as client:
            token = {"authorization": f"Bearer {SECRETS['admin token']}"}
            answer = await client.get(f"{gateway.admin_url}/fail", headers=token)
            assert answer.status_code == 500 and SECRETS["prompt"] not in answer.text
        if not is_compiled():  # a compiled pipeline takes no doubles
            await app.pipeline.answer(_Call(), _failing_dialect())  # type: ignore[arg-type]
        ended = asyncio.Event()
        InlineTask(_later(), loop, set(), ended.set).start()
        gauges = loop.create_task(replace(app._gauges, memory=_FailingMemory()).run())  # type: ignore[arg-type]
        loop.call_soon(fail)
        forgotten = loop.create_task(_later())
        await asyncio.sleep(0.1)
        del forgotten
        gauges.cancel()
        await eventually(ended.is_set)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    _FailsAtItsEnd()
    logging.getLogger("uvicorn.error").error("%s", SECRETS["client key"])
    await _start_that_fails(Config(**settings))


async def _start_that_fails(config: Config) -> None:
    """As uvicorn sees it: what a lifespan raises is logged by uvicorn itself."""
    app = GatewayApp(build_app(config), 1, lambda *_: fail())
    with listen("127.0.0.1", 0) as public:
        with contextlib.suppress(SystemExit):
            await Server(uvicorn_settings(config, app)).serve([public])


if __name__ == "__main__":
    configure_logging("json" if sys.argv[1] == "json" else "text", "info", LogStream())
    asyncio.run(run())
    fail()
