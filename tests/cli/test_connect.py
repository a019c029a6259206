"""`fleetgate connect`, with the production gateway in front of a fake node and a home directory of its own."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from gateway.cli.connect.client import Target
from gateway.cli.connect.clients import CLIENTS
from gateway.cli.connect.shapes import TOOL
from gateway.cli.main import app
from gateway.core.access.api_keys import key_digest
from tests.support.certificates import self_signed
from tests.support.gateways import RunningGateway, running_gateway
from workers.fake import FakeSettings, Fault, serve_fake
from workers.fake.server import FakeNode

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "fg-a-key-of-the-clients"
TENANTS = [{"name": "clients", "keys": [{"sha256": key_digest(KEY).hex()}]}]
CALLS = f'go [[turns=[{{"{TOOL}": {{"status": "ready"}}}}, "Ready."]]]'
WITH_FILES = [name for name, client in CLIENTS.items() if client.by_hand is None]
OFFERS_TOOLS = [name for name in CLIENTS if name not in ("aider", "openwebui")]
Pair = tuple[FakeNode, RunningGateway]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Pair]:
    async with serve_fake(FakeSettings(max_model_len=40_960)) as node:
        async with running_gateway(node.url, tenants=TENANTS) as gateway:
            yield node, gateway


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without anything, and an environment that names no gateway."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "OPENAI_", "AIDER_", "FLEETGATE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


async def run(*words: str, answer: str = "") -> Result:
    """The command in a thread, as the gateway that it calls runs in this loop."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["connect", *words], input=answer, env={"COLUMNS": "200"})


def files_of(home: Path) -> list[Path]:
    """All files below home, links included."""
    return sorted(path for path in home.rglob("*") if path.is_symlink() or not path.is_dir())


def levels(result: Result) -> dict[str, str]:
    """What was found, by what was looked at."""
    lines = [line.split(None, 2) for line in result.stdout.splitlines()]
    return {words[1]: words[0] for words in lines if words and words[0] in ("ok", "warn", "fail")}


@pytest.mark.parametrize("name", CLIENTS)
async def test_the_lines_are_printed(name: str, served: Pair, home: Path) -> None:
    url = served[1].url
    result = await run(name, "--url", url, "--key", KEY)
    assert result.exit_code == 0, result.output
    assert CLIENTS[name].base(Target(url, KEY, "nemotron-3-ultra")) in result.stdout
    assert KEY in result.stdout and "nemotron-3-ultra" in result.stdout
    assert files_of(home) == []


@pytest.mark.parametrize("name", WITH_FILES)
async def test_written_settings_work(name: str, served: Pair, home: Path) -> None:
    """Written, they are what --check reads again; nobody else may read them; a second time there is nothing to do."""
    url = served[1].url
    result = await run(name, "--url", url, "--key", KEY, "--write", "--yes")
    assert result.exit_code == 0, result.output
    assert KEY not in result.stdout
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files_of(home))
    checked = await run(name, "--check", "--ask", CALLS)
    assert checked.exit_code == 0, checked.output
    assert "is set up by" in checked.stdout
    found = {"address": "ok", "key": "ok", "model": "ok", "stream": "ok", "thinking": "ok"}
    assert levels(checked) == found | ({"tools": "ok"} if name in OFFERS_TOOLS else {})
    again = await run(name, "--url", url, "--key", KEY, "--write")
    assert (again.exit_code, "nothing to change" in again.stdout) == (0, True)


@pytest.mark.parametrize("name", CLIENTS)
async def test_what_is_not_set_up_is_checked_as_it_would_be(name: str, served: Pair, home: Path) -> None:
    result = await run(name, "--url", served[1].url, "--key", KEY, "--check", "--ask", CALLS)
    assert result.exit_code == 0, result.output
    assert levels(result)["stream"] == "ok"
    assert (levels(result).get("tools") == "ok") == (name in OFFERS_TOOLS)


