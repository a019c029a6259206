"""Configuration: where it comes from, what goes over what, and that every mistake is explained to people."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from typer.main import get_command

from gateway.cli.main import _overrides, app
from gateway.config.document import ConfigError, ConfigProblem
from gateway.config.options import OPTIONS, option_of
from gateway.config.source import load_config
from gateway.config.tree import Config
from gateway.config.watch import ConfigWatch
from gateway.core.access.api_keys import key_digest
from gateway.server.dry_run import find_problems
from gateway.wiring.read_at_start import READ_AT_START
from tests.support.certificates import self_signed

EXAMPLE = Path(__file__).parents[2] / "fleetgate.example.yaml"
FLEETGATE = Path(sys.executable).parent / "fleetgate"
KEY, OTHER_KEY = key_digest("fg-one").hex(), key_digest("fg-two").hex()
HUSH = "fg-never-to-be-seen"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("FLEETGATE")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fleetgate.yaml"


def load(file: Path, text: str, **overrides: Any) -> Config:
    file.write_text(text)
    return load_config(file, overrides)


def problems(file: Path, text: str, **overrides: Any) -> list[ConfigProblem]:
    """What `load_config` says against `text`; fails where it has nothing against it."""
    with pytest.raises(ConfigError) as caught:
        load(file, text, **overrides)
    assert caught.value.problems
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def told(file: Path, text: str, **overrides: Any) -> list[str]:
    """The same as lines for people, without the directory."""
    return [str(problem).replace(f"{file.parent}/", "") for problem in problems(file, text, **overrides)]


# Sources


SPOILT: dict[str, Any] = {
    "--node": {"nodes": [{"url": "http://127.0.0.1:1"}, {"url": "ftp://x"}]},
    "--host": {"listen": {"host": "a b"}},
    "--port": {"listen": {"port": 99999}},
    "--admin-port": {"admin": {"port": 99999}},
    "--workers": {"workers": 0},
    "--log-format": {"log": {"format": "xml"}},
    "--no-auth": {"no_auth": "maybe"},
}


@pytest.mark.parametrize("option", SPOILT)
@pytest.mark.parametrize(
    "text", ["", "nodes: [{url: 'http://h:1'}]\nlisten: {port: 1, host: localhost}\nadmin: {port: 2}"]
)
def test_an_invalid_option_is_blamed_and_not_the_file(
    file: Path, option: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETGATE_LISTEN__PORT", "5")
    [line] = told(file, text, **SPOILT[option])
    assert line.startswith(f"the option {option}: ")


def test_what_stands_beside_an_option_is_blamed_where_it_stands(file: Path) -> None:
    assert told(file, "listen:\n  host: a b\n", listen={"port": 99999}) == [
        "the option --port: listen.port: expected: less than or equal to 65535",
        "fleetgate.yaml:2: listen.host: a host is a name (ASCII: xn--... for other scripts), an IPv4 address, or an "
        "IPv6 address, without brackets and port",
    ]


def test_a_host_that_cannot_be_listened_on_is_told_of_the_option(file: Path) -> None:
    file.write_text("listen: {host: 127.0.0.1}\n")
    given = {"listen": {"host": "192.0.2.1"}, "no_auth": True, "nodes": [{"url": "http://h:1"}]}
    [problem] = find_problems(load_config(file, given), file, given)
    assert str(problem).startswith("the option --host: listen.host: this machine cannot listen on 192.0.2.1")


def test_every_option_of_serve_that_is_a_setting_has_a_name_in_messages() -> None:
    """The command makes a tree of its options: each stands where messages look for it."""
    command: Any = get_command(app)
    options = {each.opts[0] for each in command.commands["serve"].params} - {"--config"}
    assert options == set(OPTIONS.values()) == set(SPOILT)
    tree: Any = _overrides(["http://h:1"], "h", 1, 2, 3, "json", no_auth=True)
    assert all(option_of(tree, setting) == option for setting, option in OPTIONS.items())


def test_nothing_at_all_is_a_configuration(file: Path) -> None:
    for config in (load_config(None), load(file, ""), load(file, "# only a comment\n"), load(file, "{}")):
        assert config == Config()
        assert (config.listen.host, config.listen.port) == ("127.0.0.1", 8080)
        assert (config.admin.host, config.admin.port) == ("127.0.0.1", 9091)


def test_a_file_is_read(file: Path) -> None:
    config = load(file, "listen: {port: 9000}\nnodes:\n  - url: http://10.0.0.1:8000/\nlog:\n  level: debug\n")
    assert (config.listen.port, config.log.level, config.workers) == (9000, "debug", 1)
    assert [node.url for node in config.nodes] == ["http://10.0.0.1:8000"]


def test_later_sources_go_over_earlier_ones(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "listen: {host: 127.0.0.2, port: 1001, max_connections: 7}\nworkers: 2\n"
    monkeypatch.setenv("FLEETGATE_LISTEN__PORT", "1002")
    monkeypatch.setenv("FLEETGATE_WORKERS", "3")
    assert load(file, text).workers == 3
    config = load(file, text, listen={"port": 1003})
    assert (config.listen.host, config.listen.port, config.listen.max_connections) == ("127.0.0.2", 1003, 7)


def test_lists_in_variables_are_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_NODES", '[{"url": "http://b:1"}, {"url": "http://c:1"}]')
    assert [node.url for node in load(file, "nodes: [{url: http://a:1}]").nodes] == ["http://b:1", "http://c:1"]


def test_an_empty_section_in_a_variable_sets_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would drop what the file says: an admin token, say."""
    file.write_text("admin: {token: secret-of-the-file}\ntimeouts: {node_hang: 7}\n")
    monkeypatch.setenv("FLEETGATE_ADMIN", "{}")
    monkeypatch.setenv("FLEETGATE_TIMEOUTS", "{}")
    config = load_config(file)
    assert config.admin.token is not None and config.admin.token.reveal() == "secret-of-the-file"
    assert config.timeouts.node_hang == 7


