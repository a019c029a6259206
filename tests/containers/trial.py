"""Builds the images, brings compose.yaml up, and uses it: `make test-containers`.

Needs docker with compose, or podman, buildah and podman-compose. Where no registry can be reached,
tests/containers/local_images.sh makes stand-ins and prints the variables to set. Everything it starts has the project
name below and is taken down again, also after a failure. Each step prints what it proved; the first that fails ends it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import httpx2  # what the SDK lets through when a stream is cut
from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam

ROOT = Path(__file__).parents[2]
PROJECT = "fleetgate-trial"
GATEWAY_IMAGE = "localhost/fleetgate-gateway:latest"
WORKER_IMAGE = "localhost/fleetgate-worker:latest"
MODEL = "nemotron-3-ultra"
SECRET = "only-inside-this-compose-project"
"""What nodes sign with, as .env has it."""
MOST_BYTES = 80 * 10**6
# Machines without a systemd to ask for cgroups and limits: what podman needs there.
PODMAN = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
PODMAN_RUN = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@dataclass(frozen=True)
class Engine:
    """The container program of this machine."""

    name: str

    def run(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run one command of the engine."""
        head = ["docker"] if self.name == "docker" else ["podman", *PODMAN]
        return subprocess.run([*head, *words], capture_output=True, text=True, check=check, cwd=ROOT)

    def succeeds(self, *words: str) -> bool:
        """Whether one command of the engine ends well."""
        return self.run(*words, check=False).returncode == 0

    def start(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`run` a container, with what this engine needs for it."""
        return self.run("run", *(() if self.name == "docker" else PODMAN_RUN), *words)

    def build(self, file: str, tag: str, **arguments: str) -> None:
        """Build an image from the repository."""
        options = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        if self.name == "docker":
            command = ["docker", "build", *options, "-t", tag, "-f", file, "."]
        else:
            # chroot isolation works inside of containers, too. The host's certificates and pip settings are lent.
            lent = [p for p in ("/etc/ssl/certs", "/etc/pip.conf") if Path(p).exists()]
            volumes = [word for path in lent for word in ("-v", f"{path}:{path}:ro")]
            command = ["buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers", *volumes]
            command += [*options, "-t", tag, "-f", file, "."]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)

    def compose(self, profiles: str, environment: dict[str, str], *words: str) -> str:
        """Run a compose command; returns what it printed."""
        if self.name == "docker":
            command = ["docker", "compose", "-p", PROJECT, *words]
        else:
            program = shutil.which("podman-compose") or str(Path(sys.executable).with_name("podman-compose"))
            command = [program, "-p", PROJECT, f"--podman-args={' '.join(PODMAN)}"]
            command += [f"--podman-run-args={' '.join(PODMAN_RUN)}", *words]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment, "COMPOSE_PROFILES": profiles},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
        return done.stdout

    def container(self, service: str) -> str:
        """The name of a service's container; compose versions join it with - or _."""
        names = self.run("ps", "-a", "--format", "{{.Names}}").stdout.split()
        return next(n for n in names if n in (f"{PROJECT}-{service}-1", f"{PROJECT}_{service}_1"))


class CutStream(Exception):
    """A stream that had begun ended without a finish reason: nobody can answer that one again for the client."""


@dataclass
class Load:
    """Clients that ask all the time, and what they met. `cut` counts streams that broke off after they had begun."""

    client: OpenAI
    answered: int = 0
    cut: int = 0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, clients: int) -> Iterator["Load"]:
        """Ask from `clients` threads, every other request as a stream, until the block ends."""
        stop = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(stop, n % 2 == 0)) for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, stop: threading.Event, stream: bool) -> None:
        while not stop.is_set():
            try:
                ask(self.client, stream)
                self.answered += 1
            except CutStream:
                self.cut += 1
            except (OpenAIError, httpx2.HTTPError) as error:
                self.errors.append(repr(error))


