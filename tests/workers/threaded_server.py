"""A server of HTTP requests in threads, for stand-ins of what downloads ask."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve_routes(routes: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run it on a free port of 127.0.0.1; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), routes) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
