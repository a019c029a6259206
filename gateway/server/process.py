"""The process side: sockets, worker processes, signals. uvicorn serves and supervises; this prepares and cleans up."""

import asyncio
import gc
import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from gateway.api.open_files import raise_open_files
from gateway.api.protocol import GatewayProtocol
from gateway.api.tls import TlsProtocol
from gateway.app import Gateway, build_app
from gateway.config.otel_variables import doubtful_variables
from gateway.config.source import doubts_about, load_with_deprecations
from gateway.config.tree import Config
from gateway.config.watch import ConfigWatch, log_deprecated, log_doubts, request_reload
from gateway.server.allocator import keep_memory
from gateway.server.gateway_app import GatewayApp
from gateway.server.graceful_close import close_gracefully
from gateway.telemetry.log_stream import LogStream
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.metrics import bury_dead_processes

log = structlog.get_logger("fleetgate")

LAUNCH_VARIABLE = "_FLEETGATE_LAUNCH"
KEEP_ALIVE_SECONDS = 75
"""How long an idle client connection is kept: longer than the 60 s after which most load balancers drop one."""

GRACE_SECONDS = 5
"""Seconds after the deadline of a shutdown in which error events are sent, before tasks are cancelled."""


WORKER_START_SECONDS = 30
"""Seconds after which a worker process that gives no sign of life is replaced. On a busy machine its imports alone can
take 10 s, and a process that is replaced during them never starts."""


class ListenError(Exception):
    """An address cannot be listened on, for `reason`."""

    def __init__(self, host: str, port: int, reason: str | None) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class WorkerLaunch:
    """What a worker process needs to build the same gateway as its siblings. Passed as JSON in the environment."""

    config_path: str | None
    overrides: dict[str, Any]
    admin_port: int
    response_key: str
    shared: str | None


def serve(config: Config, config_path: Path | None, overrides: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises `ListenError`."""
    raise_open_files()
    _ignore_user_signals()
    with (
        listen(config.listen.host, config.listen.port, config.workers > 1) as public,
        listen(config.admin.host, config.admin.port, config.workers > 1) as admin,
    ):
        _serve_on(public, admin, config, config_path, overrides)


def _serve_on(
    public: socket.socket, admin: socket.socket, config: Config, config_path: Path | None, overrides: dict[str, Any]
) -> None:
    shared = Path(tempfile.mkdtemp(prefix="fleetgate-")) if config.workers > 1 else None
    launch = WorkerLaunch(
        config_path=None if config_path is None else str(config_path.absolute()),
        overrides=overrides,
        admin_port=admin.getsockname()[1],
        response_key=secrets.token_hex(32),
        shared=None if shared is None else str(shared),
    )
    os.environ[LAUNCH_VARIABLE] = json.dumps(asdict(launch))
    if shared is not None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(shared)
        configure_logging(config.log.format, config.log.level, LogStream())  # of the supervisor
    _announce(config, public, admin)
    try:
        _run(uvicorn_settings(config), [public, admin], None if config_path is None else shared)
    finally:
        if shared is not None:
            shutil.rmtree(shared, ignore_errors=True)


def worker_app() -> GatewayApp:
    """Makes the application. uvicorn calls it in each process."""
    keep_memory()
    raise_open_files()
    _ignore_user_signals()
    launch = WorkerLaunch(**json.loads(os.environ[LAUNCH_VARIABLE]))
    if launch.config_path is not None or launch.shared is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the handlers are installed: the file is being read
    shared = None if launch.shared is None else Path(launch.shared)
    watch = None
    if launch.config_path is None:
        config, deprecated = load_with_deprecations(None, launch.overrides)
    else:
        watch = ConfigWatch(Path(launch.config_path), launch.overrides, shared)
        config = watch.read_or_last_good()
        deprecated = watch.deprecated
    stream = LogStream()
    configure_logging(config.log.format, config.log.level, stream)
    log_deprecated(deprecated)
    doubts = doubts_about(config, None, time.time(), launch.overrides) if watch is None else watch.doubts(config)
    log_doubts(doubts)
    log_doubts(doubtful_variables(config.telemetry.traces))
    if shared is not None:
        bury_dead_processes(shared)
    gateway = build_app(config, watch, bytes.fromhex(launch.response_key), shared, stream)
    app = GatewayApp(gateway, launch.admin_port, partial(_install_signal_handlers, supervised=shared is not None))
    _tune_garbage_collector()
    return app


def _ignore_user_signals() -> None:
    """Ignore SIGUSR1 and SIGUSR2, which would end the process by default, and every stream with it."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _install_signal_handlers(loop: asyncio.AbstractEventLoop, gateway: Gateway, supervised: bool) -> None:
    """SIGTERM and SIGINT close gracefully. SIGHUP reloads the configuration; without a config file it counts as SIGTERM
    (a terminal was closed). With several processes, the supervisor handles SIGHUP."""
    close_gracefully(loop, gateway.announce_shutdown)
    if supervised:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif gateway.config_reload.has_file:
        loop.add_signal_handler(signal.SIGHUP, gateway.config_reload.reload_logged)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        loop.add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)


