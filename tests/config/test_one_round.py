"""All mistakes of a file and all that is hardly meant in it are told in one round, whatever else is wrong beside."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.admin.blocks import BlockRequest
from gateway.admin.schemas import NewKey, NewTenant
from gateway.config.cross_checks import cross_problems
from gateway.config.document import ConfigError
from gateway.config.doubts import find_doubts
from gateway.config.salvage import salvage
from gateway.config.source import doubts_about, load_config
from gateway.config.tree import Config
from gateway.config.types import PATTERN_WORDS
from gateway.core.access.api_keys import key_digest, key_from

KEY = key_from(b"k" * 40)
DIGEST, OTHER = key_digest("fg-one").hex(), key_digest("fg-two").hex()
NOW = time.time()

FIVE_ROUNDS = f"""
listen: {{port: 8080, prot: 1}}
nodes:
  - url: http://127.0.0.1:8000/v1
  - url: htp://x
  - url: http://127.0.0.1:8001
    max_concurrency: many
models:
  - name: big
    aliases: [b]
    thinking:
      answer_reserve: 9000
      efforts: {{low: 4000, high: 100}}
    output: {{max_tokens: 4000}}
tenants:
  - name: acme
    models: [bgi, b]
    limits: {{usd_per_day: 5}}
    per_model: [{{model: bgg}}]
    keys:
      - sha256: {KEY}
      - sha256: {DIGEST}
        expires: 2020-01-01
        models: [nig]
  - name: acme
    keys: [{{sha256: abc}}]
admin: {{token: x}}
timeouts: {{idle: 5}}
timeouts: {{idle: 6}}
"""

PROBLEMS = [
    ("listen.prot", "did you mean 'port'?"),
    ("nodes[0].url", "leave /v1 and what"),
    ("nodes[1].url", "looks like http://host:8000"),
    ("nodes[2].max_concurrency", "a whole number"),
    ("tenants[0].models[0]", "bgi is not in models: big"),
    ("tenants[0].models[1]", "b is an alias: name big"),
    ("tenants[0].per_model[0].model", "bgg is not in models: big"),
    ("tenants[0].keys[0].sha256", "is a key, where its SHA-256 belongs"),
    ("tenants[0].keys[1].models[0]", "nig is not in models: big"),
    ("tenants[1]", "the tenant acme is given twice"),
    ("tenants[1].keys[0].sha256", "expected the SHA-256 of a key"),
    ("timeouts", "is already set in line"),
    ("timeouts.idle", "is already set in line"),
]

DOUBTS = [
    ("models[0].thinking.answer_reserve", "leaves nothing of output.max_tokens (4000)"),
    ("models[0].thinking.efforts.high", "is less than low (4000)"),
    ("tenants[0].limits.usd_per_day", "for want of a price"),
    ("tenants[0].keys[1].expires", "is past (2020-01-01)"),
    ("admin.token", "can be guessed"),
]


def test_a_file_that_took_five_rounds_takes_one(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    file.write_text(FIVE_ROUNDS)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    for found, expected in ((caught.value.problems, PROBLEMS), (caught.value.doubts, DOUBTS)):
        assert [each.path for each in found] == [path for path, _ in expected]
        for each, (_, words) in zip(found, expected, strict=True):
            assert words in each.expected and each.where.startswith(f"{file}:") and each.line > 1
        assert KEY not in "".join(map(str, found))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("listen: {tls: {cert: /no/c, key: /no/k}}", ["listen.tls.cert", "listen.tls.key"]),
        (
            "redis: {url: 'rediss://h', ca_file: /no/a, cert_file: /no/c, key_file: /no/k}",
            ["redis.ca_file", "redis.cert_file", "redis.key_file"],
        ),
        (
            "nodes: [{url: https://a, ca_file: /no/a}, {url: https://b, ca_file: /no/b}]",
            ["nodes[0].ca_file", "nodes[1].ca_file"],
        ),
    ],
)
def test_all_files_that_are_missing_are_told(text: str, paths: list[str], tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert [each.path for each in caught.value.problems] == paths


def test_all_networks_that_are_none_are_told(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    file.write_text("listen: {trusted_proxies: [here, 10.0.0.0/8, 10.0.0.0/33]}")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert [each.path for each in caught.value.problems] == ["listen.trusted_proxies[0]", "listen.trusted_proxies[2]"]


def test_every_pattern_of_a_text_has_words() -> None:
    """Who mistypes a name is told the rule, not a regular expression."""

    def patterns(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            if isinstance(schema.get("pattern"), str):
                yield schema["pattern"]
            for each in schema.values():
                yield from patterns(each)
        elif isinstance(schema, list):
            for each in schema:
                yield from patterns(each)

    kinds = (Config, NewTenant, NewKey, BlockRequest)
    found = {pattern for kind in kinds for pattern in patterns(kind.model_json_schema())}
    assert found == set(PATTERN_WORDS)


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        (f"[{{key: {KEY}}}]", ".key", "is a clear key"),
        (f"[{{api_key: {KEY}, label: old}}]", ".api_key", "is a clear key"),
        (f"[{KEY}]", "", "expected a mapping with the key's SHA-256"),
    ],
)
def test_a_key_where_its_hash_belongs_is_told_with_the_command_that_makes_one(
    keys: str, path: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "fleetgate.yaml"
    file.write_text(f"tenants:\n  - name: acme\n    keys: {keys}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    told = {each.path: each.expected for each in caught.value.problems}
    assert words in told[f"tenants[0].keys[0]{path}"] and KEY not in str(caught.value)
    assert "sha256" in told[f"tenants[0].keys[0]{path}"] and "printf %s KEY | sha256sum" in str(told)


def doubts(**settings: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(doubt.path, doubt.words) for doubt in find_doubts(Config(**settings), NOW)]


STRONG = "b2f1a6c04d9e8375" * 2


def test_settings_that_are_meant_raise_no_doubt() -> None:
    price = {"input": 1.0, "output": 2.0}
    model = {
        "name": "m",
        "price": price,
        "thinking": {"answer_reserve": 100, "efforts": {"low": 1, "high": 2}},
        "output": {"max_tokens": 200},
    }
    key = {"sha256": DIGEST, "expires": "2999-01-01", "limits": {"usd_per_month": 1}}
    assert doubts(models=[model], tenants=[{"name": "t", "keys": [key]}], admin={"token": STRONG}) == []


WEAK = {
    "short": "hush-hush",
    "a pattern": "ababababababababababab",
}


@pytest.mark.parametrize("name", WEAK)
def test_weak_secrets_are_doubted_and_not_shown(name: str) -> None:
    tokens = [{"name": "ada", "token": WEAK[name]}]
    found = doubts(admin={"tokens": tokens}, response_secret=WEAK[name])
    assert [path for path, _ in found] == [("admin", "tokens", 0, "token"), ("response_secret",)]
    assert not any(WEAK[name] in words for _, words in found)


def test_dollars_of_a_model_without_a_price_are_doubted_where_it_may_be_used() -> None:
    models = [{"name": "paid", "price": {"input": 1.0, "output": 2.0}}, {"name": "free"}]
    limits = {"usd_per_day": 1.0}

    def of(**tenant: Any) -> list[tuple[Any, ...]]:
        return doubts(models=models, tenants=[{"name": "t", "keys": [{"sha256": DIGEST}], **tenant}])

    assert of(limits=limits, models=["paid"]) == []
    assert [path for path, _ in of(limits=limits)] == [("tenants", 0, "limits", "usd_per_day")]
    assert [path for path, _ in of(per_model=[{"model": "free", "limits": limits}])]
    assert of(per_model=[{"model": "paid", "limits": limits}]) == []
    key = {"sha256": DIGEST, "models": ["free"], "limits": limits}
    assert [path for path, _ in of(keys=[key])] == [("tenants", 0, "keys", 0, "limits", "usd_per_day")]
    assert doubts(limits={"default": limits})[0][0] == ("limits", "default", "usd_per_day")


def test_a_reserve_is_doubted_where_the_layers_meet() -> None:
    """The tenant's own reserve is fine by itself, and too much for one model."""
    tenant = {"name": "t", "keys": [{"sha256": DIGEST}], "thinking": {"answer_reserve": 500}}
    models = [{"name": "large", "output": {"max_tokens": 9000}}, {"name": "small", "output": {"max_tokens": 400}}]
    found = doubts(models=models, tenants=[tenant])
    assert [path for path, _ in found] == [("tenants", 0, "thinking", "answer_reserve")]
    assert doubts(models=models, tenants=[{**tenant, "models": ["large"]}]) == []
    mended = {**tenant, "per_model": [{"model": "small", "thinking": {"answer_reserve": 10}}]}
    assert doubts(models=models, tenants=[mended]) == []


