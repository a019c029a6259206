"""What `fleetgate check` says of a file is what `fleetgate serve` does with it: both are run, as operators run them."""

import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from gateway.core.access.api_keys import key_digest
from tests.support.certificates import encrypted, self_signed
from tests.support.gateway_process import FLEETGATE, gateway_process

KEY = f"sha256: {key_digest('fg-one').hex()}"
MODELS = "models: [{name: big, aliases: [b]}, {name: small}]\n"

BAD = {
    "a port of Redis that is a word": ("redis: {url: 'redis://h:port'}", "redis.url", "a port is a number"),
    "a port of Redis that there is not": ("redis: {url: 'redis://h:99999'}", "redis.url", "a port is a number"),
    "a database of Redis that is a word": ("redis: {url: 'redis://h/abc'}", "redis.url", "/DATABASE, a number"),
    "a password with a slash": ("redis: {url: 'redis://:hu/sh@h'}", "redis.url", "%2F"),
    "a password with a number sign": ("redis: {url: 'redis://:hu#sh@h'}", "redis.url", "%23"),
    "a password with an at sign": ("redis: {url: 'redis://:hu@sh@h'}", "redis.url", "%40"),
    "a password with a percent sign": ("redis: {url: 'redis://:hu%sh@h'}", "redis.url", "%25"),
    "a password with brackets": ("redis: {url: 'redis://:[hush]@h'}", "redis.url", "%5B"),
    "a tenant's model that is a typo": (
        f"{MODELS}tenants: [{{name: a, models: [big, bg], keys: [{KEY}]}}]",
        "tenants[0].models[1]",
        "bg is not in models: big, small",
    ),
    "a key's model that is an alias": (
        f"{MODELS}tenants: [{{name: a, keys: [{{{KEY}, models: [b]}}]}}]",
        "tenants[0].keys[0].models[0]",
        "b is an alias: name big",
    ),
    "a key's model that its tenant may not use": (
        f"{MODELS}tenants: [{{name: a, models: [small], keys: [{{{KEY}, models: [big]}}]}}]",
        "tenants[0].keys[0].models[0]",
        "big is not in the tenant's models: small",
    ),
    "a registered model that is an alias": (
        f"{MODELS}redis: {{url: 'redis://h'}}\ndiscovery: {{registrations: {{networks: [10.0.0.0/8], models: [b]}}}}",
        "discovery.registrations.models[0]",
        "b is an alias: name big",
    ),
    "an expiry before the year 1": (
        f"tenants: [{{name: a, keys: [{{{KEY}, expires: 0001-01-01T00:00:00+14:00}}]}}]",
        "tenants[0].keys[0].expires",
        "expected a time",
    ),
    "an expiry after 9999": (
        f"tenants: [{{name: a, keys: [{{{KEY}, expires: '9999-12-31T23:00:00-14:00'}}]}}]",
        "tenants[0].keys[0].expires",
        "expected a time",
    ),
    "an expiry on no day": (
        f"tenants: [{{name: a, keys: [{{{KEY}, expires: 2027-02-30}}]}}]",
        "tenants[0].keys[0].expires",
        "expected 2027-01-31",
    ),
    "an expiry that is a year": (
        f"tenants: [{{name: a, keys: [{{{KEY}, expires: 2027}}]}}]",
        "tenants[0].keys[0].expires",
        "expected a time",
    ),
    "a node with the version of its paths": ("nodes: [{url: 'http://h/v1/'}]", "nodes[0].url", "leave /v1 and what"),
    "a key in the place of its hash": (
        "tenants: [{name: a, keys: [{sha256: fg-hush}]}]",
        "tenants[0].keys[0].sha256",
        "is a key, where its SHA-256 belongs",
    ),
    "a node without a port that there is": ("nodes: [{url: 'http://h:0'}]", "nodes[0].url", "from 1 up to 65535"),
    "a node with a password": ("nodes: [{url: 'http://:hush@h:80'}]", "nodes[0].url", "give a key as api_key"),
    "a node's name that can be none": ("nodes: [{url: 'http://a..b'}]", "nodes[0].url", "a host is a name"),
    "a node of a price without end": ("nodes: [{url: 'http://h', price: .inf}]", "nodes[0].price", "finite number"),
    "a name of the DNS that can be none": ("discovery: {dns: [{host: a..b}]}", "discovery.dns[0].host", "a host is"),
    "an authority of a name of the DNS that is not there": (
        "discovery: {dns: [{host: a, ca_file: /no/ca.pem}]}",
        "discovery.dns[0].ca_file",
        "/no/ca.pem",
    ),
    "an address of another machine": ("listen: {host: 192.0.2.1}\nno_auth: true", "listen.host", "cannot listen"),
    "an origin with a slash": ("listen: {cors_origins: ['https://a.com/']}", "listen.cors_origins[0]", "no slash"),
    "two tokens of one name": (
        "admin: {tokens: [{name: a, token: hush}, {name: a, token: hush2}]}",
        "admin.tokens[1].name",
        "given twice",
    ),
    "a token that would hide another": (
        "admin: {tokens: [{name: admin, token: hush}], token: hush2}",
        "admin.token",
        "a token named admin",
    ),
    "a value that is not of its type": ("workers: !!bool abc", "workers", "true or false"),
    "a value that can be read and printed by nobody": (
        'nodes: [{url: http://h, labels: {a: "\\ud800"}}]',
        "nodes[0].labels.a",
        "a lone surrogate",
    ),
}
"""A file, the path of its mistake, and what is said of it."""