def ask(client: OpenAI, stream: bool) -> str:
    """One request through OpenAI's SDK; a stream has to end with a finish reason."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
    if not stream:
        answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=40)
        return str(answer.choices[0].message.content)
    text, begun, finished = "", False, False
    try:
        for event in client.chat.completions.create(model=MODEL, messages=messages, max_tokens=40, stream=True):
            begun = True
            for choice in event.choices:
                text += choice.delta.content or ""
                finished = finished or choice.finish_reason is not None
    except (OpenAIError, httpx2.HTTPError) as error:
        if begun:
            raise CutStream from error
        raise
    if not finished:
        raise CutStream
    return text


def prove(what: str, good: bool, seen: object = "") -> None:
    """Say what was proved, or end with what was seen instead."""
    if not good:
        raise SystemExit(f"FAILED: {what}\n{seen}")
    print(f"ok  {what}", flush=True)


def wait_until(check: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Wait for `check`; returns the seconds it took."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if check():
            return time.monotonic() - started
        time.sleep(0.2)
    raise SystemExit(f"FAILED: {what} did not come within {seconds:.0f} s")


def is_ready(port: int) -> bool:
    """Whether a gateway on that port can serve."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def sdk(port: int, retries: int) -> OpenAI:
    """OpenAI's client on a published port."""
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=retries, timeout=60)


def try_images(engine: Engine) -> None:
    """The gateway image: size, user, healthcheck. The worker image: its command works beside a foreign Python."""
    python = os.environ.get("PYTHON_IMAGE", "docker.io/library/python:3.12-slim")
    engine.build("docker/gateway.Dockerfile", GATEWAY_IMAGE, PYTHON_IMAGE=python)
    sizes = [json.loads(engine.run("image", "inspect", name).stdout)[0]["Size"] for name in (GATEWAY_IMAGE, python)]
    ours = sizes[0] - sizes[1]
    prove(f"our layers of the gateway image are {ours / 1e6:.0f} MB, at most 80", ours <= MOST_BYTES)
    shown = engine.start("--rm", "--entrypoint", "sh", GATEWAY_IMAGE, "-c", "id -u")
    prove("the gateway image does not run as root", shown.stdout.strip() == "10001")
    inspected = json.loads(engine.run("image", "inspect", GATEWAY_IMAGE).stdout)[0]
    health = inspected.get("Healthcheck") or inspected["Config"].get("Healthcheck")
    prove("the gateway image has a healthcheck", bool(health))
    engine.build("docker/worker.Dockerfile", WORKER_IMAGE, VLLM_IMAGE=os.environ.get("TRIAL_VLLM_IMAGE", python))
    shown = engine.start(
        "--rm", *("--cap-drop", "ALL"), "--entrypoint", "sh", WORKER_IMAGE, "-c", "id -u; touch ~/x && echo writable"
    )
    prove(
        "the worker image does not run as root, and can write to its home",
        shown.stdout.split() == ["10001", "writable"],
    )
    profile = "nemotron-3-ultra-8xh200-fp8"
    shown = engine.start("--rm", WORKER_IMAGE, "argv", profile)
    prove("the worker image prints the H200 command", "--tensor-parallel-size 8" in shown.stdout)
    refused = engine.run("run", "--rm", WORKER_IMAGE, "fake", check=False)
    prove("the worker image has no fake node", refused.returncode != 0 and "No such command" in refused.stderr)


def try_fake(engine: Engine, environment: dict[str, str], port: int) -> None:
    """`docker compose up` as it is: the fake profile, in seconds."""
    started = time.monotonic()
    engine.compose("fake", environment, "up", "-d")
    wait_until(lambda: is_ready(port), "the gateway")
    prove(f"compose up answers after {time.monotonic() - started:.1f} s", True)
    prove("an OpenAI SDK request is served", bool(ask(sdk(port, 0), stream=False)))
    prove("an OpenAI SDK stream is served", bool(ask(sdk(port, 0), stream=True)))
    gateway = engine.container("gateway")
    touched = engine.run("exec", gateway, "sh", "-c", "touch /opt/fleetgate/x", check=False)
    prove("the gateway's file system is read-only", "Read-only" in touched.stderr)
    redis = engine.container("redis")
    wait_until(lambda: "PONG" in engine.run("exec", redis, "redis-cli", "ping", check=False).stdout, "redis")
    aof = engine.run("exec", redis, "redis-cli", "config", "get", "appendonly").stdout
    prove("redis writes an AOF", "yes" in aof)
    try_registration(engine, redis)


