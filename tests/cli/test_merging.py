"""Settings merged into files of other programs: what was there stays, byte for byte where it can."""

import contextlib
import json
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.connect import json_text
from gateway.cli.connect.merging import CannotEdit, Format, merged_text, read
from gateway.cli.connect.trees import merge

CLAUDE = """{
  // who may do what
  "permissions": {"allow": ["Bash(ls:*)"]},
  "env": {
    "ANTHROPIC_BASE_URL": "https://old.example", /* the old one */
    "EDITOR": "vi", // kept
  },
}
"""
CODEX = """# mine
model = "gpt-5"   # the old one
approval_policy = "on-request"

[model_providers.other]
name = "other"

[model_providers.fleetgate]
base_url = "http://old/v1"
[projects."/home/ada"]
trust_level = "trusted"
"""
CONTINUE = """name: Local
version: 1.0.0
models:
  # the one for chat
  - name: Other
    provider: ollama  # at home
    model: llama
  - name: fleetgate
    provider: openai
    apiBase: http://old/v1
    roles: [chat]
# the end
"""


def test_json_with_comments_keeps_them() -> None:
    settings = {"env": {"ANTHROPIC_BASE_URL": "http://new", "ANTHROPIC_MODEL": "m"}, "model": "m"}
    after = merged_text(CLAUDE, settings, "json")
    assert read(after, "json") == merge(read(CLAUDE, "json"), settings)
    removed = set(CLAUDE.splitlines()) - set(after.splitlines())
    assert removed == {'    "ANTHROPIC_BASE_URL": "https://old.example", /* the old one */'}
    assert '    "ANTHROPIC_BASE_URL": "http://new", /* the old one */\n' in after
    assert '    "ANTHROPIC_MODEL": "m",' in after


def test_toml_keeps_comments_and_other_tables() -> None:
    table = {"base_url": "http://new/v1", "wire_api": "responses"}
    settings = {"model": "m", "model_provider": "fleetgate", "model_providers": {"fleetgate": table}}
    after = merged_text(CODEX, settings, "toml")
    assert 'model = "m"   # the old one\n' in after
    assert set(CODEX.splitlines()) - set(after.splitlines()) == {
        'model = "gpt-5"   # the old one',
        'base_url = "http://old/v1"',
    }
    assert tomllib.loads(after)["model_providers"]["other"] == {"name": "other"}
    assert tomllib.loads(after)["model_provider"] == "fleetgate"


def test_yaml_keeps_comments_and_other_models() -> None:
    settings = {"models": [{"name": "fleetgate", "apiBase": "http://new/v1", "model": "m"}, {"name": "second"}]}
    after = merged_text(CONTINUE, settings, "yaml")
    assert set(CONTINUE.splitlines()) - set(after.splitlines()) == {"    apiBase: http://old/v1"}
    models = yaml.safe_load(after)["models"]
    assert [model["name"] for model in models] == ["Other", "fleetgate", "second"]
    assert models[1] == {
        "name": "fleetgate",
        "provider": "openai",
        "roles": ["chat"],
        "apiBase": "http://new/v1",
        "model": "m",
    }


@pytest.mark.parametrize(
    "line",
    [
        "model = 'x' # don't ask",
        'model = "a # b" # say "x" # twice',
        'model = "x"# close',
        'model = "x" \t # tab\r',
    ],
)
def test_any_comment_behind_a_key_of_toml_stays(line: str) -> None:
    after = merged_text(f"{line}\nother = 1\n", {"model": "m"}, "toml")
    comment = {"'": " # don't ask", "a": ' # say "x" # twice', "x": line[11:]}[line[9] if line[8] == '"' else "'"]
    assert after == f'model = "m"{comment}\nother = 1\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("roles: [chat] # mine\n", 'roles: ["chat", "edit"] # mine\n'),
        ("roles:\n- chat\n- apply\n# mine\n", "roles:\n- chat\n- edit\n# mine\n"),
        ("roles:\n    - chat\n    - apply\na: 1\n", "roles:\n    - chat\n    - edit\na: 1\n"),
        ("roles: []\n", 'roles: ["chat", "edit"]\n'),
        ("roles:\n  - chat\n  - edit\n", "roles:\n  - chat\n  - edit\n"),
    ],
)
def test_a_list_of_yaml_is_replaced(before: str, after: str) -> None:
    assert merged_text(before + "b: 1\n", {"roles": ["chat", "edit"], "b": 2}, "yaml") == after + "b: 2\n"


@pytest.mark.parametrize("form", ["json", "yaml", "toml"])
@pytest.mark.parametrize("text", ["", "\n", "\n\n"])
def test_an_empty_file_is_written(form: Format, text: str) -> None:
    settings = {"model": "m", "provider": {"fleetgate": {"url": "http://new", "port": 1, "on": True}}}
    assert read(merged_text(text, settings, form), form) == settings


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("json", CLAUDE),
        ("json", "{}"),
        ("json", '{"a": 1}'),
        ("json", '\ufeff{"env": {}}'),
        ("json", '{\r\n\t"a": 1\r\n}\r\n'),
        ("yaml", CONTINUE),
        ("yaml", "a: |\n  text\n\n# end"),
        ("yaml", "a:\n- b\n- c: d"),
        ("toml", CODEX),
        ("toml", "[a]\nb = 1"),
        ("toml", "a = [\n  1,\n]\n"),
    ],
)
def test_a_second_time_changes_nothing(form: Format, text: str) -> None:
    settings = {"env": {"URL": "http://new", "N": 5}, "model": "m"}
    once = merged_text(text, settings, form)
    assert merged_text(once, settings, form) == once
    assert read(once, form) == merge(read(text, form), settings)


@pytest.mark.parametrize(
    ("form", "text", "why"),
    [
        ("json", "{", "not valid JSON"),
        ("json", '{"env": 1, "env": 2}', "twice"),
        ("json", "[1]", "a form that is not edited"),
        ("json", "[" * 5000, "too deeply"),
        ("yaml", "a: [", "not valid YAML"),
        ("yaml", "{a: 1}", "a form that is not edited"),
        ("yaml", "env: &x\n  URL: old\nother: *x\n", "a form that is not edited"),
        ("yaml", "model:\n- a # why\n", "a form that is not edited"),
        ("toml", "a =", "not valid TOML"),
        ("toml", 'env = {URL = "old"}\n', "a form that is not edited"),
        ("toml", 'env.URL = "old"\n', "a form that is not edited"),
        ("toml", 'model = """\nold"""\n', "a form that is not edited"),
    ],
)
def test_what_cannot_be_edited_is_refused(form: Format, text: str, why: str) -> None:
    """Rather than lost: the text is left to its owner."""
    with pytest.raises(CannotEdit, match=why):
        merged_text(text, {"env": {"URL": "http://new"}, "model": "m"}, form)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TREES = st.dictionaries(NAMES, VALUES, max_size=4)


@given(TREES, TREES, st.sampled_from([None, 1, 2, "\t"]))
def test_any_json_is_merged(below: dict[str, Any], above: dict[str, Any], indent: int | str | None) -> None:
    text = json.dumps(below, indent=indent, ensure_ascii=False)
    assert json.loads(merged_text(text, above, "json")) == merge(below, above)


@given(st.text('{}[]:,"/*a1 \n\\', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        json_text.read(text)
