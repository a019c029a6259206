"""A server that speaks enough of the hub's API for a download: model info, the file tree, files with ranges.

Started in a thread by test_download.py on port 0. It can break connections off, in several ways and as often as is
wished. Safetensors files are LFS objects, as on the hub: their SHA-256 is told; of the others git's blob id is.
"""

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.workers.threaded_server import serve_routes

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name, each a mapping of file names to bytes; what was asked; what is to break."""

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        self.repositories = repositories
        self.gated: set[str] = set()
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks_left = 0
        self.break_after = 0
        self.hangups_left = 0
        """How often a file's head is asked for and the connection ends without an answer."""
        self.faults: Iterator[str] = iter(())
        """What befalls each request: `hangup`, `reset`, `cut` (in the middle of a file), a status, `page` (that of a
        proxy), or nothing (an empty word)."""
        self.hold = False
        """Files are begun and not ended until `released`; `held` says that one is."""
        self.held, self.released = threading.Event(), threading.Event()
        self.broken = 0
        """How many requests were broken by `faults`."""
        self._lock = threading.Lock()
        self.url = ""

    def next_fault(self) -> str:
        """Of several that ask at once each gets its own."""
        with self._lock:
            fault = next(self.faults, "")
            self.broken += bool(fault)
            return fault

    def served_bytes(self) -> int:
        """Ranges asked for, for counting what was fetched twice."""
        return sum(1 for method, path, _ in self.asked if method == "GET" and "/resolve/" in path)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the hub on a free port of 127.0.0.1."""
    with serve_routes(_routes(hub)) as hub.url:
        yield hub


def _routes(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Routes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if self.command == "HEAD" and hub.hangups_left > 0:
                hub.hangups_left -= 1
                self.close_connection = True
                return None
            self.fault = hub.next_fault()
            if self.fault not in ("", "cut"):
                return self._break(self.fault, body)
            api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)/?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            found = api or file
            name = found.group(1) if found else ""
            if found is None or name not in hub.repositories:
                return self._refuse(404, "RepoNotFound", "Repository not found")
            if name in hub.gated:
                return self._refuse(403, "GatedRepo", "Access to this model is restricted")
            if found.group(2 if file else 3) not in (COMMIT, "main"):
                return self._refuse(404, "RevisionNotFound", "Invalid rev id")
            files = hub.repositories[name]
            if api:
                listing = _info(name, files) if api.group(2) == "revision" else _tree(files)
                return self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
            assert file is not None
            return self._send_file(file.group(3), files[file.group(3)], body)

        def _break(self, fault: str, body: bool) -> None:
            if fault == "page":
                return self._send(200, b"<html>log in first</html>", {"Content-Type": "text/html"}, body)
            if fault.isdigit():
                return self._send(int(fault), b"busy", {"Retry-After": "0"}, body)
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
            self.close_connection = True
            return None

        def _send_file(self, name: str, data: bytes, body: bool) -> None:
            headers = {"ETag": f'"{_etag(name, data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                return self._send(200, data, headers, body)
            start = int(wanted.group(1))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(206, data[start:], headers, body)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message}, True)

        def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.fault == "cut":
                self.wfile.write(data[: len(data) // 2 if body else 0])
                self.close_connection = True
                return
            if not body:
                return
            if hub.hold and len(data) > 100_000:
                self.wfile.write(data[:1000])
                hub.held.set()
                hub.released.wait(60)
                self.close_connection = True
                return
            if hub.breaks_left > 0 and len(data) > hub.break_after:
                hub.breaks_left -= 1
                self.wfile.write(data[: hub.break_after])
                self.close_connection = True
                return
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Silence."""

    return Routes


def _info(name: str, files: dict[str, bytes]) -> dict[str, object]:
    siblings = [{"rfilename": n, "size": len(d), "blobId": git_blob_id(d), **_lfs(n, d)} for n, d in files.items()]
    return {"id": name, "modelId": name, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}


def _tree(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [{"type": "file", "path": n, "size": len(d), "oid": git_blob_id(d), **_lfs(n, d)} for n, d in files.items()]


def git_blob_id(data: bytes) -> str:
    """As `git hash-object` computes it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs(name: str, data: bytes) -> dict[str, object]:
    if not name.endswith(".safetensors"):
        return {}
    digest = hashlib.sha256(data).hexdigest()
    return {"lfs": {"sha256": digest, "oid": digest, "size": len(data), "pointerSize": 134}}


def _etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else git_blob_id(data)