def try_registration(engine: Engine, redis: str) -> None:
    """The worker image launches a node in the project's network, registers it, and takes it out when it drains.

    The image has no fake node: it is lent this checkout's.
    """
    network = next(n for n in engine.run("network", "ls", "--format", "{{.Name}}").stdout.split() if PROJECT in n)
    name = f"{PROJECT}-launched"
    fake = "fleetgate-worker fake --host 0.0.0.0 --port {port} --served-model-name nemotron-3-ultra"
    command = ["launch", "tiny-cpu", "--redis", "redis://redis:6379", "--node-id", "trial", "--command", fake]
    command += ["--advertise", f"http://{name}:8000"]
    engine.start(
        "-d",
        "--name",
        name,
        "-v",
        f"{ROOT}/workers/fake:/opt/fleetgate/lib/workers/fake:ro",
        "--cap-drop",
        "ALL",
        "-e",
        f"FLEETGATE_WORKER_SECRET={SECRET}",
        "--network",
        network,
        WORKER_IMAGE,
        *command,
        "--heartbeat-seconds",
        "1",
    )

    def record() -> str:
        return engine.run("exec", redis, "redis-cli", "get", "fleetgate:node:trial").stdout

    try:
        wait_until(lambda: '"state": "ready"' in record(), "the registration")
        prove("a launched node registers", True)
        gateway = engine.container("gateway")
        wait_until(lambda: name in status(engine, gateway), "the node in the gateway's status")
        prove("and `compose exec gateway fleetgate status` shows it", "ready" in status(engine, gateway))
        engine.run("stop", "-t", "20", name)
        prove("a stopped node takes its record out", '"state"' not in record())
        logs = engine.run("logs", name)
        prove("and says that it drained", "drained" in logs.stderr + logs.stdout)
    finally:
        engine.run("rm", "-f", name, check=False)


def status(engine: Engine, gateway: str) -> str:
    """What `fleetgate status` prints inside of a gateway's container."""
    return engine.run("exec", gateway, "fleetgate", "status", "--json", check=False).stdout


def try_ha(engine: Engine, environment: dict[str, str], port: int) -> None:
    """Two gateways behind HAProxy: one is drained, one is killed, and no client sees it."""
    engine.compose("fake,ha", environment, "up", "-d")
    wait_until(lambda: is_ready(port), "HAProxy with a gateway behind it")
    ready = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ready', timeout=2)"
    for name in (engine.container("gateway"), engine.container("gateway-2")):
        wait_until(partial(engine.succeeds, "exec", name, "python", "-c", ready), f"{name} ready")
    time.sleep(1)  # HAProxy looks every half second
    with Load(sdk(port, 0)).running(6) as load:
        time.sleep(2)
        engine.run("stop", "-t", "60", engine.container("gateway-2"))
        time.sleep(2)
    prove(
        f"a gateway stopped under load, SDK without retries: {load.answered} answered, no error",
        not load.errors and not load.cut,
        load,
    )
    engine.run("start", engine.container("gateway-2"))
    time.sleep(5)
    with Load(sdk(port, 2)).running(6) as load:
        time.sleep(2)
        engine.run("kill", "-s", str(int(signal.SIGKILL)), engine.container("gateway"))
        time.sleep(3)
    prove(
        f"a gateway killed under load, the SDK's own retries: {load.answered} answered, no error", not load.errors, load
    )
    print(
        f"    ({load.cut} streams that had begun in the killed process broke off: its memory was their state)",
        flush=True,
    )


def show_logs(engine: Engine, services: Sequence[str], lines: int = 12) -> None:
    """The tail of each service's log."""
    for service in services:
        logs = engine.run("logs", "--tail", str(lines), engine.container(service), check=False)
        print(f"--- {service}\n{logs.stdout}{logs.stderr}", flush=True)


def has_docker() -> bool:
    """Whether a Docker daemon answers; its command alone is not enough."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def main() -> None:
    """Everything, and down again."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    engine = Engine("docker" if has_docker() else "podman")
    ports = [free_port(), free_port()]
    environment = {"GATEWAY_PUBLISH": f"127.0.0.1:{ports[0]}", "HA_PUBLISH": f"127.0.0.1:{ports[1]}"}
    try_images(engine)
    try:
        try_fake(engine, environment, ports[0])
        show_logs(engine, ["gateway", "fake", "redis"])
        try_ha(engine, environment, ports[1])
        show_logs(engine, ["haproxy", "gateway-2"])
    except BaseException:
        show_logs(engine, ["gateway", "gateway-2", "haproxy"], lines=40)
        raise
    finally:
        engine.compose("fake,ha", environment, "down", "-v")
    print("all of it worked", flush=True)


if __name__ == "__main__":
    main()
