"""Settings under old names: read from every source, reported with their new name, and never set twice."""

import json
import os
import subprocess
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.deprecated import RENAMED
from gateway.config.document import ConfigError
from gateway.config.source import load_config, load_with_deprecations, place_of
from gateway.config.tree import Config
from gateway.core.setting_names import use_new_names
from tests.support.gateway_process import FLEETGATE, gateway_process
from tests.support.gateways import eventually

TOP = [(section, old, new) for section, names in RENAMED.items() for old, new in names.items() if "*" not in section]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("FLEETGATE")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fleetgate.yaml"


def tree(path: str, value: Any) -> dict[str, Any]:
    """`a.b` and 1 as `{"a": {"b": 1}}`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def variable(path: str) -> str:
    return "FLEETGATE_" + path.replace(".", "__").upper()


def get(config: Config, path: str) -> Any:
    return attrgetter(path)(config)


def refused(file: Path | None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    return [str(each) for each in caught.value.problems]


@pytest.mark.parametrize(("section", "old", "new"), TOP)
def test_an_old_name_is_read_from_every_source(
    section: str, old: str, new: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, instead = f"{section}.{old}", f"{section}.{new}"
    file.write_text("\n" + yaml.safe_dump(tree(path, 7)))
    line = section.count(".") + 3
    config, deprecated = load_with_deprecations(file)
    assert get(config, instead) == 7
    assert [str(each) for each in deprecated] == [f"{file}:{line}: {path}: is deprecated: use {instead}"]
    assert place_of(file, tuple(instead.split("."))) == f"{file}:{line}"

    monkeypatch.setenv(variable(path).lower(), "8")
    config, deprecated = load_with_deprecations(None)
    assert get(config, instead) == 8
    [each] = deprecated
    assert (each.where, each.use) == (f"the variable {variable(path).lower()}", variable(instead))
    assert get(load_config(file), instead) == 8, "a variable goes over the file, both under the old name"

    monkeypatch.delenv(variable(path).lower())
    top, _, below = path.partition(".")
    monkeypatch.setenv(variable(top), json.dumps(tree(below, 9)))
    config, deprecated = load_with_deprecations(None)
    assert get(config, instead) == 9
    assert [str(each) for each in deprecated] == [f"the variable {variable(top)}: {path}: is deprecated: use {instead}"]


@pytest.mark.parametrize(("section", "old", "new"), TOP)
def test_a_new_name_is_not_deprecated(
    section: str, old: str, new: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(yaml.safe_dump(tree(f"{section}.{new}", 7)))
    monkeypatch.setenv(variable(f"{section}.{new}"), "8")
    config, deprecated = load_with_deprecations(file)
    assert (get(config, f"{section}.{new}"), deprecated) == (8, [])


@pytest.mark.parametrize(("section", "old", "new"), TOP)
def test_both_names_are_an_error_that_tells_both_places(
    section: str, old: str, new: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, instead = f"{section}.{old}", f"{section}.{new}"
    line = section.count(".") + 2
    top, _, below = instead.partition(".")

    def expect(place: str, other: str, source: Path | None = file) -> None:
        keep = f"{path}: is the deprecated name of {instead}, which is set as well ({other}): keep {instead} only"
        assert refused(source) == [f"{place}: {keep}"]

    file.write_text(yaml.safe_dump(tree(section, {old: 7, new: 7}), sort_keys=False))
    expect(f"{file}:{line}", f"{file}:{line + 1}")
    file.write_text(yaml.safe_dump(tree(path, 7)))
    monkeypatch.setenv(variable(instead), "8")
    expect(f"{file}:{line}", f"the variable {variable(instead)}")
    file.write_text(yaml.safe_dump(tree(instead, 7)))
    monkeypatch.delenv(variable(instead))
    monkeypatch.setenv(variable(path), "8")
    expect(f"the variable {variable(path)}", f"{file}:{line}")
    monkeypatch.setenv(variable(top), json.dumps(tree(below, 9)))
    expect(f"the variable {variable(path)}", f"the variable {variable(top)}", None)


@pytest.mark.parametrize(("section", "old", "new"), TOP)
def test_a_wrong_value_is_reported_under_the_name_that_was_written(
    section: str, old: str, new: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{section}.{old}"
    file.write_text(yaml.safe_dump(tree(path, "often")))
    [problem] = refused(file)
    assert problem.startswith(f"{file}:{2 + section.count('.')}: {path}: expected a")
    file.write_text("")
    monkeypatch.setenv(variable(path), "often")
    [problem] = refused(file)
    assert problem.startswith(f"the variable {variable(path)}: {path}: expected a")
    monkeypatch.delenv(variable(path))
    monkeypatch.setenv(variable(f"{section}.{new}"), "often")
    [problem] = refused(file)
    assert problem.startswith(f"the variable {variable(f'{section}.{new}')}: {section}.{new}: expected a")


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    for section, names in RENAMED.items():
        for old, new in names.items():
            data: Any = 1
            for part in [*section.split("."), new][::-1]:
                data = [data] if part == "*" else {part: data}
            if "*" not in section:
                assert new in type(get(Config(), section)).model_fields
                assert old not in type(get(Config(), section)).model_fields
            assert use_new_names(data, RENAMED).data == data, "a new name is not an old one, too"


def test_the_page_lists_every_deprecated_name() -> None:
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    for section, names in RENAMED.items():
        for old, new in names.items():
            path = section.replace(".*", "[]")
            assert f"| `{path}.{old}` | `{path}.{new}` |" in page


def test_what_is_no_section_is_left_to_the_checks(file: Path) -> None:
    for text in ("timeouts: 3", "timeouts: [3]", "timeouts: {shutdown_delay: {announce: 3}}"):
        file.write_text(text)
        assert refused(file)[0].startswith(f"{file}:1: timeouts")
    file.write_text("timeouts: {announce:}")
    assert load_with_deprecations(file) == (Config(), [])


def test_renaming_changes_nothing_in_place() -> None:
    data = {"timeouts": {"announce": 1}, "tenants": [{"name": "a"}]}
    before = json.dumps(data)
    assert use_new_names(data, RENAMED).data["timeouts"] == {"shutdown_delay": 1}
    assert json.dumps(data) == before


def test_of_a_section_with_both_names_the_new_one_counts() -> None:
    found = use_new_names({"timeouts": {"announce": 1, "shutdown_delay": 2}}, RENAMED)
    assert found.data == {"timeouts": {"shutdown_delay": 2}}
    assert found.twice == (("timeouts", "shutdown_delay"),)


TENANTS = f"""
tenants:
  - name: a
    limits: {{thinking_tokens_per_minute: 1}}
    per_model:
      - model: m
        limits:
          thinking_tokens_per_minute: 2
    keys:
      - sha256: {"a" * 64}
        limits: {{thinking_tokens_per_minute: 3}}