class Supervisor(Multiprocess):
    """uvicorn's supervisor, with a reload at SIGHUP: uvicorn's own replaces all processes, which ends their streams."""

    def __init__(self, settings: uvicorn.Config, sockets: list[socket.socket], shared: Path | None) -> None:
        """`shared`: the directory by which processes are asked to reload; None where there is no config file."""
        super().__init__(settings, sockets)
        self._shared = shared
        _ignore_user_signals()  # again: worker processes inherit it

    def keep_subprocess_alive(self) -> None:
        """Also log each worker process that was replaced: killed (for its memory, most often), crashed or hung."""
        before = list(self.processes)
        super().keep_subprocess_alive()
        for old, new in zip(before, self.processes, strict=True):
            if new is not old:
                log.error("worker_replaced", process=old.pid, exit_code=old.exitcode, replacement=new.pid)

    def handle_hup(self) -> None:
        if self._shared is None:
            self.handle_term()
        else:
            request_reload(self._shared)


def _tune_garbage_collector() -> None:
    """Collect rarely: requests and outages of Redis leave no reference cycles, which tests check.

    Objects made at start are frozen; the thresholds are counts of objects (see `gc.set_threshold`). Measured:
    this saves an eighth of the cost of a plain request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class SharedPort(socket.socket):
    """A bound socket that is pickled as a new socket on the same port.

    The kernel spreads connections evenly over sockets that share a port. Of processes that wait on the same socket it
    wakes the last one first, so that nearly all streams would end up in one process.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        host, port = self.getsockname()[:2]
        return listen, (host, port, True)


def listen(host: str, port: int, shared: bool = False) -> socket.socket:
    """A bound socket; port 0 takes a free one. `shared`: each worker process has its own on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = (SharedPort if shared else socket.socket)(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.set_inheritable(True)
    except (OSError, ValueError, OverflowError) as error:  # Python itself refuses what is no host or no port
        sock.close()
        raise ListenError(host, port, error.strerror if isinstance(error, OSError) else str(error)) from None
    return sock


def uvicorn_settings(config: Config, app: GatewayApp | None = None) -> uvicorn.Config:
    """The settings by which uvicorn serves `app`; None: each process makes its own."""
    tls = config.listen.tls
    return uvicorn.Config(
        app or "gateway.server.process:worker_app",
        factory=app is None,
        http=GatewayProtocol if tls is None else TlsProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        workers=config.workers,
        timeout_worker_healthcheck=WORKER_START_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(config.timeouts.shutdown) + GRACE_SECONDS,
    )


def _run(settings: uvicorn.Config, sockets: list[socket.socket], shared: Path | None) -> None:
    if settings.workers > 1:
        Supervisor(settings, sockets, shared).run()
        return
    # uvicorn raises the signal that stopped it again at its end, when nothing is left to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(settings).run(sockets)


def _announce(config: Config, public: socket.socket, admin: socket.socket) -> None:
    scheme = "https" if config.listen.tls else "http"
    nodes = ", ".join(node.url for node in config.nodes) or "none configured"
    stream = LogStream()
    stream.write(f"fleetgate listens on {scheme}://{_address(public)}  (nodes: {nodes})\n")
    stream.write(f"admin and metrics on {scheme}://{_address(admin)}\n")


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
