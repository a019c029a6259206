"""The command line's way to a running gateway: its admin listener, over HTTP."""

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import quote

import httpx

Say = Callable[[str], None]

PATIENCE = 120.0
"""Seconds between two pieces of a long answer."""


class AdminClientError(Exception):
    """The gateway did not do it; the message says why and what to do."""


class AdminClient:
    """One gateway's admin routes."""

    def __init__(self, url: str, token: str | None = None, ca_file: str | None = None) -> None:
        """`url` of the admin listener; `token` where it asks for one."""
        self._url = url.rstrip("/")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise AdminClientError(
                "the admin token has characters other than printable ASCII: it was cut off, or has extra characters"
            )
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            trust = ssl.create_default_context(cafile=ca_file) if ca_file is not None else True
            self._client = httpx.Client(base_url=self._url, headers=headers, timeout=10, trust_env=False, verify=trust)
        except (httpx.InvalidURL, UnicodeError, OSError) as error:
            raise AdminClientError(f"{url} cannot be used: {error}") from None

    def __enter__(self) -> Self:
        """Usable as a context: closes its connection."""
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """`query`: a list is given once for each, None not at all."""
        return self.ask("GET", path, None, **query)

    def post(self, path: str, body: object = None) -> Any:
        return self.ask("POST", path, body)

    def pages(self, path: str, **query: Any) -> Iterator[bytes]:
        """The bytes of a long answer, as they come."""
        given = {name: value for name, value in query.items() if value is not None}
        try:
            with self._client.stream("GET", path, params=given, timeout=PATIENCE) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    self._check(answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise AdminClientError(f"{self._url} did not finish its answer ({error})") from None

    def ask(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        try:
            answer = self._client.request(method, path, json=body, params=given)
        except (httpx.InvalidURL, ValueError, TypeError) as error:  # half a character, NaN: what no request can carry
            raise AdminClientError(f"cannot send the request: {error!s:.200}") from None
        except httpx.HTTPError as error:
            hint = "set --admin to its admin listener"
            raise AdminClientError(f"no gateway answers on {self._url} ({error}): {hint}") from None
        self._check(answer)
        try:
            return answer.json()
        except ValueError:
            raise AdminClientError(f"{self._url} is not a gateway's admin listener: set --admin") from None

    @staticmethod
    def _check(answer: httpx.Response) -> None:
        if answer.status_code == 401:
            raise AdminClientError("the admin token is missing or wrong: set FLEETGATE_ADMIN__TOKEN or give --token")
        if answer.status_code >= 400:
            raise AdminClientError(_detail(answer))


def path_of(*parts: str) -> str:
    """A path of these parts, each of which may hold anything: also what a path would be cut or shortened at."""
    return "".join("/" + quote(part, safe="", errors="replace").replace(".", "%2E") for part in parts)


def served_by_nobody_else(control: AdminClient, node: str) -> list[str]:
    """The models that `node` (its name or URL) serves, and no other node that gets requests."""
    nodes = control.get("/admin/fleet")["nodes"]
    ready = [each for each in nodes if each["state"] in ("ready", "warming up", "failing")]
    own = [each for each in ready if node in (each["name"], each["url"].rstrip("/")) or node.rstrip("/") == each["url"]]
    others = {model for each in ready if each not in own for model in each["models"]}
    return sorted({model for each in own for model in each["models"]} - others)


def drain(control: AdminClient, node: str, deadline: float | None, wait: float, say: Say) -> bool:
    """Take `node` out of work and wait up to `wait` seconds until nothing runs there; whether it is empty then."""
    state = control.post("/admin/drain", {"node": node, "deadline": deadline})
    name = state["node"]
    say(f"{name} is drained" + ("" if state["told"] else " here; other gateways follow once Redis is back"))
    end = time.monotonic() + wait
    told = None
    while not state["empty"] and time.monotonic() < end:
        left = state["running"] if state["running"] is not None else state["in_flight"]
        if left and left != told:
            say(f"{name} has {left} running requests")
            told = left
        time.sleep(0.2)
        state = control.get(path_of("admin", "drain", name))
    if state["empty"]:
        say(f"{name} has no running requests: it can be stopped")
    elif wait > 0:
        say(f"{name} still has running requests; it stays drained")
    return bool(state["empty"])


def undrain(control: AdminClient, node: str, say: Say) -> None:
    """Give `node` work again."""
    state = control.post("/admin/undrain", {"node": node})
    say(f"{state['node']} is undrained: it gets requests once it is ready")


def _detail(answer: httpx.Response) -> str:
    """What a problem document says (RFC 9457): in one sentence, or in a line for each of several problems. Those of a
    file are mended there, as a line behind them says."""
    try:
        told = answer.json()
        problems = [f"{each['field']}: {each['detail']}".removeprefix(": ") for each in told["problems"]]
        if problems and told["code"] == "config_refused":
            return "\n".join([*problems, f"{told['remedy']}; the old configuration stays in force"])
        return "\n".join(problems) if len(problems) > 1 else str(told["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the answer is {answer.status_code}, and not a gateway's: check --admin, and what is in between"