EVERY = 3
"""One in so many is tried with each change: each starts four processes. The others are a proof."""

SAMPLED = [
    name if number % EVERY == 0 else pytest.param(name, marks=pytest.mark.prove) for number, name in enumerate(BAD)
]


@pytest.mark.parametrize("name", SAMPLED)
def test_both_refuse_it_in_the_same_words(name: str, tmp_path: Path) -> None:
    text, path, expected = BAD[name]
    refused_by_both(tmp_path, text if "nodes:" in text else f"{text}\nnodes: [{{url: 'http://h'}}]\n", path, expected)


def test_both_refuse_a_key_that_needs_a_passphrase(tmp_path: Path) -> None:
    """Nobody is asked for it, as a terminal's user would be."""
    locked = encrypted(self_signed(tmp_path))
    text = f"listen: {{tls: {{cert: {locked.cert}, key: {locked.key}}}}}\nnodes: [{{url: 'http://h'}}]"
    refused_by_both(tmp_path, text, "listen.tls", "is encrypted")


def test_both_refuse_a_tokenizer_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    text = f"nodes: [{{url: 'http://h'}}]\nmodels:\n- name: m\n  tokenizer: {tmp_path}"
    refused_by_both(tmp_path, text, "models[0].tokenizer", "is not a tokenizer")


def refused_by_both(folder: Path, text: str, path: str, expected: str) -> None:
    file = folder / "fleetgate.yaml"
    file.write_text(text)
    ports = ["--port", "0", "--admin-port", "0"]
    runs = [start("check", file), start("serve", "-c", file, "--workers", "2", *ports)]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [2, 2], said
    assert said[0] == said[1]
    lines = [line for line in said[0][1].splitlines() if f": {path}: " in line]
    assert lines and expected in lines[0]
    assert re.match(rf"{re.escape(str(file))}:\d+: ", lines[0])
    assert not re.search("Traceback|hu.?sh", "".join(map("".join, said)))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE")}
    return subprocess.Popen(
        [FLEETGATE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


GOOD = {
    "a password in escapes": ("redis: {url: 'redis://u:%2F%23%40%25@127.0.0.1:1/3'}", ""),
    "upper case": ("redis: {url: 'REDIS://LOCALHOST:1'}\nnodes: [{url: 'HTTP://LOCALHOST:1'}]", ""),
    "models that are there": (f"{MODELS}tenants: [{{name: a, models: [big], keys: [{{{KEY}, models: [big]}}]}}]", ""),
    "models that nodes will tell of": (
        f"tenants: [{{name: a, models: [big], keys: [{{{KEY}, models: [big]}}]}}]",
        "Not checked, because models is empty and only nodes know their models: "
        "tenants[0].models[0], tenants[0].keys[0].models[0].",
    ),
    "an IPv6 node": ("nodes: [{url: 'http://[::1]:1/prefix'}]", ""),
    "all addresses": ("listen: {host: ''}\nno_auth: true", ""),
}
"""A file, and what `check` says beside that it is good."""


@pytest.mark.parametrize("name", GOOD)
async def test_both_take_it(name: str, tmp_path: Path) -> None:
    text, note = GOOD[name]
    file = tmp_path / "fleetgate.yaml"
    file.write_text(text if "nodes:" in text else f"{text}\nnodes: [{{url: 'http://127.0.0.1:1'}}]\n")
    checked = start("check", file)
    async with gateway_process("-c", file, ready=False) as gateway:
        assert gateway.url
        said, complaints = checked.communicate(timeout=120)
        assert (checked.returncode, complaints) == (0, "")
        assert note in said and ("Not checked" in said) == bool(note)
        async with asyncio.timeout(60):  # until it listens, and hears of signals
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", gateway.port))[1].close()
                    break
                await asyncio.sleep(0.05)
        gateway.process.terminate()
        assert await gateway.ended() == 0
        assert not any("Traceback" in line for line in gateway.lines)
