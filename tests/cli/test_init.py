"""`fleetgate init` writes a file that `check` has nothing against, for nodes that are there; and otherwise nothing."""

import http.server
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.init.dialogue import tell_next
from gateway.cli.init.example import Example, example_text
from gateway.cli.init.text import InitAnswers, config_text
from gateway.cli.main import app
from gateway.config.source import load_config
from gateway.core.access.api_keys import key_digest
from gateway.server.node_survey import SurveyedNode
from tests.support.fake_process import WORKER
from tests.support.gateway_process import FLEETGATE, gateway_process

NOBODY = "http://127.0.0.1:1"
SETTING = re.compile(r"(?m)^( *)# (?=(?: *- )? *[a-z_0-9]+:(?: |$))")


class Nodes:
    """Fake nodes, each a process."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *options: str) -> str:
        """The URL of a new one."""
        command = [str(WORKER), "fake", *options]
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._started.append(node)
        assert node.stdout is not None
        return str(json.loads(node.stdout.readline())["url"])

    def stop(self) -> None:
        for node in self._started:
            node.kill()
            node.communicate()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    running = Nodes()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def node(nodes: Nodes) -> str:
    return nodes.start("--max-model-len", "32768")


def init(folder: Path, *options: str, **variables: str) -> tuple[int, str, str, Path]:
    """Exit status, standard output, standard error, and where the file is to be."""
    out = folder / "fleetgate.yaml"
    done = CliRunner(env=variables).invoke(app, ["init", "--out", str(out), *options])
    return done.exit_code, done.stdout, done.stderr, out


def checked(out: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", "--strict", "-c", str(out)])
    return done.exit_code, done.output


@pytest.fixture
def written(node: str, tmp_path: Path) -> tuple[str, Path]:
    """A key and the file with its SHA-256, made without a question."""
    rules = ["--tenant", "research", "--requests-per-minute", "600", "--max-thinking", "8,192"]
    status, printed, said, out = init(tmp_path, "--yes", "--node", node, *rules)
    key = printed.strip()
    assert (status, printed) == (0, f"{key}\n") and key not in said, said
    return key, out


def test_the_file_is_as_it_was_asked_for(written: tuple[str, Path]) -> None:
    key, out = written
    assert checked(out) == (0, f"{out}: valid (1 node, 0 models, 1 tenant)\n")
    assert key not in out.read_text() and out.stat().st_mode & 0o777 == 0o600
    config = load_config(out)
    assert [(tenant.name, tenant.keys[0].sha256) for tenant in config.tenants] == [("research", key_digest(key).hex())]
    assert (config.tenants[0].limits.requests_per_minute, config.thinking.max_budget) == (600, 8192)
    assert "serves nemotron-3-ultra (32,768 tokens); thinking budgets hold" in out.read_text()


async def test_the_file_serves_its_tenant(written: tuple[str, Path]) -> None:
    key, out = written
    async with gateway_process("-c", out) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
        body = {"model": "nemotron-3-ultra", "messages": [{"role": "user", "content": "hello"}]}
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 401
        answer = await client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


def test_the_lines_to_type_next_reach_the_ports_of_the_file(node: str, tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    _, _, said, _ = init(tmp_path / "usual", "--yes", "--node", node)
    assert "  fleetgate status\n" in said and "  fleetgate connect claude --key" in said
    _, _, said, out = init(tmp_path, "--yes", "--node", node, "--port", "8181", "--admin-port", "9292")
    assert "  fleetgate status --admin http://127.0.0.1:9292\n" in said
    assert "  curl http://127.0.0.1:8181/" in said and f"  fleetgate connect claude -c {out} --key" in said


def test_what_is_suggested_is_good_as_well(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each suggestion brought to life the file still loads."""
    for number, options in enumerate((["--no-tenant"], ["--tenant", "a", "--tokens-per-day", "1000", "--expose"])):
        (tmp_path / str(number)).mkdir()
        status, _, said, out = init(tmp_path / str(number), "--yes", "--node", node, *options)
        assert status == 0, said
        alive = SETTING.sub(r"\1", out.read_text()).replace("sha256: ...", f"sha256: {'ab' * 32}")
        assert len(list(SETTING.finditer(out.read_text()))) > 15
        monkeypatch.setenv("ADMIN_TOKEN", "a-token-of-some-length")
        monkeypatch.setenv("RESPONSE_SECRET", "a-secret-of-some-length")
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1")
        out.write_text(alive)
        config = load_config(out)
        assert config.models and config.tenants and config.redis and config.thinking.max_budget


