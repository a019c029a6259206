"""The metadata services of three clouds on one port, as their documentation has them: headers and tokens included.

`Metadata.notice` is what the machine's notice is; `refuse` makes every answer that status, `silent` gives none.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "AQAEALRrQ9gqtDTzJ7TVMPxOk7PwEx4aBFVFsUhFcvQVSbrDOkUcgw=="


class Metadata:
    """What the services say, and what they were asked."""

    def __init__(self) -> None:
        self.url = ""
        self.aws: dict[str, str] | None = None
        self.gcp = "FALSE"
        self.azure: list[dict[str, Any]] = []
        self.azure_name = "fleet_7"
        self.plain: tuple[int, str] = (404, "")
        self.refuse: int | None = None
        self.silent = threading.Event()
        self.asked: list[str] = []
        self.answered = threading.Condition()

    def wait_until_asked(self, times: int) -> None:
        """Return when `times` more questions were answered."""
        with self.answered:
            wanted = len(self.asked) + times
            assert self.answered.wait_for(lambda: len(self.asked) >= wanted, 60)

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        """Status and text."""
        if self.refuse is not None:
            return self.refuse, "refused"
        if path == "/latest/api/token":
            asked_right = method == "PUT" and headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            return (200, TOKEN) if asked_right else (400, "")
        if path == "/latest/meta-data/spot/instance-action":
            if headers.get("X-aws-ec2-metadata-token") != TOKEN:
                return 401, ""
            return (404, "") if self.aws is None else (200, json.dumps(self.aws))
        if path.endswith("/instance/preempted"):
            return (200, self.gcp) if headers.get("Metadata-Flavor") == "Google" else (403, "")
        if path.startswith("/metadata/"):
            return self._azure(path) if headers.get("Metadata") == "true" else (400, "Required metadata header")
        return self.plain

    def _azure(self, path: str) -> tuple[int, str]:
        if path.startswith("/metadata/scheduledevents?api-version=2020-07-01"):
            return 200, json.dumps({"DocumentIncarnation": 2, "Events": self.azure})
        if path.startswith("/metadata/instance/compute/name?api-version=2021-02-01&format=text"):
            return 200, self.azure_name
        return 404, ""


@contextmanager
def serve_metadata() -> Iterator[Metadata]:
    """Run the services on a free port of 127.0.0.1."""
    metadata = Metadata()

    class Routes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if metadata.silent.is_set():
                self.rfile.read()  # until the client leaves
                return
            status, text = metadata.answer(self.command, self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
            with metadata.answered:
                metadata.asked.append(f"{self.command} {self.path}")
                metadata.answered.notify_all()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Routes) as server:
        server.daemon_threads = True
        metadata.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield metadata
        server.shutdown()
        thread.join()