async def test_what_was_there_stays(served: Pair, home: Path) -> None:
    """Other settings, comments, a link to the file; and without a yes nothing is written."""
    kept, link = home / "dotfiles.json", home / ".claude" / "settings.json"
    kept.write_text('{\n  // mine\n  "permissions": {"allow": []},\n  "env": {"EDITOR": "vi"}\n}\n')
    link.parent.mkdir()
    link.symlink_to(kept)
    words = ("claude", "--url", served[1].url, "--key", KEY, "--write")
    refused = await run(*words, answer="n\n")
    assert refused.exit_code == 1 and "Nothing was written" in refused.stdout
    assert "ANTHROPIC" not in kept.read_text()
    assert (await run(*words)).exit_code == 1  # nobody there to ask
    assert (await run(*words, answer="y\n")).exit_code == 0
    assert link.is_symlink()
    text = kept.read_text()
    assert text.startswith('{\n  // mine\n  "permissions": {"allow": []},\n') and '"EDITOR": "vi"' in text
    assert files_of(home) == [link, kept]


async def test_a_file_that_cannot_be_edited_is_left_alone(served: Pair, home: Path) -> None:
    path = home / ".codex" / "config.toml"
    path.parent.mkdir()
    path.write_text('model_providers = {other = {name = "other"}}\n')
    result = await run("codex", "--url", served[1].url, "--key", KEY, "--write", "--yes")
    assert result.exit_code == 1 and "enter the lines yourself" in result.stderr
    assert path.read_text() == 'model_providers = {other = {name = "other"}}\n'
    assert files_of(home) == [path]


async def test_rights_that_are_too_wide_are_narrowed(served: Pair, home: Path) -> None:
    words = ("opencode", "--url", served[1].url, "--key", KEY, "--write", "--yes")
    await run(*words)
    path = home / ".config/opencode/opencode.json"
    path.chmod(0o644)
    result = await run(*words)
    assert result.exit_code == 0 and "only its owner may read it" in result.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["cline", "openwebui"])
async def test_what_is_set_up_by_hand_is_not_written(name: str, served: Pair, home: Path) -> None:
    result = await run(name, "--url", served[1].url, "--key", KEY, "--write", "--yes")
    assert result.exit_code == 2 and "run without --write" in result.stderr


async def test_a_wrong_base_url_is_explained(served: Pair, home: Path) -> None:
    """The `/v1` that is missing, or there twice, in the client's own settings."""
    url = served[1].url
    claude = home / ".claude" / "settings.json"
    claude.parent.mkdir()
    env = {"ANTHROPIC_BASE_URL": f"{url}/v1", "ANTHROPIC_AUTH_TOKEN": KEY, "ANTHROPIC_MODEL": "nemotron-3-ultra"}
    claude.write_text(json.dumps({"env": env}))
    result = await run("claude", "--check")
    assert result.exit_code == 1 and levels(result) == {"address": "fail"}
    assert "too much" in result.stdout
    codex = home / ".codex" / "config.toml"
    codex.parent.mkdir()
    codex.write_text(
        f'model = "nemotron-3-ultra"\nmodel_provider = "x"\n[model_providers.x]\nbase_url = "{url}"\nenv_key = "XK"\n'
    )
    result = await run("codex", "--check")
    assert result.exit_code == 1 and f"Codex needs it: {url}/v1" in result.stdout