def test_variables_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_TIMEOUTS__FIRST_BYTE", "7.5")
    monkeypatch.setenv("FLEETGATE_ADMIN__OPEN_METRICS", "true")
    config = load_config(None)
    assert (config.timeouts.first_byte, config.admin.open_metrics) == (7.5, True)


def test_the_configuration_cannot_be_changed_afterwards() -> None:
    config = load_config(None)
    with pytest.raises(ValueError, match="frozen"):
        config.listen.port = 1
    with pytest.raises(ValueError, match="frozen"):
        config.workers = 2


# Mistakes in a file

MISTAKES = {
    "unknown setting at the top": ("listne: {}", "1", "listne", "did you mean 'listen'?"),
    "unknown setting below": ("timeouts:\n  idle: 3\n  frist_byte: 3", "3", "timeouts.frist_byte", "'first_byte'"),
    "unknown setting in a list": ("nodes:\n  - url: http://a\n    key: x", "3", "nodes[0].key", "not a setting"),
    "unknown setting like none": ("zzz: 1", "1", "zzz", "known here: listen, admin, nodes"),
    "private name of the library": ("_env_file: x", "1", "_env_file", "is not a setting"),
    "private name, another": ("_build_sources: x", "1", "_build_sources", "is not a setting"),
    "key that is a number": ("log:\n  1: 2", "2", "log.1", "is not a setting"),
    "text for a number": ("workers: many", "1", "workers", "expected a whole number"),
    "fraction for a number": ("listen:\n  port: 80.5", "2", "listen.port", "expected a whole number"),
    "number for text": ("listen:\n  host: 1", "2", "listen.host", "expected text"),
    "text for a switch": ("no_auth: perhaps", "1", "no_auth", "expected true or false"),
    "too large": ("listen:\n\n\n  port: 65536", "4", "listen.port", "less than or equal to 65535"),
    "too small": ("workers: 0", "1", "workers", "greater than or equal to 1"),
    "no time at all": ("timeouts: {idle: 0}", "1", "timeouts.idle", "greater than 0"),
    "not one of the choices": ("log: {format: jsn}", "1", "log.format", "'json' or 'text'"),
    "a value for a section": ("listen: 8080", "1", "listen", "expected"),
    "a value for a list": ("nodes: http://a", "1", "nodes", "expected"),
    "a value for a list's section": ("nodes:\n  - http://a", "2", "nodes[0]", "as `- url: ...`"),
    "a value for another list's section": ("models: [big]", "1", "models[0]", "as `- name: ...`"),
    "yes for a number": ("listen: {max_connections: yes}", "1", "listen.max_connections", "a whole number"),
    "off for a time": ("timeouts:\n  body: off", "2", "timeouts.body", "expected a number"),
    "yes for a number of a mapping": ("pressure: {weights: {a: yes}}", "1", "pressure.weights.a", "expected a number"),
    "time with a unit": ("timeouts: {body: 10 seconds}", "1", "timeouts.body", "of seconds, without a unit"),
    "a variable for a secret": ("admin: {token: '${TOKEN_OF_ADMIN}'}", "1", "admin.token", "{env: NAME}"),
    "a variable for a URL": ("nodes:\n  - url: ${NODE}", "2", "nodes[0].url", "is not replaced by a variable"),
    "a variable in a URL": ("redis: {url: 'redis://:${PW}@h'}", "1", "redis.url", "is not replaced by a variable"),
    "missing": ("nodes:\n  - api_key: x", "2", "nodes[0].url", "is missing"),
    "no URL": ("nodes:\n  - url: a:8000", "2", "nodes[0].url", "http://host:8000"),
    "URL of another kind": ("nodes:\n  - url: ftp://a", "2", "nodes[0].url", "http://host:8000"),
    "URL with a password": ("nodes:\n  - url: http://u:p@a", "2", "nodes[0].url", "give a key as api_key"),
    "URL with a query": ("nodes:\n  - url: http://a:80?x=1", "2", "nodes[0].url", "no user, query or fragment"),
    "URL of a request": ("nodes:\n  - url: http://a/v1/chat/completions", "2", "nodes[0].url", "leave /v1 and what"),
    "URL with a wrong port": ("nodes:\n  - url: http://a:99999", "2", "nodes[0].url", "up to 65535"),
    "authority that is not there": (
        "nodes:\n  - url: https://a\n    ca_file: /no/ca.pem",
        "3",
        "nodes[0].ca_file",
        "/no/ca.pem",
    ),
    "certificate that is not there": ("listen:\n  tls: {cert: /no/c, key: /dev/null}", "2", "listen.tls.cert", "/no/c"),
    "key that is no key": ("listen:\n  tls: {cert: LICENSE, key: LICENSE}", "2", "listen.tls", "not a certificate"),
    "authority of Redis that is not there": (
        "redis:\n  url: rediss://h\n  ca_file: /no/ca.pem",
        "3",
        "redis.ca_file",
        "/no/ca.pem",
    ),
    "class with a capital": ("queue: {classes: [{name: Fast}]}", "1", "queue.classes[0].name", "lower-case letters"),
    "prefix that ends in a digit": ("redis: {url: redis://h, prefix: fg2}", "1", "redis.prefix", "no digit last"),
    "rules for a model that is not there": (
        f"models:\n  - name: big\ntenants:\n  - name: a\n    keys: [sha256: {KEY}]\n    per_model:\n      - model: bg",
        "7",
        "tenants[0].per_model[0].model",
        "bg is not in models: big",
    ),
    "rules for a model by its alias": (
        "models:\n  - {name: big, aliases: [b]}\n"
        f"tenants:\n  - name: a\n    keys: [sha256: {KEY}]\n    per_model:\n      - model: b",
        "7",
        "tenants[0].per_model[0].model",
        "b is an alias: name big",
    ),
    "more by default than at most": (
        "thinking:\n  max_budget: 5\n  default_budget: 6",
        "1",
        "thinking",
        "default_budget (6) is more than max_budget (5)",
    ),
    "a floor above the most": (
        "thinking: {max_budget: 5, floor_with_tools: 6}",
        "1",
        "thinking",
        "floor_with_tools (6)",
    ),
    "several budgets above the most": (
        "thinking: {max_budget: 5, default_budget: 6, floor: 7}",
        "1",
        "thinking",
        "default_budget (6) and floor (7) are more than max_budget (5)",
    ),
    "a longer answer by default than at most": (
        "models:\n  - name: a\n    output: {default_tokens: 6, max_tokens: 5}",
        "3",
        "models[0].output",
        "default_tokens (6) is more than max_tokens (5)",
    ),
    "an effort that is none": ("thinking:\n  efforts: {hgih: 5}", "2", "thinking.efforts.hgih", "did you mean 'high'?"),
    "tenant without keys": ("tenants:\n  - name: a\n    keys: []", "3", "tenants[0].keys", "at least one"),
    "tenant without a name": (f"tenants:\n  - name: ''\n    keys: [sha256: {KEY}]", "2", "tenants[0].name", "at least"),
    "key that is no digest": (
        "tenants:\n  - name: a\n    keys:\n      - sha256: abc",
        "4",
        "tenants[0].keys[0].sha256",
        "fleetgate keys new",
    ),
    "name with a space": ("models:\n  - name: a b", "2", "models[0].name", "letters, digits and any of"),
    "proxy that is no address": ("listen:\n  trusted_proxies: [here]", "2", "listen.trusted_proxies[0]", "'here'"),
    "secret in an unset variable": ("admin:\n  token: {env: NOPE}", "2", "admin.token", "NOPE is not set"),
    "secret in a missing file": ("admin:\n  token: {file: /no/t}", "2", "admin.token", "/no/t cannot be read"),
    "secret from two places": ("admin:\n  token: {env: A, file: /b}", "2", "admin.token", "{env: NAME} or"),
    "secret without a place": ("admin:\n  token: {}", "2", "admin.token", "{env: NAME} or {file: PATH}"),
    "secret that is empty": ("admin:\n  token: ''", "2", "admin.token", "at least one printable"),
    "secret that is a number": ("admin:\n  token: 123456", "2", "admin.token", "a secret is a string"),
    "setting given twice": ("listen:\n  port: 1\n  port: 2", "3", "listen.port", "already set in line 2"),
    "section given twice": ("log: {level: info}\nlog: {level: debug}", "2", "log", "already set in line 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place_its_path_and_what_was_expected(name: str, file: Path) -> None:
    text, line, path, expected = MISTAKES[name]
    found = [problem for problem in problems(file, text) if problem.path == path]
    assert [problem.where for problem in found] == [f"{file}:{line}"]
    assert expected in found[0].expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("listen: [a", "fleetgate.yaml:1: is not valid YAML"),
        ("a: b: c", "fleetgate.yaml:1: is not valid YAML: a second colon"),
        ("listen:\n\tport: 1", "fleetgate.yaml:2: is not valid YAML: a tab; indent with spaces"),
        ("listen:\n  port: 1\n   host: a", "fleetgate.yaml:3: is not valid YAML: a second colon"),
        ("nodes:\n  - url: a\n    weight: 1\n   - url: b", "fleetgate.yaml:4: is not valid YAML"),
        ("listen:\n  port: 1\nnodes", "fleetgate.yaml:3: is not valid YAML: a colon is missing"),
        ("nodes:\n  - url:http://a:8000", "put a blank behind 'url:'"),
        ("nodes:\n  - token:hush", "nodes[0]: expected a mapping of settings"),
        ("listen: !!python/object/apply:os.system [ls]", "fleetgate.yaml:1: is not valid YAML"),
        ("listen: *nobody", "fleetgate.yaml:1: is not valid YAML: a value that begins with *"),
        ("\x00", "fleetgate.yaml: is not valid YAML"),
        ("- a\n- b", "expected a mapping of settings"),
        ("just text", "expected a mapping of settings"),
        ("no_auth: 2024-99-99", "fleetgate.yaml"),
        ("listen: " + "[" * 3000, "fleetgate.yaml"),
        ("listen: &a [*a]", "fleetgate.yaml"),
    ],
)
def test_what_is_no_settings_file_is_told_in_one_line(text: str, expected: str, file: Path) -> None:
    lines = told(file, text)
    assert len(lines) == 1
    assert lines[0].startswith("fleetgate.yaml") and expected in lines[0]


