"""The chart's Valkey: its container's command makes users who may do what the documentation lists, and nothing else."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from tests.charts.helm import MISSING, documents, found_helm
from tests.charts.objects import one
from tests.support.redis import server_binary

pytestmark = pytest.mark.skipif(found_helm() is None, reason=MISSING)
PASSWORDS = {"GATEWAY_PASSWORD": "c0ffee", "WORKER_PASSWORD": "decade"}


@contextmanager
def chart_valkey(folder: Path) -> Iterator[str]:
    """A server that was started with the rendered command, on a socket and folders of this machine."""
    container = one(documents("try"), "StatefulSet", "fleetgate-valkey")["spec"]["template"]["spec"]["containers"][0]
    assert {each["name"] for each in container["env"]} == PASSWORDS.keys()
    binary = server_binary("valkey9")
    assert binary is not None
    shell, flag, script = container["command"]
    script = script.replace("/tmp/", f"{folder}/").replace("--dir /data", f"--dir {folder}")
    script = script.replace("exec valkey-server", f"exec {binary} --port 0 --unixsocket {folder}/socket")
    keeper = shutil.which("setpriv")
    command = [*((keeper, "--pdeathsig", "KILL") if keeper else ()), shell, flag, script]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env={**PASSWORDS, "PATH": os.environ["PATH"]}, stdout=log, stderr=log)
    try:
        while b"Ready to accept connections" not in (folder / "log").read_bytes():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.01)
        assert not any(word in command for word in PASSWORDS.values())
        yield f"{folder}/socket"
    finally:
        process.kill()
        process.wait(10)


def refused(socket: str, user: str | None, password: str | None, *command: str) -> type[RedisError] | None:
    """Why a command is refused to a user, None where it is not."""
    with Redis(unix_socket_path=socket, username=user, password=password) as client:
        try:
            client.execute_command(*command)
        except RedisError as error:
            return type(error)
    return None


@pytest.mark.timeout(60)
def test_each_user_may_do_what_is_its_own(tmp_path: Path) -> None:
    with chart_valkey(tmp_path) as socket:
        for user, password in (("fleetgate", "c0ffee"), ("fleetgate-worker", "decade")):
            mine, other = ("fg1:x", "fleetgate:nodes") if user == "fleetgate" else ("fleetgate:node:a", "fg1:x")
            assert refused(socket, user, password, "SET", mine, "1") is None
            for command in (("SET", other, "1"), ("SET", "y", "1"), ("FLUSHALL",), ("ACL", "LIST"), ("KEYS", "*")):
                assert refused(socket, user, password, *command) is NoPermissionError, command
            assert refused(socket, user, "wrong", "SET", mine, "1") is AuthenticationError
        assert refused(socket, None, None, "PING") is None
        assert refused(socket, None, None, "GET", "fg1:x") is NoPermissionError
        assert (tmp_path / "appendonlydir").is_dir()