def test_doubts_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "fleetgate.yaml"
    file.write_text("workers: 1\nadmin:\n  token: short\n")
    assert [each.where for each in doubts_about(load_config(file), file, NOW)] == [f"{file}:3"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["m", "n", "http://a", "x/v1", DIGEST, "2020"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "url", "models", "keys", "sha256", "aliases", "per_model", "model", "thinking"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
TREES = st.dictionaries(
    st.sampled_from(["nodes", "models", "tenants", "discovery", "admin", "redis", "timeouts"]), VALUES, max_size=5
)


@given(TREES)
def test_whatever_is_in_a_file_is_read_as_far_as_it_goes(tree: dict[str, Any]) -> None:
    """Nothing raises, and of what `Config` takes the checks on the raw tree find nothing wrong."""
    found = list(cross_problems(tree))
    salvage(tree)
    try:
        Config(**tree)
    except ValueError:
        return
    assert found == []


def test_the_example_passes_the_checks_on_the_raw_tree() -> None:
    example = Path(__file__).parents[2] / "fleetgate.example.yaml"
    tree = {name: value for name, value in yaml.safe_load(example.read_text()).items() if value is not None}
    assert list(cross_problems(tree)) == []


def test_groups_are_doubted_where_there_is_no_cluster() -> None:
    models = [{"name": "a"}, {"name": "b", "routing_group": "b"}]
    redis = {"url": "redis://127.0.0.1:6379"}
    for settings in ({}, {"redis": redis}):
        [(path, words)] = doubts(models=models, **settings)
        assert path == ("models", 1, "routing_group") and "redis.cluster: true" in words
    assert doubts(models=models, redis={**redis, "cluster": True}) == []


@pytest.mark.parametrize("name", ["", "a b", "{a}", "a:b", "x" * 65, 3])
def test_a_group_has_a_name_that_fits_into_a_key(name: Any) -> None:
    settings: dict[str, Any] = {"models": [{"name": "a", "routing_group": name}]}
    with pytest.raises(ValidationError, match="routing_group"):
        Config(**settings)
