"""The launcher as a real process, over a stand-in server or the fake node, with a real Redis.

The stand-in (vllm_stand_in.py) dies, hangs and lies as vLLM does; the fake node answers as vLLM does.
"""

import http.server
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.redis import RedisServer
from workers.registration import INDEX_KEY, KEY_PREFIX, sign

STAND_IN = Path(__file__).with_name("vllm_stand_in.py")
WORKER = str(Path(sys.executable).with_name("fleetgate-worker"))
SECRET = "a shared secret"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = RedisServer("valkey9", tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(check: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {seconds} s")


class Launched:
    """A running `fleetgate-worker launch` and what it says."""

    def __init__(
        self,
        folder: Path,
        redis_url: str | None,
        *more: str,
        stand_in: str = "",
        command: str = "",
        full: bool = False,
        unread: bool = False,
        port: int | None = None,
        node_id: str | None = None,
    ) -> None:
        """`full`: nothing that it says can be written, as on a full disk. `unread`: nobody reads its stdout, a pipe."""
        self.folder = folder
        self.port = port or free_port()
        self.node_id = node_id or f"node-{self.port}"
        places = [Path("/dev/full")] * 2 if full else [folder / "stdout", folder / "stderr"]
        self._stdout, self._stderr = (place.open("w") for place in places)
        own = command or shlex.join([sys.executable, str(STAND_IN), "--folder", str(folder), "--port"]) + " {port} "
        options = ["--port", str(self.port), "--node-id", self.node_id, "--heartbeat-seconds", "0.2"]
        options += ["--backoff-seconds", "0.1", "--stop-seconds", "2", "--command", own + stand_in]
        options += ["--redis", redis_url] if redis_url else []
        self.process = subprocess.Popen(
            [WORKER, "launch", "tiny-cpu", *options, *more],
            stdout=subprocess.PIPE if unread else self._stdout,
            stderr=self._stderr,
            env={**os.environ, "FLEETGATE_WORKER_SECRET": SECRET},
        )
        self._redis = Redis.from_url(redis_url, decode_responses=True) if redis_url else None

    def record(self) -> dict[str, Any] | None:
        assert self._redis is not None
        text = self._redis.get(KEY_PREFIX + self.node_id)
        return json.loads(str(text)) if text else None

    def is_in(self, state: str) -> dict[str, Any] | None:
        record = self.record()
        return record if record and record["state"] == state else None

    def milliseconds_to_live(self) -> int:
        assert self._redis is not None
        return int(str(self._redis.pttl(KEY_PREFIX + self.node_id)))

    def indexed(self) -> bool:
        assert self._redis is not None
        return self._redis.zscore(INDEX_KEY, self.node_id) is not None

    def said(self, words: str) -> bool:
        return words in (self.folder / "stderr").read_text()

    def noted(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        for stream in (self._stdout, self._stderr, self.process.stdout):
            if stream is not None:
                stream.close()
        if self._redis is not None:
            self._redis.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(*args: Any, **kwargs: Any) -> Launched:
        started.append(Launched(tmp_path, *args, **kwargs))
        return started[-1]

    yield start
    for launched in started:
        launched.close()


def test_a_full_disk_ends_no_node(launch: Callable[..., Launched], redis_url: str) -> None:
    node = launch(redis_url, full=True)
    record = wait_until(lambda: node.is_in("ready"), "ready")
    wait_until(lambda: (later := node.record()) and later["heartbeat_at"] > record["heartbeat_at"], "a heartbeat")
    node.process.send_signal(signal.SIGTERM)
    node.process.wait(60)
    assert node.record() is None
    assert node.noted("signals").startswith("SIGTERM"), "the server was stopped, not lost"


def test_a_reader_that_stopped_reading_holds_up_no_node(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    """A pager that is paused, a log shipper that hangs: lines are lost, heartbeats and the drain are not."""
    node = launch(redis_url, stand_in="--talks", unread=True)
    record = wait_until(lambda: node.is_in("ready"), "ready")
    wait_until(lambda: (later := node.record()) and later["heartbeat_at"] > record["heartbeat_at"], "a heartbeat")
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(60) == 0
    assert node.said("drained") and node.record() is None


def test_from_start_to_drained_end(launch: Callable[..., Launched], redis_url: str, tmp_path: Path) -> None:
    node = launch(redis_url, "--advertise", "http://10.0.0.7:8000", "--label", "zone=a", "--weight", "2")
    record = wait_until(lambda: node.is_in("ready"), "ready")
    assert record["url"] == "http://10.0.0.7:8000"
    assert record["models"] == ["nemotron-3-ultra"]
    assert record["canary"] == {"warm_up": True, "thinking_budget": "obeyed"}
    assert record["capacity"] == {"max_concurrency": 16, "max_model_len": 2048}  # the node's own context wins
    assert (record["vllm_version"], record["labels"], record["weight"]) == ("0.32.0", {"zone": "a"}, 2.0)
    assert record["signature"] == sign(record, SECRET)
    assert node.indexed()
    assert 0 < node.milliseconds_to_live() <= 20_000, "a node that dies without a word is forgotten"
    later = wait_until(lambda: (r := node.record()) and r["heartbeat_at"] > record["heartbeat_at"] and r, "a heartbeat")
    assert later["started_at"] == record["started_at"]
    for words in ("[load] weights loaded in 2.04 s", "[compile] compiled in 31.50 s", "[memory] room for 1,234,560"):
        assert node.said(words)
    assert "Loading weights took" in node.noted("stdout")  # the server's own log is passed on

    (tmp_path / "running").write_text("2")
    node.process.send_signal(signal.SIGTERM)
    draining = wait_until(lambda: node.is_in("draining"), "draining")
    assert draining["drain_deadline"] > time.time()
    time.sleep(0.8)
    assert node.noted("signals") == "", "the server is left alone while requests run"
    (tmp_path / "running").write_text("0")
    assert node.process.wait(60) == 0
    assert node.noted("signals").startswith("SIGTERM")
    assert node.record() is None
    assert not node.indexed()
    assert node.said("drained")


def test_a_crashed_server_is_started_again(launch: Callable[..., Launched], redis_url: str, tmp_path: Path) -> None:
    node = launch(redis_url)
    wait_until(lambda: node.is_in("ready"), "ready")
    (tmp_path / "crash").touch()
    wait_until(lambda: node.is_in("starting"), "starting again")
    wait_until(lambda: node.is_in("ready"), "ready again")
    assert node.noted("starts") == "2"
    assert node.said("ended by itself with code 7")


@pytest.mark.parametrize(("way", "says"), [("dead", "/health says 503"), ("zombie", "failed 2 short requests")])
def test_an_engine_that_died_behind_its_server_is_started_again(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path, way: str, says: str
) -> None:
    node = launch(redis_url, "--proof-seconds", "0.2")
    wait_until(lambda: node.is_in("ready"), "ready")
    (tmp_path / way).touch()
    wait_until(lambda: node.said(says), "the verdict")
    (tmp_path / way).unlink()
    wait_until(lambda: int(node.noted("starts")) > 1 and node.is_in("ready"), "ready again")


def test_a_server_that_never_gets_ready_is_given_up(launch: Callable[..., Launched], redis_url: str) -> None:
    node = launch(redis_url, "--startups", "3", stand_in="--never-ready")
    assert node.process.wait(60) == 1
    assert node.noted("starts") == "3"
    assert node.said("gave up after 3 starts")


def test_a_hung_start_has_a_deadline(launch: Callable[..., Launched], redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "dead").touch()
    node = launch(redis_url, "--startup-seconds", "1.5", "--startups", "1")
    assert node.process.wait(60) == 1
    assert node.said("not ready after 2 s")


@pytest.mark.parametrize("options", [(), ("--once",)])
def test_a_canary_that_kills_is_not_sent_twice(
    launch: Callable[..., Launched], redis_url: str, options: tuple[str, ...]
) -> None:
    """Also where the server is started only once: it was the launcher that ended its first life."""
    node = launch(redis_url, *options, stand_in="--dies-of-budget")
    record = wait_until(lambda: node.is_in("ready"), "ready")
    assert record["canary"] == {"warm_up": True, "thinking_budget": "broken"}
    assert node.noted("starts") == "2"
    assert node.noted("requests").count("thinking_token_budget") == 1
    wait_until(lambda: "ready: " in node.noted("stderr"), "told")
    assert node.noted("stderr").count("ready: ") == 1, "the one that died of it was never called ready"


def test_a_spot_notice_in_a_file_drains_in_its_time(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    notice = tmp_path / "notice"
    node = launch(redis_url, "--spot", f"file:{notice}", "--price", "2", "--price-kind", "on-demand")
    ready = wait_until(lambda: node.is_in("ready"), "ready")
    assert ready["price"] == {"usd_per_hour": 2.0, "kind": "on_demand"}, "a source of notices sets no price"
    (tmp_path / "running").write_text("1")  # a request that does not end in time
    notice.write_text('{"seconds": 3}')
    draining = wait_until(lambda: node.is_in("draining"), "draining")
    assert 1 < draining["drain_deadline"] - time.time() < 2.5  # 3 s less a fifth for stopping
    assert node.process.wait(60) == 0
    assert node.said("requests are still running")


def test_a_notice_during_a_drain_brings_its_end_closer_and_cuts_nothing(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    """A service manager's SIGTERM and a cloud's notice come together, in any order."""
    notice = tmp_path / "notice"
    node = launch(redis_url, "--spot", f"file:{notice}")
    wait_until(lambda: node.is_in("ready"), "ready")
    (tmp_path / "running").write_text("1")
    node.process.send_signal(signal.SIGTERM)
    long = wait_until(lambda: node.is_in("draining"), "draining")
    notice.write_text('{"seconds": 300}')
    sooner = long["drain_deadline"] - 100
    short = wait_until(lambda: (r := node.record()) and r["drain_deadline"] < sooner and r, "a deadline that is closer")
    assert short["drain_deadline"] - time.time() > 200
    assert node.noted("signals") == "", "the server is left alone while requests run"
    (tmp_path / "running").write_text("0")
    assert node.process.wait(60) == 0
    assert node.said("drained")


@pytest.mark.parametrize("way", ["SIGTERM", "notice"])
def test_a_node_that_is_to_end_while_it_starts_ends_at_once(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path, way: str
) -> None:
    (tmp_path / "waits").touch()
    node = launch(redis_url, "--spot", f"file:{tmp_path / 'notice'}", "--stop-seconds", "0.5", stand_in="--deaf")
    child = int(wait_until(lambda: node.noted("pid"), "the server's start"))
    if way == "SIGTERM":
        node.process.send_signal(signal.SIGTERM)
    else:
        (tmp_path / "notice").write_text('{"seconds": 30}')
    assert node.process.wait(60) == 0
    assert node.said("stopped before it was ready")
    assert not Path(f"/proc/{child}").exists() and node.record() is None and node.noted("starts") == "1"


def test_a_spot_notice_at_an_address(launch: Callable[..., Launched], redis_url: str) -> None:
    answers = iter([(404, ""), (200, "FALSE"), (200, '{"action": "terminate", "time": "2100-01-01T00:00:00Z"}')])

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = next(answers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Silence."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"url:http://127.0.0.1:{server.server_port}/spot"
        node = launch(redis_url, "--spot", address, "--spot-poll-seconds", "0.3")
        assert node.process.wait(60) == 0
        server.shutdown()
    assert node.said("notice: http://127.0.0.1")
    assert node.said("say --price-kind spot"), "without a kind --spot means the spot price, as it did"
    assert node.said("no spot price of cpu is known")


def test_a_second_signal_waits_no_longer_and_a_deaf_server_is_killed(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    node = launch(redis_url, "--stop-seconds", "0.5", stand_in="--deaf")
    wait_until(lambda: node.is_in("ready"), "ready")
    (tmp_path / "running").write_text("1")
    node.process.send_signal(signal.SIGTERM)
    wait_until(lambda: node.is_in("draining"), "draining")
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(60) == 0
    assert node.said("code -9")
    assert not is_open(node.port)


def test_other_signals_reach_the_server(launch: Callable[..., Launched], redis_url: str) -> None:
    node = launch(redis_url)
    wait_until(lambda: node.is_in("ready"), "ready")
    node.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "SIGUSR1" in node.noted("signals"), "the signal")
    assert node.is_in("ready")


@pytest.mark.parametrize("when", ["starting", "ready"])
def test_a_killed_launcher_leaves_nothing_behind(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path, when: str
) -> None:
    if when == "starting":
        (tmp_path / "waits").touch()
    node = launch(redis_url)
    child = int(wait_until(lambda: node.noted("pid"), "the server's start"))
    wait_until(lambda: node.is_in(when), when)
    node.process.kill()
    wait_until(lambda: not Path(f"/proc/{child}").exists() and not is_open(node.port), "the server's end")
    assert node.milliseconds_to_live() <= 20_000, "its record ends by itself"


def other_server(port: int) -> http.server.ThreadingHTTPServer:
    """Somebody else's server, as green as a node."""

    class Green(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Green)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def test_a_taken_port_is_told_and_another_server_is_not_adopted(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    first = launch(redis_url)
    wait_until(lambda: first.is_in("ready"), "ready")
    folder = tmp_path / "second"
    folder.mkdir()
    second = Launched(folder, redis_url, "--startups", "2", port=first.port, node_id="second")
    try:
        assert second.process.wait(60) == 1
        assert second.said(f"cannot listen on 127.0.0.1:{first.port}: Address already in use (process ")
        assert second.said("gave up after 2 starts") and not second.said("ready: ")
        assert second.noted("starts") == "" and second.record() is None
        assert first.is_in("ready"), "the first one's server was left alone"
    finally:
        second.close()


def test_readiness_counts_for_the_own_server_only(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    """A port that was free at the start may be taken before our server, which loads for minutes, listens."""
    (tmp_path / "waits").touch()
    node = launch(redis_url)
    wait_until(lambda: node.noted("pid"), "the server's start")
    other = other_server(node.port)
    wait_until(lambda: node.said(f"is answered by process {os.getpid()}, "), "the verdict")
    assert node.is_in("starting") and node.noted("requests") == ""
    other.shutdown()
    other.server_close()
    (tmp_path / "waits").unlink()
    wait_until(lambda: node.is_in("ready"), "ready")


def test_answers_that_are_no_json_end_no_launcher(
    launch: Callable[..., Launched], redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "nonsense").touch()
    node = launch(redis_url)
    record = wait_until(lambda: node.is_in("ready"), "ready")
    assert record["canary"] == {"warm_up": True, "thinking_budget": "broken"}
    assert record["vllm_version"] is None and record["capacity"]["max_model_len"] > 0


def test_a_redis_that_hangs_holds_up_no_end(launch: Callable[..., Launched]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        node = launch(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        wait_until(lambda: node.said("Redis does not answer within 2 s"), "the time-out")
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(60) == 0
    assert node.said("the record expires by itself")


def test_a_redis_that_comes_back_gets_the_record(launch: Callable[..., Launched], tmp_path: Path) -> None:
    server = RedisServer("valkey9", tmp_path)
    server.start()
    node = launch(server.url)
    wait_until(lambda: node.is_in("ready"), "ready")
    server.stop()
    wait_until(lambda: node.said("each heartbeat retries"), "the outage")
    server.start()
    try:
        wait_until(lambda: node.said("registered again"), "the return")
        assert node.is_in("ready") and node.indexed()
    finally:
        server.stop()


def test_without_redis_the_node_serves_on(launch: Callable[..., Launched]) -> None:
    gone = f"redis://127.0.0.1:{free_port()}"
    node = launch(gone)
    wait_until(lambda: node.said("serves nemotron-3-ultra"), "ready")
    assert node.said("Redis refused the registration")
    assert node.noted("stderr").count("Redis refused") == 1, "told once, not at every heartbeat"
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(60) == 0


@pytest.mark.parametrize(("budget", "verdict"), [("obey", "obeyed"), ("disobey", "ignored"), ("absent", "refused")])
def test_the_fake_node_is_judged_by_what_it_does(
    launch: Callable[..., Launched], redis_url: str, budget: str, verdict: str
) -> None:
    fake = shlex.join([WORKER, "fake", "--port"]) + " {port}"
    fake += f" --host {{host}} --served-model-name nemotron-3-ultra --thinking-tokens 60 --budget {budget}"
    node = launch(redis_url, command=fake)
    record = wait_until(lambda: node.is_in("ready"), "ready")
    assert record["canary"] == {"warm_up": True, "thinking_budget": verdict}
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(60) == 0


def test_a_ray_worker_stays_joined_and_ends_with_the_launcher(tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n[ -e "$(dirname "$0")/up" ] && exec sleep 60\n')
    ray.chmod(0o755)
    process = subprocess.Popen(
        [
            WORKER,
            "launch",
            "nemotron-3-ultra-16xh100-fp8",
            *["--role", "worker", "--head", "10.0.0.1", "--backoff-seconds", "0.05"],
        ],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )
    try:
        # The head is not up yet: Ray ends at once and is started again, until it stays.
        calls = tmp_path / "calls"
        wait_until(lambda: calls.exists() and len(calls.read_text().splitlines()) >= 3, "three starts")
        (tmp_path / "up").touch()
        time.sleep(0.5)
        before = calls.read_text()
        time.sleep(0.5)
        assert calls.read_text() == before
        assert "--address=10.0.0.1:6379 --num-gpus=8 --block" in before
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_ray_head_that_is_told_to_stop_while_it_waits_stops_ray(tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text(
        '#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n[ "$1" = status ] && echo " 0.0/8.0 GPU"\nexit 0\n'
    )
    ray.chmod(0o755)
    stderr = tmp_path / "stderr"
    with stderr.open("w") as said:
        process = subprocess.Popen(
            [WORKER, "launch", "nemotron-3-ultra-16xh100-fp8", "--role", "head", "--vllm", "0.22.0"],
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
            stderr=said,
        )
    wait_until(lambda: "Ray counts 8 of 16 GPUs" in stderr.read_text(), "the count")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "stop"