"""
PLACES = {
    "tenants[0].limits": 4,
    "tenants[0].per_model[0].limits": 8,
    "tenants[0].keys[0].limits": 11,
}


def test_limits_of_tenants_models_and_keys_are_read_under_their_old_name(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limits(config: Config) -> list[int | None]:
        [tenant] = config.tenants
        parts = (tenant.limits, tenant.per_model[0].limits, tenant.keys[0].limits)
        return [part.reasoning_tokens_per_minute for part in parts]

    old, new = "thinking_tokens_per_minute", "reasoning_tokens_per_minute"
    file.write_text(TENANTS)
    config, deprecated = load_with_deprecations(file)
    assert limits(config) == [1, 2, 3]
    assert [str(each) for each in deprecated] == [
        f"{file}:{line}: {path}.{old}: is deprecated: use {path}.{new}" for path, line in PLACES.items()
    ]
    file.write_text(TENANTS.replace("minute: 3", "minute: many"))
    assert refused(file) == [f"{file}:11: tenants[0].keys[0].limits.{old}: expected a whole number"]
    file.write_text(TENANTS.replace("minute: 3}", f"minute: 3, {new}: 3}}"))
    assert refused(file)[0].startswith(f"{file}:11: tenants[0].keys[0].limits.{old}: is the deprecated name of")

    given = json.dumps(yaml.safe_load(TENANTS.replace("minute: 1", "minute: 7"))["tenants"])
    monkeypatch.setenv("FLEETGATE_TENANTS", given)
    config, deprecated = load_with_deprecations(None)
    assert limits(config) == [7, 2, 3]
    assert str(deprecated[0]) == (
        f"the variable FLEETGATE_TENANTS: tenants[0].limits.{old}: is deprecated: use tenants[0].limits.{new}"
    )
    monkeypatch.setenv("FLEETGATE_TENANTS", given.replace(old, new))
    file.write_text(TENANTS)
    assert limits(load_config(file)) == [7, 2, 3], "a variable replaces the list of the file: nothing is set twice"


def test_check_tells_old_names_on_stderr_and_is_content(file: Path) -> None:
    file.write_text("nodes: [{url: 'http://127.0.0.1:1'}]\nhealth:\n  tolerated: 4\n")
    run = subprocess.run([FLEETGATE, "check", file], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == f"{file}:3: health.tolerated: is deprecated: use health.failure_threshold\n"
    assert "health" not in run.stdout


async def test_the_log_tells_old_names_at_start_and_at_each_reload(file: Path) -> None:
    nodes = "nodes: [{url: 'http://127.0.0.1:1'}]\n"
    file.write_text(f"{nodes}timeouts: {{announce: 0.5}}\n")  # noqa: ASYNC240 - nobody else waits
    threshold = (
        "health.tolerated",
        "the variable FLEETGATE_HEALTH__TOLERATED",
        "FLEETGATE_HEALTH__FAILURE_THRESHOLD",
    )
    async with gateway_process("-c", file, ready=False, FLEETGATE_HEALTH__TOLERATED="4") as gateway:

        def seen() -> list[tuple[str, str, str]]:
            return [(line["setting"], line["where"], line["use"]) for line in gateway.events("setting_deprecated")]

        await eventually(lambda: len(seen()) >= 2)
        assert seen() == [("timeouts.announce", f"{file}:2", "timeouts.shutdown_delay"), threshold]
        file.write_text(f"{nodes}\ntimeouts: {{silence: 20}}\n")  # noqa: ASYNC240
        await eventually(lambda: len(seen()) >= 4)
        assert seen()[2:] == [("timeouts.silence", f"{file}:3", "timeouts.node_hang"), threshold]