async def test_a_key_of_ours_is_not_sent_elsewhere(served: Pair, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client is set up with may be another's service: it is checked with its own key."""
    await run("claude", "--url", served[1].url, "--key", "fg-another", "--model", "m", "--write", "--yes")
    monkeypatch.setenv("FLEETGATE_KEY", KEY)
    result = await run("claude", "--check")
    assert (result.exit_code, levels(result)) == (1, {"key": "fail"})
    (home / ".claude" / "settings.json").write_text("{")
    result = await run("claude", "--check")
    assert result.exit_code == 1 and ".claude/settings.json: it is not valid JSON" in result.stderr


async def test_what_goes_wrong_is_told(served: Pair, home: Path) -> None:
    gateway = served[1]
    checked = ("--url", gateway.url, "--check")
    result = await run("claude", *checked, "--key", "fg-no", "--model", "m")
    assert (result.exit_code, levels(result)) == (1, {"key": "fail"})
    result = await run("codex", *checked, "--key", KEY, "--model", "nobody")
    assert result.exit_code == 1 and levels(result)["model"] == "fail"
    await run("opencode", "--url", gateway.url, "--key", KEY, "--model", "m", "--write", "--yes")
    path = home / ".config" / "opencode" / "opencode.json"
    path.write_text(path.read_text().replace(KEY, "fg-ü"))
    result = await run("opencode", "--check")
    assert (result.exit_code, levels(result)) == (1, {"key": "fail"})
    result = await run(
        "codex", "--url", gateway.url.replace("http:", "https:"), "--check", "--key", KEY, "--model", "m"
    )
    assert (result.exit_code, levels(result)) == (1, {"TLS": "fail"}) and "use http://" in result.stdout
    result = await run("codex", "--url", "http://127.0.0.1:9", "--check", "--model", "m")
    assert result.exit_code == 1 and "cannot be reached" in result.stdout


async def test_a_broken_answer_is_told(home: Path) -> None:
    """An error in the middle of the stream, and an answer that is an error from the start."""
    async with serve_fake(FakeSettings()) as node:
        async with running_gateway(node.url, tenants=TENANTS, resume={"enabled": False}) as gateway:
            words = ("opencode", "--url", gateway.url, "--key", KEY, "--check")
            node.set_faults(Fault("error_event", after=5))
            result = await run(*words)
            assert result.exit_code == 1 and levels(result)["stream"] == "fail", result.output
            node.set_faults(Fault("status", status=400))
            result = await run(*words)
            assert result.exit_code == 1 and levels(result)["answer"] == "fail", result.output


async def test_a_long_answer_is_not_read_to_its_end(home: Path) -> None:
    """A model may think for minutes; what the check wants to know it has seen."""
    async with serve_fake(FakeSettings(rate=50)) as node:
        async with running_gateway(node.url, tenants=TENANTS) as gateway:
            words = ("aider", "--url", gateway.url, "--key", KEY, "--check", "--wait", "1")
            result = await run(*words, "--ask", "[[think=5000]]")
            assert result.exit_code == 0, result.output
            assert levels(result) | {"thinking": "ok", "stream": "warn"} == levels(result)


async def test_no_more_output_is_asked_for_than_the_context_holds(home: Path) -> None:
    """A node refuses a request whose limit is above its context; agents ask for 32,000 tokens by themselves."""
    async with serve_fake(FakeSettings(max_model_len=8192)) as node:
        async with running_gateway(node.url, tenants=TENANTS) as gateway:
            for name, line in (("claude", '"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4096"'), ("opencode", '"output": 4096')):
                assert line in (await run(name, "--url", gateway.url, "--key", KEY)).stdout
                result = await run(name, "--url", gateway.url, "--key", KEY, "--check")
                assert (result.exit_code, levels(result)["stream"]) == (0, "ok"), result.output


async def test_the_operators_limit_of_answers_is_told(served: Pair, home: Path) -> None:
    models = [{"name": "nemotron-3-ultra", "output": {"max_tokens": 3000}}]
    async with running_gateway(served[0].url, tenants=TENANTS, models=models) as gateway:
        result = await run("claude", "--url", gateway.url, "--key", KEY)
        assert '"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "3000"' in result.stdout, result.output


async def test_over_tls(served: Pair, home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A certificate that is not trusted, one that is, and plain HTTP to a port that speaks TLS."""
    made = self_signed(tmp_path_factory.mktemp("tls"))
    listen = {"port": 0, "tls": {"cert": str(made.cert), "key": str(made.key)}}
    async with running_gateway(served[0].url, tenants=TENANTS, listen=listen) as gateway:
        url = f"https://127.0.0.1:{gateway.port}"
        words = ("--key", KEY, "--model", "nemotron-3-ultra", "--check", "--ask", CALLS)
        result = await run("claude", "--url", url, *words)
        assert (result.exit_code, levels(result)) == (1, {"TLS": "fail"}) and "--ca-file" in result.stdout
        result = await run("claude", "--url", url, "--ca-file", str(made.cert), *words)
        assert (result.exit_code, levels(result).get("tools")) == (0, "ok"), result.stdout
        result = await run("claude", "--url", url.replace("https:", "http:"), *words)
        assert result.exit_code == 1 and "https://" in result.stdout
        result = await run("claude", "--url", url, "--ca-file", str(home / "none.pem"), *words)
        assert result.exit_code == 1 and "none.pem" in result.stderr


async def test_what_cannot_be_found_out_is_asked_for(served: Pair, home: Path) -> None:
    url = served[1].url
    for words, hint in (
        (("--url", url), "--key"),
        (("--url", "http://127.0.0.1:9"), "--url"),
        (("--url", "127.0.0.1:8080"), "http://HOST:8080"),
    ):
        result = await run("codex", *words)
        assert result.exit_code == 1 and hint in result.stderr
    result = await run("codex", "--url", "http://127.0.0.1:9", "--key", KEY, "--model", "m")
    assert result.exit_code == 0 and "context" not in result.stdout


async def test_the_url_comes_from_the_config(served: Pair, home: Path) -> None:
    config = home / "fleetgate.yaml"
    config.write_text(f"listen: {{host: 0.0.0.0, port: {served[1].port}}}\nno_auth: true\n")
    result = await run("codex", "-c", str(config), "--key", KEY)
    assert f"http://127.0.0.1:{served[1].port}/v1" in result.stdout
    config.write_text("listen: {port: many}\n")
    assert (await run("codex", "-c", str(config), "--key", KEY)).exit_code == 2


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://[bad]:80", "http://h:port", "http://h:99999", "http://a\nb", "http://a b"]
)
async def test_what_is_no_url_is_refused(url: str, home: Path) -> None:
    result = await run("claude", "--url", url, "--model", "m", "--write", "--yes")
    assert (result.exit_code, "is not the URL of a gateway" in result.stderr) == (1, True), result.output
    assert files_of(home) == []


@pytest.mark.parametrize("key", ["fg-key\r", " fg-key", "fg-kéy", "fg-\udcffkey", "fg\nkey"])
async def test_a_key_that_no_client_can_send_is_not_written(key: str, home: Path) -> None:
    result = await run("codex", "--url", "http://127.0.0.1:9", "--key", key, "--model", "m", "--write", "--yes")
    assert (result.exit_code, "mistyped" in result.stderr) == (1, True), result.output
    assert files_of(home) == []


@pytest.mark.parametrize("name", WITH_FILES)
async def test_no_spelling_of_a_key_is_shown(name: str, home: Path) -> None:
    key = "fg-'\"\\-secret"
    result = await run(name, "--url", "http://127.0.0.1:9", "--key", key, "--model", "m", "--write", "--yes")
    assert (result.exit_code, "-secret" in result.output) == (0, False), result.output


async def test_a_name_in_another_encoding_is_refused(home: Path) -> None:
    """Written as it is it would be no UTF-8, and shown it would fail."""
    result = await run("codex", "--url", "http://127.0.0.1:9", "--model", "m\udcff", "--write", "--yes")
    assert (result.exit_code, "not the name of a model" in result.stderr) == (1, True), result.output
    assert files_of(home) == []


async def test_settings_of_an_older_version_are_renewed(served: Pair, home: Path) -> None:
    """Lists that were written before, or by hand."""
    path = home / ".continue" / "config.yaml"
    path.parent.mkdir()
    path.write_text("name: x\nmodels:\n  - name: fleetgate\n    model: old\n    roles: [chat]  # mine\n")
    result = await run("continue", "--url", served[1].url, "--key", KEY, "--write", "--yes")
    assert result.exit_code == 0, result.output
    assert '    roles: ["chat", "edit", "apply"]  # mine\n' in path.read_text()


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("odd", ["3", '"x"', "[1]", "[[]]", "true"])
async def test_odd_settings_are_as_good_as_none(name: str, odd: str, served: Pair, home: Path) -> None:
    url = served[1].url
    for file in CLIENTS[name].files(Target(url, KEY, "m")):
        path = home / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        each = file.settings if isinstance(file.settings, dict) else ()
        path.write_text("\n".join(f"{key} = {odd}" for key in each) if file.form == "toml" else _odd_json(each, odd))
    result = await run(name, "--check", "--url", url, "--key", KEY)
    assert result.exit_code == 0, result.output
    result = await run(name, "--check")
    assert isinstance(result.exception, SystemExit), result.output


def _odd_json(names: Iterable[str], odd: str) -> str:
    return "{" + ", ".join(f'"{name}": {odd}' for name in names) + "}"


@pytest.mark.parametrize(
    ("key", "told"), [((), "wants a key of a tenant"), (("--key", "fg-another"), "refuses the key")], ids=str
)
async def test_a_missing_key_and_a_wrong_one_are_told_apart(
    served: Pair, home: Path, key: tuple[str, ...], told: str
) -> None:
    result = await run("claude", "--url", served[1].url, *key)
    assert result.exit_code == 1
    assert told in result.output
    assert files_of(home) == []