def test_the_words_are_the_examples(node: str, tmp_path: Path) -> None:
    """Each comment beside a setting is one of fleetgate.example.yaml."""
    _, _, _, out = init(tmp_path, "--yes", "--node", node, "--max-thinking", "100", "--redis", "redis://127.0.0.1:1")
    beside = re.findall(r"(?m)^[ #]*[a-z_]+: .*?  # (.*)$", out.read_text())
    assert len(beside) > 20 and all(f"# {words}" in example_text() for words in beside)


def test_the_example_is_printed() -> None:
    done = CliRunner().invoke(app, ["init", "--example"])
    assert done.output == (Path(__file__).parents[2] / "fleetgate.example.yaml").read_text()


def test_nodes_are_told_as_they_are(nodes: Nodes, node: str, tmp_path: Path) -> None:
    disobeys, starting = nodes.start("--budget", "disobey"), nodes.start("--slow-start", "1000")
    urls = [f"{node}/v1/", disobeys, starting, NOBODY, node]
    status, _, said, out = init(tmp_path, "--yes", *(word for url in urls for word in ("--node", url)))
    assert status == 0
    assert f"{node}/v1/: taken as {node}; the gateway adds /v1" in said
    assert f"{disobeys}: vLLM 0.32.0 serves" in said and "it does not hold thinking budgets by itself" in said
    assert f"{starting}: is not ready: /health answered 503" in said
    assert f"{NOBODY}: does not answer: Connection refused" in said and f"warning: {NOBODY} is written" in said
    assert [each.url for each in load_config(out).nodes] == [node, disobeys, starting, NOBODY]
    assert checked(out)[0] == 0


