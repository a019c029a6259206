"""Every setting either takes effect at a reload, as it would at a start, or is told to need a restart and changes
nothing."""

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway, build_app
from gateway.config.expectations import section_of
from gateway.config.tree import Config
from gateway.config.types import Secret
from gateway.wiring.read_at_start import READ_AT_START, needs_restart
from tests.support.certificates import self_signed

KEY = b"response key"
DIGEST, OTHER_DIGEST = "1" * 64, "2" * 64
LIMITS = {
    **dict.fromkeys(
        (
            "requests_per_minute",
            "input_tokens_per_minute",
            "output_tokens_per_minute",
            "tokens_per_minute",
            "reasoning_tokens_per_minute",
            "concurrent_requests",
            "tokens_per_day",
            "usd_per_day",
            "usd_per_month",
        ),
        7,
    ),
    "burst_seconds": 61,
}
THINKING = {
    "mode": "required",
    "default": False,
    "default_budget": 11,
    "max_budget": 5000,
    "efforts": {"minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6},
    "answer_reserve": 9,
    "floor": 8,
    "floor_with_tools": 10,
    "below_floor_with_tools": "refuse",
    "hide_reasoning": True,
    "guaranteed_budget": 3000,
}
OUTPUT = {"default_tokens": 12, "max_tokens": 5000, "on_excess": "reject"}
LOOPS = {"reasoning": False, "answer": True, "repeats": 5}
RULES = {"thinking": THINKING, "output": OUTPUT, "loops": LOOPS}
BUSY_LIMITS = {"requests_per_minute": 1}
BASE: dict[str, Any] = {
    "nodes": [{"url": "http://10.0.0.1:8000"}],
    "models": [{"name": "m", "price": {"input": 5, "output": 5}}, {"name": "n"}],
    "redis": {"url": "redis://127.0.0.1:1"},
    "response_secret": "one",
    "access": {"stored": True},
    "tenants": [
        {
            "name": "t",
            "keys": [{"sha256": DIGEST, "limits": BUSY_LIMITS}],
            "per_model": [{"model": "n", "limits": BUSY_LIMITS}],
            "limits": BUSY_LIMITS,
        }
    ],
    "limits": {"default": BUSY_LIMITS},
    "discovery": {
        "dns": [{"host": "nodes", "scheme": "https"}],
        "registrations": {"networks": ["10.0.0.0/8"], "secret": "secret"},
    },
}
"""Something is limited wherever it can be, since `burst_seconds` has no effect otherwise."""

OTHERS: dict[str, Any] = {
    "nodes": [
        {
            "url": "http://10.0.0.2:8000",
            "api_key": "k",
            "ca_file": "CERT",
            "max_concurrency": 5,
            "weight": 2,
            "price": 3,
            "priority_scheduling": True,
            "labels": {"zone": "a"},
        }
    ],
    "models": [
        {
            "name": "o",
            "aliases": [{"name": "alias", "display_name": "Alias"}],
            "display_name": "Model",
            "capabilities": {"thinking": False, "tools": False, "structured_outputs": False, "images": True},
            "price": {"input": 1, "cached": 0.5, "output": 2},
            "over_chat": True,
            "tokenizer": "TOKENIZER",
            "routing": "affinity",
            "routing_group": "group",
            **RULES,
        }
    ],
    "limits": {"default": LIMITS, "on_failure": "open", "assumed_output_tokens": 77, "lease": 61},
    "access": {"wrong_keys_per_minute": 31, "stored": False, "cached_keys": 7, "outage": 7, "audit_lines": 7},
    **RULES,
    "tenants": [
        {
            "name": "u",
            "models": ["m"],
            "cache_salt": True,
            "limits": LIMITS,
            "service_class": "batch",
            "share": 2,
            "keys": [
                {
                    "sha256": OTHER_DIGEST,
                    "label": "x",
                    "models": ["m"],
                    "expires": "2099-01-01",
                    "limits": LIMITS,
                    "service_class": "batch",
                }
            ],
            "per_model": [{"model": "m", "limits": LIMITS, **RULES}],
            **RULES,
        }
    ],
    "timeouts": {
        "headers": 11,
        "body": 61,
        "connect": 6,
        "first_byte": 301,
        "node_hang": 31,
        "prefill": 3,
        "non_streaming": 1801,
        "idle": 121,
        "stall": 21,
        "stall_confirmed": 6,
        "client_stall": 301,
        "keep_alive": 16,
        "shutdown_delay": 1,
        "shutdown": 121,
    },
    "requests": {
        "max_body": 2048,
        "max_json_values": 60_000,
        "max_headers": 2048,
        "max_attempts": 4,
        "max_answer": 2048,
        "memory": 1 << 25,
    },
    "health": {"interval": 3, "timeout": 6, "failure_threshold": 3, "failures": 4, "slow_start": 21},
    "budgets": {"canary": False, "native": False, "overshoot": 0.06, "overshoot_tokens": 17},
    "pressure": {
        "enabled": True,
        "begin": 6,
        "end": 1,
        "full": 31,
        "hold": 6,
        "floor": 0.3,
        "shrink": 0.06,
        "grow": 0.03,
        "default_budget": 8193,
        "budget_floor": 257,
        "weights": {"interactive": 0.6, "standard": 1.1, "batch": 2.1},
        "cut": 61,
        "cut_interval": 3,
        "cut_classes": ["standard"],
    },
    "retries": {"share": 0.3, "minimum": 11},
    "resume": {"enabled": False, "dialects": ["chat"], "max_resumes": 3, "wait": 61, "rate": 0.3},
    "queue": {
        "max_wait": 61,
        "max_waiting": 7,
        "max_bytes": 2048,
        "tenant_share": 0.25,
        "find_concurrency": False,
        "costs": {"input": 2, "cached_input": 0.2, "reasoning": 3, "output": 3},
        "classes": [
            {"name": "standard", "share": 7, "service_tiers": ["scale"], "yields_at": 9, "priority": 3},
            {"name": "interactive"},
            {"name": "batch"},
        ],
        "default_class": "batch",
    },
    "routing": {
        "policy": "affinity",
        "session_headers": ["x_other"],
        "by_user": True,
        "affinity_ttl": 60,
        "load_penalty": 2,
    },
    "listen": {
        "host": "127.0.0.2",
        "port": 8081,
        "tls": {"cert": "CERT", "key": "KEY"},
        "max_connections": 9,
        "max_connections_per_address": 9,
        "trusted_proxies": ["10.0.0.1"],
        "cors_origins": ["https://app.example.com"],
        "hosts": ["gateway"],
    },
    "admin": {
        "host": "127.0.0.2",
        "port": 9092,
        "tokens": [{"name": "ada", "token": "t"}],
        "token": "t",
        "hosts": ["gateway"],
        "open_metrics": True,
    },
    "redis": {
        "url": "redis://127.0.0.1:2",
        "cluster": True,
        "ca_file": "CERT",
        "cert_file": "CERT",
        "key_file": "KEY",
        "timeout": 0.06,
        "connect_timeout": 0.3,
        "prefix": "other",
    },
    "usage": {"stored": False, "records": 9, "hours": 9, "days": 9},
    "response_secret": "other",
    "responses": {"stored": False, "kept_for": 61, "max_bytes": 8192, "tenant_bytes": 1048577},
    "discovery": {
        "dns": [
            {
                "host": "others",
                "port": 8001,
                "scheme": "http",
                "interval": 6,
                "api_key": "k",
                "ca_file": "CERT",
                "max_concurrency": 5,
                "priority_scheduling": True,
                "weight": 2,
            }
        ],
        "registrations": {
            "secret": "s",
            "networks": ["10.1.0.0/16"],
            "models": ["m"],
            "skew": 6,
            "interval": 2,
            "api_key": "k",
            "ca_file": "CERT",
        },
    },
    "log": {"format": "text", "level": "debug"},
    "telemetry": {
        "metrics": {"max_tenants": 5, "max_models": 5, "max_nodes": 5},
        "traces": {
            "endpoint": "http://127.0.0.1:1",
            "headers": {"authorization": "s"},
            "ratio": 0.5,
            "follow_clients": False,
            "timeout": 5,
            "max_queue": 100,
            "flush": 1,
            "content": True,
            "content_bytes": 5,
            "service_name": "other",
        },
        "node_request_ids": True,
    },
    "workers": 2,
    "no_auth": True,
}
"""Another value for every setting. The one entry of a list stands for any of its entries."""

PRICE_OF_NODE = {"node_hour": 1, "input_per_second": 2, "output_per_second": 3}
TOGETHER: dict[str, Any] = {
    "redis.cert_file": {"redis.key_file": "KEY"},
    "redis.key_file": {"redis.cert_file": "CERT"},
    "listen.tls.cert": {"listen.tls": {"cert": "CERT", "key": "KEY"}},
    "listen.tls.key": {"listen.tls": {"cert": "CERT", "key": "KEY"}},
    **{f"models.price.{name}": {"models.price": PRICE_OF_NODE} for name in PRICE_OF_NODE},
}
"""What goes with a setting that is refused without it."""

READ_OF_MODELS = ("models.tokenizer", "models.routing_group")
"""Of each model, read at start."""

WITHOUT_EFFECT = {
    "no_auth": "judges whether a configuration is accepted, and nothing else",
    "tenants.keys.label": "is for people who read the file",
}


def leaves(model: Any = Config, above: str = "") -> Iterator[str]:
    """The path of every setting that is no section; a list's items stand under the list's name."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None or section is Secret:
            yield f"{above}{name}"
        else:
            yield from leaves(section, f"{above}{name}.")


def get(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = (tree[0] if isinstance(tree, list) else tree)[name]
    return tree


def put(tree: Any, path: str, value: Any) -> None:
    """Set what stands at `path`, in the first item of each list on the way."""
    *above, last = path.split(".")
    for depth, name in enumerate(above, 1):
        tree = tree[0] if isinstance(tree, list) else tree
        if name not in tree:
            tree[name] = copy.deepcopy(whole) if isinstance(whole := get(OTHERS, ".".join(above[:depth])), list) else {}
        tree = tree[name]
    (tree[0] if isinstance(tree, list) else tree)[last] = value


def is_read_at_start(path: str) -> bool:
    return path in READ_OF_MODELS or any(path == name or path.startswith(f"{name}.") for name in READ_AT_START)


def state(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Every plain value that `value` and the gateway's own objects below it hold, with its path; not the configuration
    itself, nor what libraries hold."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str | bytes | Path | Enum | IPv4Network):
        yield path, value
        return
    if id(value) in seen or isinstance(value, Config) or callable(value):
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        yield f"{path}#", len(value)
        for number, (key, item) in enumerate(value.items()):
            yield from state(key, f"{path}[{number}].key", seen)
            yield from state(item, f"{path}[{number}]", seen)
    elif isinstance(value, list | tuple | deque):
        yield f"{path}#", len(value)
        for number, item in enumerate(value):
            yield from state(item, f"{path}[{number}]", seen)
    elif isinstance(value, set | frozenset):
        yield path, sorted(item for item in value if isinstance(item, str))
    elif type(value).__module__.startswith("gateway."):
        for name in attributes(type(value), value):
            if hasattr(value, name):
                yield from state(getattr(value, name), f"{path}.{name}", seen)


def attributes(kind: type, value: Any) -> list[str]:
    """The names of an object's attributes, also of one with slots and of one that is compiled."""
    names = dict.fromkeys(getattr(value, "__dict__", {}))
    for each in kind.__mro__:
        names.update(dict.fromkeys(each.__dict__.get("__slots__", ())))
        names.update(dict.fromkeys(each.__dict__.get("__mypyc_attrs__", ())))
    return [name for name in names if name not in ("__dict__", "__weakref__")]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("files")
    made = self_signed(folder)
    (folder / "tokenizer.json").write_text("{}")
    return {"CERT": str(made.cert), "KEY": str(made.key), "TOKENIZER": str(folder)}


def with_files(value: Any, files: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: with_files(item, files) for name, item in value.items()}
    if isinstance(value, list):
        return [with_files(item, files) for item in value]
    return files.get(value, value) if isinstance(value, str) else value


def changed(path: str, files: Mapping[str, str]) -> Config:
    """`BASE` with another value at `path`."""
    tree, together = copy.deepcopy(BASE), TOGETHER.get(path, {})
    for other, value in together.items():
        put(tree, other, value)
    if not any(path.startswith(f"{other}.") for other in together):
        put(tree, path, get(OTHERS, path))
    return Config(**with_files(tree, files))


@pytest.fixture(scope="module")
def gateway() -> Gateway:
    return build_app(Config(**BASE), response_key=KEY)


@pytest.mark.parametrize("path", sorted(set(leaves()) - WITHOUT_EFFECT.keys()))
def test_a_setting_takes_effect_at_a_reload_or_needs_a_restart(
    path: str, files: Mapping[str, str], gateway: Gateway
) -> None:
    before, after = Config(**BASE), changed(path, files)
    assert before != after
    gateway.apply(before)
    held, announced = dict(state(gateway)), gateway.announce_shutdown()
    gateway.pipeline.leaving = False
    gateway.apply(after)
    reloaded = dict(state(gateway))
    if is_read_at_start(path):
        assert needs_restart(before, after) == told_as(path)
        assert reloaded == held
    elif path == "timeouts.shutdown_delay":  # no part holds it
        assert gateway.announce_shutdown() != announced
        gateway.pipeline.leaving = False
    else:
        assert needs_restart(before, after) == []
        assert reloaded != held, "a reload changes nothing"


def test_a_reload_brings_into_force_what_a_start_would(files: Mapping[str, str], gateway: Gateway) -> None:
    """Every setting is another one, but for those that are read at start."""
    tree = copy.deepcopy(OTHERS)
    for name in READ_AT_START:
        *above, last = name.split(".")
        section = get(tree, ".".join(above)) if above else tree
        del section[last]
    for name in READ_OF_MODELS:
        tree["models"][0].pop(name.removeprefix("models."))
    tree["models"] += [{"name": "m"}, {"name": "n", "price": PRICE_OF_NODE}]
    after = Config(
        **with_files({**{name: BASE[name] for name in ("redis", "discovery", "response_secret")}, **tree}, files)
    )
    after = after.model_copy(update={"access": after.access.model_copy(update={"stored": True})})
    gateway.apply(Config(**BASE))
    held = dict(state(gateway))
    gateway.apply(after)
    reloaded = dict(state(gateway))
    fresh = dict(state(build_app(after, response_key=KEY)))
    differing = {name for name in held.keys() | reloaded.keys() if held.get(name) != reloaded.get(name)}
    differing -= {name for name in differing if name.endswith(".breaker.trusted")}  # a node that joins late is on trial
    assert len(differing) > 100
    assert {name: reloaded.get(name) for name in differing} == {name: fresh.get(name) for name in differing}


def told_as(path: str) -> list[str]:
    if path in READ_OF_MODELS:
        return [path]
    return [name for name in READ_AT_START if path == name or path.startswith(f"{name}.")]


@pytest.mark.parametrize("path", WITHOUT_EFFECT)
def test_a_setting_without_effect_changes_nothing(path: str, files: Mapping[str, str], gateway: Gateway) -> None:
    before, after = Config(**BASE), changed(path, files)
    gateway.apply(before)
    held = dict(state(gateway))
    gateway.apply(after)
    assert dict(state(gateway)) == held and needs_restart(before, after) == []


def test_every_caller_needs_a_key_until_a_restart_where_keys_were_stored() -> None:
    """Without stored keys and without tenants nobody needs one: that is not to begin at a reload."""
    redis: dict[str, Any] = {"redis": {"url": "redis://127.0.0.1:1"}}
    stored: dict[str, Any] = {"access": {"stored": True}}
    gateway = build_app(Config(**redis, **stored))
    assert gateway.gate.tenants.anonymous is None
    gateway.apply(Config(**redis))
    assert gateway.gate.tenants.anonymous is None


@pytest.mark.parametrize("read_at_start", [{"cluster": True}, {"prefix": "other"}])
def test_the_address_of_another_redis_waits_for_the_restart_that_it_needs(read_at_start: dict[str, Any]) -> None:
    """The last one that was taken at a reload stays, not that of the start."""

    def with_redis(port: int, **more: Any) -> Config:
        tree: dict[str, Any] = {"redis": {"url": f"redis://127.0.0.1:{port}", **more}}
        return Config(**tree)

    gateway = build_app(with_redis(1), response_key=KEY)
    gateway.apply(with_redis(2))
    held = dict(state(gateway))
    gateway.apply(with_redis(3, **read_at_start))
    assert dict(state(gateway)) == held
    gateway.apply(with_redis(3))
    assert dict(state(gateway)) != held


def test_a_value_that_cannot_be_made_leaves_the_old_configuration_in_force(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway
) -> None:
    """The variable of a secret is unset between reading the file and making the values."""
    monkeypatch.setenv("NODE_KEY", "secret")
    gateway.apply(Config(**BASE))
    held = dict(state(gateway))
    nodes = [*BASE["nodes"], {"url": "http://10.0.0.9:8000", "api_key": {"env": "NODE_KEY"}}]
    after = Config(**{**BASE, "nodes": nodes, "health": {"interval": 9}, "tenants": []})
    monkeypatch.delenv("NODE_KEY")
    with pytest.raises(ValueError, match="NODE_KEY"):
        gateway.apply(after)
    assert dict(state(gateway)) == held and gateway.config.tenants