def test_a_day_that_there_is_not_hides_no_other_mistake(file: Path) -> None:
    key = f"{{sha256: '{'a' * 64}', expires: 2026-02-30}}"
    lines = told(file, f"workers: many\ntenants:\n- name: acme\n  keys: [{key}]\n2026-02-30: 1")
    assert list(dict.fromkeys(tuple(line.split(": ")[:2]) for line in lines)) == [
        ("fleetgate.yaml:1", "workers"),
        ("fleetgate.yaml:4", "tenants[0].keys[0].expires"),
        ("fleetgate.yaml:5", "2026-02-30"),
    ]


def test_yaml_lists_and_maps_are_not_executed_whatever_they_hold(file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    problems(file, f"listen: !!python/object/apply:os.mkdir [{mark}]")
    assert not mark.exists()


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=reason):
            load_config(path)
    (tmp_path / "latin.yaml").write_bytes(b"log: {format: \xff}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_all_mistakes_are_told_at_once(file: Path) -> None:
    lines = told(file, "listne: {}\nlisten:\n  port: 99999\nlog:\n  format: jsn\n  levl: info\nworkers: many\n")
    assert [line.split(": ")[1] for line in lines] == [  # from top to bottom
        "listne",
        "listen.port",
        "log.format",
        "log.levl",
        "workers",
    ]


def test_contradictions_are_told_together_with_all_else(file: Path) -> None:
    """A typo in one place must not hide that a node stands there twice."""
    text = "listen: {prot: 1}\nnodes:\n  - url: http://a:1\n  - url: http://a:1\n"
    lines = "\n".join(told(file, text))
    assert "listen.prot" in lines
    assert "given twice" in lines


def test_a_section_left_empty_has_its_defaults(file: Path) -> None:
    """As it is where every line below it was commented out."""
    assert load(file, "listen:\n#  port: 1\nnodes:\nlog:\n") == Config()


# Contradictions

TWICE = {
    "a node": ("nodes:\n  - url: http://a:1\n  - url: http://a:1/\n", "the node URL http://a:1", 3),
    "a node in other letters": ("nodes:\n  - url: http://a:1\n  - url: HTTP://A:1\n", "the node URL", 3),
    "a model": ("models:\n  - name: a\n  - name: a\n", "the model name or alias a", 3),
    "an alias": ("models:\n  - name: a\n  - {name: b, aliases: [a]}\n", "the model name or alias a", 3),
    "a tenant": (
        f"tenants:\n  - name: a\n    keys: [sha256: {KEY}]\n  - name: a\n    keys: [sha256: {OTHER_KEY}]\n",
        "the tenant a",
        4,
    ),
    "a key": (
        f"tenants:\n  - name: a\n    keys: [sha256: {KEY}]\n  - name: b\n    keys: [sha256: {KEY}]\n",
        "the key",
        5,
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_what_must_be_unique_is_not_there_twice(name: str, file: Path) -> None:
    text, what, _ = TWICE[name]
    assert any(what in line and "given twice" in line for line in told(file, text))


@pytest.mark.parametrize("name", TWICE)
def test_a_duplicate_is_told_with_its_line(name: str, file: Path) -> None:
    text, _, line = TWICE[name]
    assert [problem.where for problem in problems(file, text)] == [f"{file}:{line}"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "gateway.internal", ""])
def test_beyond_loopback_tenants_are_needed(host: str, file: Path) -> None:
    text = f"listen: {{host: '{host}'}}\n"
    assert "beyond loopback" in "".join(told(file, text))
    assert load(file, text, no_auth=True).no_auth
    assert load(file, text + f"tenants: [{{name: a, keys: [sha256: {KEY}]}}]").tenants


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_no_tenants_are_needed(host: str, file: Path) -> None:
    assert load(file, f"listen: {{host: '{host}'}}").listen.host == host


def test_the_admin_listener_beyond_loopback_needs_a_token(file: Path) -> None:
    assert "admin.token" in "".join(told(file, "admin: {host: 0.0.0.0}"))
    assert load(file, "admin: {host: 0.0.0.0, token: abc}").admin.token is not None


@pytest.mark.parametrize(
    "text",
    [
        "listen: {port: 9091}",
        "admin: {port: 8080}",
        "listen: {host: 0.0.0.0, port: 9091}\nno_auth: true",
        "listen: {host: 127.0.0.2, port: 9091}",
    ],
)
def test_the_two_listeners_need_two_ports(text: str, file: Path) -> None:
    """They are told apart by port: with one for both, the public address would serve the admin routes."""
    assert "port" in "".join(told(file, text))


def test_port_0_may_be_given_for_both(file: Path) -> None:
    assert load(file, "listen: {port: 0}\nadmin: {port: 0}").admin.port == 0


# Variables


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("FLEETGATE_LISTEN__PROT", "1", "did you mean 'port'?"),
        ("FLEETGATE_LISTEN__PORT", "x", "expected a whole number"),
        ("FLEETGATE_LISTNE__PORT", "1", "did you mean 'listen'?"),
        ("FLEETGATE_LOG_FORMAT", "text", "sets nothing"),
        ("FLEETGATE_LISTEN_PORT", "9000", "sets nothing"),
        ("FLEETGATE_ADMIN_PORT", "9000", "sets nothing"),
        ("FLEETGATE_PORT", "9000", "sets nothing"),
        ("FLEETGATE_NODES", "http://a", "as JSON"),
        ("FLEETGATE_NODES", '[{"url": "ftp://a"}]', "http://host:8000"),
        ("FLEETGATE_NODES__0__URL", "http://a", "expected"),
        ("FLEETGATE_LOG__FORMAT", "xml", "'json' or 'text'"),
    ],
)
def test_a_mistake_in_a_variable_names_the_variable(
    variable: str, value: str, expected: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    lines = told(file, "listen:\n  host: 127.0.0.1\n")
    assert len(lines) == 1
    assert variable in lines[0] and expected in lines[0]


def test_a_variable_beside_a_mistake_in_the_file_is_not_blamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_LISTEN__HOSTS", '["*"]')
    monkeypatch.setenv("FLEETGATE_ADMIN__PORT", "99999")
    found = problems(file, "log: {}\nlisten:\n  port: 99999\nadmin: {port: 1}\n")
    assert [(problem.where, problem.path) for problem in found] == [
        ("the variable FLEETGATE_ADMIN__PORT", "admin.port"),
        (f"{file}:3", "listen.port"),
    ]


def test_what_other_processes_start_with_is_whole_and_good(file: Path, tmp_path: Path) -> None:
    """The file may change between being read and being kept for processes that start later."""
    file.write_text("workers: 2")
    watch = ConfigWatch(file, {}, tmp_path)
    spoilt = ConfigWatch(tmp_path / "other.yaml", {}, tmp_path)
    assert watch.read()[0] is not None
    (tmp_path / "other.yaml").write_text("workers: none")
    spoilt._save_last_good(tmp_path / "last-good.yaml")
    file.write_text("workers: nonsense")
    assert watch.read_or_last_good().workers == 2
    assert sorted(each.name for each in tmp_path.iterdir() if "last-good" in each.name) == ["last-good.yaml"]


def test_mistakes_in_file_and_variables_are_told_together(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_LISTNE__PORT", "1")
    monkeypatch.setenv("FLEETGATE_NODES", "[")
    assert len(told(file, "workers: many\n")) == 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLEETGATE_SERVICE_HOST", "10.0.0.1"),
        ("FLEETGATE_SERVICE_PORT", "8080"),
        ("FLEETGATE_SERVICE_PORT_HTTP", "8080"),
        ("FLEETGATE_PORT", "tcp://10.0.0.1:8080"),
        ("FLEETGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("FLEETGATE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FLEETGATE_PORT_8080_TCP_PROTO", "tcp"),
        ("FLEETGATE_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("FLEETGATE_ADMIN_PORT", "tcp://10.0.0.1:9091"),
        ("FLEETGATE_ADMIN_PORT_9091_TCP_PORT", "9091"),
        ("FLEETGATE_WORKER_PROFILE", "h200"),
    ],
)
def test_variables_of_kubernetes_and_of_the_workers_are_left_alone(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert load_config(None) == Config()


# Secrets


def test_secrets_come_as_text_from_a_variable_or_from_a_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("SOME_TOKEN", "from-variable")
    for given, expected in (
        ("plain", "plain"),
        ("{env: SOME_TOKEN}", "from-variable"),
        (f"{{file: {tmp_path / 'token'}}}", "from-file"),
        ("{value: plain}", "plain"),
    ):
        token = load(file, f"admin: {{token: {given}}}").admin.token
        assert token is not None and token.reveal() == expected


@pytest.mark.parametrize("secret", ["abc", "123456", "true", "null", "1e5", '{"a"', "[]", '"quoted"'])
def test_a_secret_in_a_variable_may_look_like_anything(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETGATE_ADMIN__TOKEN", secret)
    monkeypatch.setenv("FLEETGATE_RESPONSE_SECRET", secret)
    config = load_config(None)
    assert config.admin.token is not None and config.admin.token.reveal() == secret
    assert config.response_secret is not None and config.response_secret.reveal() == secret


def test_a_variable_can_name_another_place_for_a_secret(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("mounted")
    monkeypatch.setenv("FLEETGATE_ADMIN__TOKEN__FILE", str(tmp_path / "token"))
    token = load(file, "admin: {token: {env: SOMETHING}}").admin.token
    assert token is not None and token.reveal() == "mounted"


def test_secrets_are_never_printed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(HUSH)
    monkeypatch.setenv("HUSHED", HUSH)
    config = load(
        file,
        f"admin: {{token: {HUSH}}}\nresponse_secret: {{env: HUSHED}}\n"
        f"nodes: [{{url: http://a:1, api_key: {{file: {tmp_path / 'key'}}}}}]\n",
    )
    for shown in (repr(config), str(config), f"{config.model_dump()}", config.model_dump_json()):
        assert HUSH not in shown


@pytest.mark.parametrize(
    "text",
    [
        f"admin: {{token: {HUSH}, tokn: {HUSH}}}",
        f"admin: {{token: [{HUSH}]}}",
        f"admin: {{token: {{envv: {HUSH}}}}}",
        f"admin: {{token: {{value: {HUSH}, env: A}}}}",
        f"admin: {{token: {HUSH}\u00e9}}",
        f"admin: {{token: {HUSH}}}\nnodes: [{{url: x}}]",
        f"response_secret: [{HUSH}]",
        f"nodes: [{{url: 'http://u:{HUSH}@a'}}]",
        f"nodes: [{{url: 'a:1', api_key: {HUSH}}}]",
        f"tenants: [{{name: a, keys: [{HUSH}]}}]",
        f"tenants: [{{name: a, keys: [{{sha256: {HUSH}}}]}}]",
        f"tenants: [{{name: a, keys: {HUSH}}}]",
        f"admin: {{token: {HUSH}}}: x",
        f"admin: {{token: '{HUSH}",
    ],
)
def test_what_is_said_about_a_mistake_shows_no_secret(text: str, file: Path) -> None:
    assert HUSH not in "".join(told(file, text))


@pytest.mark.parametrize("variable", ["FLEETGATE_ADMIN__TOKEN", "FLEETGATE_RESPONSE_SECRET", "FLEETGATE_TENANTS"])
@pytest.mark.parametrize("value", [f"{HUSH}\n", f'{{"valu": "{HUSH}"}}', f'["{HUSH}"'])
def test_what_is_said_about_a_variable_shows_no_secret(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    try:
        load_config(None)
    except ConfigError as error:
        assert HUSH not in str(error)


# The example


def test_the_example_is_a_good_configuration() -> None:
    config = load_config(EXAMPLE)
    assert config.nodes and config.models


def test_the_example_shows_the_defaults() -> None:
    shown = load_config(EXAMPLE).model_dump(exclude={"nodes", "models"})
    assert shown == Config().model_dump(exclude={"nodes", "models"})


def _settings(model: type[BaseModel] = Config, above: str = "") -> Iterator[tuple[str, str]]:
    """The path of every setting in the schema, a list's items under the list's name; and what it is in its section."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        yield path, f"{model.__name__}.{name}"
        for section in _sections_in(field.annotation):
            if section.__name__ != "Secret":
                yield from _settings(section, f"{path}.")


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def _paths_in(value: Any, above: str = "") -> Iterator[str]:
    """The paths of everything that stands in a document."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield f"{above}{name}"
            yield from _paths_in(below, f"{above}{name}.")
    elif isinstance(value, list):
        for item in value:
            yield from _paths_in(item, above)


def test_the_example_mentions_every_setting_and_its_commented_parts_are_good(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every commented setting brought to life it still loads, and leaves no setting of the schema out."""
    text = re.sub(r"(?m)^( *)# (?=(?: *- )? *[a-z_0-9]+:(?: |$))", r"\1", EXAMPLE.read_text())
    text = text.replace("\ntenants: []\n", "\n").replace("/etc/fleetgate", str(tmp_path))
    made = self_signed(tmp_path)
    for name, copied in (("ca.pem", made.cert), ("redis.crt", made.cert), ("redis.key", made.key)):
        (tmp_path / name).write_bytes(copied.read_bytes())
    (tmp_path / "nemotron-3-ultra").mkdir()
    (tmp_path / "nemotron-3-ultra" / "tokenizer.json").write_text("{}")
    for name in ("NODE_API_KEY", "ADMIN_TOKEN", "ADMIN_TOKEN_OF_ADA", "RESPONSE_SECRET", "WORKER_SECRET", "OTLP_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("REDIS_URL", "redis://user:secret@127.0.0.1:6379/0")
    load(file, text)
    shown = set(_paths_in(yaml.safe_load(text)))
    known = {setting for path, setting in _settings() if path in shown}  # what stands in several places is told once
    missing = {path for path, setting in _settings() if setting not in known}
    assert not missing, f"{EXAMPLE.name} does not mention {sorted(missing)}"


def test_the_example_says_what_needs_a_restart() -> None:
    """The settings that a reload only reports carry the mark, so that nobody waits for them to take effect."""
    lines = EXAMPLE.read_text().splitlines()
    for section in ("listen:", "admin:", "log:"):
        assert "(restart)" in lines[lines.index(section) - 1]
    assert any(line.startswith("workers:") and "(restart)" in line for line in lines)


def test_the_page_names_what_a_reload_does_not_change() -> None:
    page = (EXAMPLE.parent / "docs" / "configuration.md").read_text()
    told = page.partition("Read at start only")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w.]+)`", told)) == {*READ_AT_START, "routing_group", "tokenizer"}


REGISTRATIONS = "discovery: {registrations: {%s}}\n"


def test_registrations_need_redis_and_somebody_to_believe(file: Path) -> None:
    redis = "redis: {url: 'redis://127.0.0.1'}\n"
    with pytest.raises(ConfigError, match=r"discovery: registrations are kept in Redis: set redis"):
        load(file, REGISTRATIONS % "secret: s")
    with pytest.raises(ConfigError, match=r"discovery\.registrations: needs secret .* or networks"):
        load(file, redis + REGISTRATIONS % "models: [m]")
    with pytest.raises(ConfigError, match=r"networks\[0\]: '10\.0\.0\.0/33' is not an address or a network"):
        load(file, redis + REGISTRATIONS % "networks: [10.0.0.0/33]")
    assert load(file, redis + REGISTRATIONS % "networks: [10.0.0.0/8]").discovery.registrations is not None


LIMITED = "workers: 2\nlimits: {default: {requests_per_minute: 5}}\n"


def test_limits_of_several_processes_need_a_place_to_count_together(file: Path) -> None:
    with pytest.raises(ConfigError, match="limits with more than one process need redis"):
        load(file, LIMITED)
    assert load(file, LIMITED + "redis: {url: 'redis://127.0.0.1'}\n").workers == 2
    assert load(file, LIMITED.replace("2", "1", 1)).workers == 1


def test_a_bucket_that_no_arithmetic_could_hold_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits\.default: tokens_per_minute with burst_seconds 120 holds more than"):
        load(file, "limits: {default: {tokens_per_minute: 60000000, burst_seconds: 120}}\n")


# The command


def fleetgate(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLEETGATE, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60
    )


def test_check_passes_a_good_file() -> None:
    done = fleetgate("check", EXAMPLE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "valid (1 node, 1 model, 0 tenants)" in done.stdout


def test_check_tells_that_there_is_nothing_to_serve(file: Path) -> None:
    file.write_text("workers: 2\n")
    done = fleetgate("check", file)
    assert done.returncode == 0
    assert "No nodes are configured: `fleetgate serve` needs --node" in done.stdout


def test_the_version_is_told() -> None:
    done = fleetgate("--version")
    assert (done.returncode, done.stdout) == (0, f"fleetgate {version('fleetgate')}\n")


def test_help_shows_defaults() -> None:
    shown = " ".join(fleetgate("serve", "--help", COLUMNS="200").stdout.split())
    for default in ("127.0.0.1", "8080", "9091", "json"):
        assert f"(default: {default})" in shown


def test_check_tells_every_mistake_and_fails(file: Path) -> None:
    file.write_text(f"listne: {{}}\nlisten:\n  port: 99999\nadmin: {{token: {HUSH}, tokn: {HUSH}}}\n")
    done = fleetgate("check", file, FLEETGATE_LOG__FORMAT="xml")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 4
    for part in (f"{file}:1: listne", f"{file}:3: listen.port", f"{file}:4: admin.tokn", "FLEETGATE_LOG__FORMAT"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr and HUSH not in done.stderr


@pytest.mark.parametrize("text", ["no_auth: 2024-99-99", "listen: [", "listen: " + "[" * 3000])
def test_check_never_shows_a_stack_trace(text: str, file: Path) -> None:
    file.write_text(text)
    done = fleetgate("check", file)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_check_of_a_file_that_is_not_there() -> None:
    done = fleetgate("check", "/no/such.yaml")
    assert done.returncode == 2
    assert "/no/such.yaml" in done.stderr and "No such file" in done.stderr


def test_a_new_key_comes_with_its_line_for_the_file(file: Path) -> None:
    done = fleetgate("keys", "new")
    assert done.returncode == 0
    key = re.search(r"\bfg-\w{46}\b", done.stdout)
    digest = re.search(r"sha256: ([0-9a-f]{64})", done.stdout)
    assert key is not None and digest is not None
    assert key_digest(key.group()).hex() == digest.group(1)
    config = load(file, f"tenants:\n  - name: a\n    keys:\n      - sha256: {digest.group(1)}\n")
    assert config.tenants[0].keys[0].sha256 == digest.group(1)
