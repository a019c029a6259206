"""`fleetgate connect CLIENT --check`: sends what the client sends, and tells what it would see."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import httpx

from gateway.cli.connect.answer import Seen, read_stream
from gateway.cli.connect.client import Asked, Client, Target, at
from gateway.cli.connect.target import Trust, described

Level = Literal["ok", "warn", "fail"]
_CONNECT_SECONDS = 10.0


class Finding(NamedTuple):
    """One thing that was looked at, and what was seen."""

    level: Level
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How to look: what the model is asked, the longest that an answer is waited for in seconds, the certificates that
    are trusted."""

    question: str
    wait: float
    trust: Trust


class _Stop(Exception):
    """Nothing behind this can be looked at; carries the finding."""


def check(client: Client, base: str, key: str, model: str, manner: Manner) -> Iterator[Finding]:
    """The findings, as they come. `base` is the URL that the client is given."""
    try:
        timeout = httpx.Timeout(manner.wait, connect=_CONNECT_SECONDS)
        # As clients do, this heeds the proxies of the environment.
        with httpx.Client(timeout=timeout, verify=manner.trust, headers=_key_headers(key)) as http:
            yield from _look(http, client, base.rstrip("/"), model, manner)
    except _Stop as stop:
        yield stop.args[0]
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
        yield Finding("fail", "address", f"{base} is not a URL: {error}")
    except httpx.TransportError as error:
        yield _unreachable(base, error)


def _key_headers(key: str) -> dict[str, str]:
    try:
        return {"authorization": f"Bearer {key.encode('ascii').decode()}"} if key else {}
    except UnicodeError:
        raise _Stop(Finding("fail", "key", "it has characters other than ASCII: it was cut off or mistyped")) from None


def _look(http: httpx.Client, client: Client, base: str, model: str, manner: Manner) -> Iterator[Finding]:
    listing = http.get(base + client.models_path)
    _expect_success(listing, client, base)
    yield Finding("ok", "address", f"a gateway answers on {base}")
    yield Finding("ok", "key", "it is accepted")
    card = _card(listing, model)
    target = described(Target(base, "", model), card or {})
    yield _judge_card(listing, card, target)
    call = client.call(Asked(model, manner.question, target.most_output))
    began = time.monotonic()
    with http.stream("POST", base + call.path, headers=dict(call.headers), json=call.body) as answer:
        if answer.status_code != 200:
            answer.read()
            _expect_success(answer, client, base)
        if "text/event-stream" not in answer.headers.get("content-type", ""):
            raise _Stop(Finding("fail", "answer", "it is not a stream: something in between changes it"))
        first = time.monotonic() - began
        seen = read_stream(_until(answer.iter_lines(), began + manner.wait), client.dialect)
    whole = time.monotonic() - began
    yield _judge_end(seen, first, whole, is_late=whole >= manner.wait)
    yield from _judge_parts(seen, offered="tools" in call.body)


def _until(lines: Iterator[str], end: float) -> Iterator[str]:
    """The lines that come until then. A thinking model may go on for minutes, and nobody reads what it says here."""
    for line in lines:
        yield line
        if time.monotonic() >= end:
            return


def _expect_success(answer: httpx.Response, client: Client, base: str) -> None:
    """Raises what an answer other than a success means for the client."""
    status = answer.status_code
    if status < 300:
        return
    code, message = _error_of(answer)
    if status == 401:
        raise _Stop(Finding("fail", "key", message or "it is not accepted"))
    if 300 <= status < 400:
        where = answer.headers.get("location", "elsewhere")
        raise _Stop(
            Finding("fail", "address", f"{base} sends to {where}: clients lose the key on that way, use that URL")
        )
    if status == 404 and code != "model_not_found" and client.v1_in_base != base.endswith("/v1"):
        advice = f"{client.title} needs it: {base}/v1" if client.v1_in_base else "leave it out: the client adds it"
        raise _Stop(Finding("fail", "address", f"/v1 at the end of {base} is {_WRONG[client.v1_in_base]}: {advice}"))
    what = "model" if status == 404 and code == "model_not_found" else "address" if status == 404 else "answer"
    raise _Stop(Finding("fail", what, f"{status}: {message or answer.reason_phrase}"))