def test_a_node_with_a_key(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = nodes.start("--api-key", "hush-hush")
    _, _, said, _ = init(tmp_path, "--yes", "--node", url)
    assert "requires a key" in said and "give --node-key-env" in said
    monkeypatch.setenv("NODE_KEY", "hush-hush")
    (tmp_path / "fleetgate.yaml").unlink()
    status, _, said, out = init(tmp_path, "--yes", "--node", url, "--node-key-env", "NODE_KEY")
    assert (status, "serves nemotron-3-ultra" in said) == (0, True), said
    assert yaml.safe_load(out.read_text())["nodes"][0]["api_key"] == {"env": "NODE_KEY"}
    assert "hush-hush" not in out.read_text() + said and checked(out)[0] == 0


def test_no_file_is_overwritten(node: str, tmp_path: Path) -> None:
    out = tmp_path / "fleetgate.yaml"
    out.write_text("mine")
    status, printed, said, _ = init(tmp_path, "--yes", "--node", node)
    assert (status, printed, out.read_text()) == (1, "", "mine") and "is not overwritten" in said


REFUSED = {
    "a wrong URL": (["--node", "http://a b"], 2, "--node: a node's URL looks like"),
    "a limit that is none": (["--node", NOBODY, "--requests-per-minute", "many"], 2, "'many' is no whole number"),
    "a limit of nothing": (["--node", NOBODY, "--tokens-per-day", "0"], 2, "--tokens-per-day: expected: greater"),
    "a budget that is none": (["--node", NOBODY, "--max-thinking", "-1"], 2, "--max-thinking: '-1' is no whole number"),
    "a tenant's name": (["--node", NOBODY, "--tenant", "a b"], 2, "--tenant: a tenant's name begins"),
    "a Redis": (["--node", NOBODY, "--redis", "http://r"], 2, "--redis: expected redis://host:6379"),
    "nobody's gateway for all": (["--node", NOBODY, "--expose", "--no-tenant"], 2, "need keys"),
    "nobody's limits": (["--node", NOBODY, "--tokens-per-day", "5", "--no-tenant"], 2, "limits are a tenant's"),
    "a variable that is not there": (["--node", NOBODY, "--node-key-env", "NOT_SET"], 2, "NOT_SET is not set"),
    "one port for two": (["--node", NOBODY, "--port", "9091"], 2, "the listeners need two ports"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_file(name: str, tmp_path: Path) -> None:
    options, status, words = REFUSED[name]
    found, printed, said, out = init(tmp_path, "--yes", *options)
    assert (found, printed, words in said) == (status, "", True), said
    assert not out.exists()


def test_what_a_node_says_becomes_no_setting() -> None:
    """YAML knows more line breaks than an editor shows."""
    node = SurveyedNode(NOBODY, version="0.32.0", models={"a\u2028no_auth: true\u2029b\x85c": None})
    text = config_text(InitAnswers([node]), Example(example_text()), "f.yaml", date(2026, 11, 30))
    assert yaml.safe_load(text).keys() == {"nodes", "listen", "admin"} and "\u2028" not in text
    assert "serves a?no_auth: true?b?c" in text


@pytest.mark.parametrize("model", ["it's; echo $(id)", "a\x1b[2J", "a\u202eb", '"quoted"', "two words", "\U0001f600"])
def test_what_a_node_says_becomes_no_command(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that a person is told to paste have the model's name in them."""
    answers = InitAnswers([SurveyedNode(NOBODY, version="0.32.0", models={model: None})], tenant="main")
    tell_next(tmp_path / "f.yaml", answers, "")
    said = capsys.readouterr().err
    assert all(each.isprintable() or each == "\n" for each in said)
    words = shlex.split(said.partition("curl ")[2].partition("\n  fleetgate connect")[0])
    assert json.loads(words[words.index("-d") + 1])["model"] == model
    text = config_text(answers, Example(example_text()), "f.yaml", date(2026, 11, 30))
    section = text[text.index("# models:\n") :].partition("\n\n")[0].replace("# ", "", 1).replace("\n# ", "\n")
    assert yaml.safe_load(section)["models"][0]["name"] == model


def test_another_server_is_no_node(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, _, said, out = init(tmp_path, "--yes", "--node", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert status == 1 and "answers, but is no vLLM" in said and not out.exists()


@pytest.mark.parametrize("out", ["nowhere/f.yaml", "/proc/f.yaml"])
def test_a_folder_that_takes_no_file(out: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["init", "--yes", "--node", NOBODY, "--out", str(tmp_path / out)])
    assert done.exit_code == 1 and "cannot be written" in done.stderr and done.stdout == ""


def test_without_a_terminal_it_says_what_to_give(tmp_path: Path) -> None:
    command = [str(FLEETGATE), "init", "--out", str(tmp_path / "f.yaml")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 2 and "no terminal to ask on: add --yes" in done.stderr and not list(tmp_path.iterdir())


class Terminal:
    """The command on a terminal, answered by words that wait for what they answer."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._ours, its = os.openpty()
        command = [str(FLEETGATE), "init", "--out", str(folder / "f.yaml"), *options]
        plain = {**os.environ, "TERM": "dumb"}
        pipes = {"stdin": its, "stderr": its, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, start_new_session=True, env=plain, **pipes)  # type: ignore[call-overload]
        os.close(its)
        self.said = ""

    def answer(self, question: str, words: str) -> None:
        self.until(question)
        os.write(self._ours, words.encode())

    def until(self, words: str) -> None:
        """Read until `words` have come since the last call."""
        deadline = time.monotonic() + 60
        while words not in self.said:
            assert time.monotonic() < deadline, self.said
            try:
                self.said += os.read(self._ours, 4096).decode()
            except OSError:  # the other end is closed
                raise AssertionError(f"ended before {words!r}: {self.said}") from None
        self.said = self.said.partition(words)[2]

    def end(self) -> tuple[int, str]:
        """Exit status and standard output."""
        while True:
            try:
                self.said += os.read(self._ours, 4096).decode()
            except OSError:
                break
        os.close(self._ours)
        printed = self.process.communicate(timeout=60)[0].decode()
        return self.process.returncode, printed


def test_a_person_is_asked(node: str, tmp_path: Path) -> None:
    """Each question once, a wrong answer again; a node that does not answer only if that is wanted."""
    terminal = Terminal(tmp_path, "--node", node, "--node", NOBODY)
    terminal.answer("all the same? [y/N]:", "\n")
    terminal.answer("all interfaces)? [y/N]:", "y\n")
    terminal.answer("First tenant, who gets a key [main]:", "-\n")
    terminal.answer("need keys: name a tenant", "research\n")
    terminal.answer("requests per minute (empty: none)", "many\n")
    terminal.answer("no whole number", "60\n")
    terminal.answer("concurrent requests (empty: none)", "\n")
    terminal.answer("tokens per day (empty: none)", "\n")
    terminal.answer("thinking budget", "4096\n")
    terminal.answer("Redis", "\n")
    status, printed = terminal.end()
    assert (status, "Next:" in terminal.said) == (0, True), terminal.said
    config = load_config(tmp_path / "f.yaml")
    assert [each.url for each in config.nodes] == [node] and config.listen.host == "0.0.0.0"
    assert config.tenants[0].keys[0].sha256 == key_digest(printed.strip()).hex()
    assert config.tenants[0].limits.requests_per_minute == 60 and config.thinking.max_budget == 4096
    assert checked(tmp_path / "f.yaml")[0] == 0


@pytest.mark.parametrize("way", ["\x03", "\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_who_leaves_midway_leaves_nothing(way: str, node: str, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--node", node)
    if way == "\x03":
        terminal.until("all interfaces)? [y/N]:")
        terminal.process.send_signal(signal.SIGINT)
    else:
        terminal.answer("all interfaces)? [y/N]:", way)
    status, printed = terminal.end()
    assert (status, printed) == (130, "") and "Nothing was written" in terminal.said
    assert list(tmp_path.iterdir()) == []