_WRONG = {True: "missing", False: "too much"}


def _error_of(answer: httpx.Response) -> tuple[str, str]:
    """Code and message of an error, in any dialect's shape; empty where it is none of ours."""
    try:
        body: Any = answer.json()
    except ValueError:
        return "", answer.text[:200].strip()
    message = at(body, "error", "message") or at(body, "message") or at(body, "detail")
    return str(at(body, "error", "code") or at(body, "error", "type") or ""), str(message or "")


def _cards(listing: httpx.Response) -> list[dict[str, Any]]:
    try:
        return [item for item in listing.json()["data"] if isinstance(item, dict)]
    except (ValueError, KeyError, TypeError):
        raise _Stop(Finding("fail", "model", "the list of models is not one: this is no gateway")) from None


def _card(listing: httpx.Response, model: str) -> dict[str, Any] | None:
    return next((card for card in _cards(listing) if card.get("id") == model), None)


def _judge_card(listing: httpx.Response, card: dict[str, Any] | None, target: Target) -> Finding:
    if card is None:
        names = ", ".join(str(each.get("id")) for each in _cards(listing)) or "none"
        return Finding(
            "warn", "model", f"{target.model!r} is not listed (listed: {names}); an alias may still be served"
        )
    context = "" if target.context is None else f", context {target.context} tokens"
    return Finding("ok", "model", f"{target.model} is listed{context}")


def _judge_end(seen: Seen, first: float, whole: float, is_late: bool) -> Finding:
    if seen.error:
        return Finding("fail", "stream", f"an error in the middle: {seen.error}")
    if seen.ended:
        tokens = "" if seen.output_tokens is None else f", {seen.output_tokens} tokens"
        return Finding("ok", "stream", f"first event after {first:.1f} s, whole after {whole:.1f} s{tokens}")
    if is_late:
        return Finding(
            "warn", "stream", f"first event after {first:.1f} s, not over after {whole:.0f} s: read no further"
        )
    return Finding("fail", "stream", "it was cut: the connection ended without the end of the answer")


def _judge_parts(seen: Seen, offered: bool) -> Iterator[Finding]:
    if seen.thinking:
        yield Finding("ok", "thinking", f"{seen.thinking} characters, apart from the answer")
    else:
        yield Finding("warn", "thinking", "none arrived: thinking is off, or the operator hides it")
    if seen.calls:
        yield Finding("ok", "tools", f"called: {', '.join(seen.calls)}")
    elif offered and seen.ended:
        yield Finding("warn", "tools", "accepted, but the model called none of them this time")
    if seen.ended and not (seen.text or seen.calls):
        yield Finding("warn", "answer", "it is empty")


def _unreachable(base: str, error: httpx.TransportError) -> Finding:
    """What a failure of the connection means."""
    said = _causes(error)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in said):
        text = f"its certificate is not trusted ({error}): --ca-file, and the client's own setting for it"
        return Finding("fail", "TLS", text)
    if any(isinstance(cause, ssl.SSLError) for cause in said):
        return Finding("fail", "TLS", f"no TLS is spoken on {base} ({error}): use http://")
    if isinstance(error, httpx.TimeoutException):
        return Finding("fail", "address", f"{base} did not answer in time ({type(error).__name__})")
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and base.startswith("http://"):
        return Finding("fail", "address", f"{base} closes the connection ({error}): if it speaks TLS, use https://")
    return Finding("fail", "address", f"{base} cannot be reached: {error}")


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it came from."""
    found: list[BaseException] = []
    at_hand: BaseException | None = error
    while at_hand is not None and at_hand not in found:
        found.append(at_hand)
        at_hand = at_hand.__cause__ or at_hand.__context__
    return found
