"""A node whose answers a test decides, token by token."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"
Token = tuple[int, float]
"""An id, and by how many nats it is likelier than the next one."""


@dataclass(slots=True)
class Scripted:
    """`reply` gives the tokens of a request's body, and how many of its prompt's were cached."""

    reply: Callable[[dict[str, Any]], tuple[Sequence[Token], int | None]]
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def scripted_node(reply: Callable[[dict[str, Any]], tuple[Sequence[Token], int | None]]) -> Iterator[Scripted]:
    """A server with /v1/models and chat; nothing else is there (404)."""
    node = Scripted(reply)

    class Routes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/v1/models":
                self._send(200, json.dumps({"data": [{"id": MODEL, "max_model_len": 2048}]}))
            else:
                self._send(404, "{}")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(404, "{}")
                return
            node.bodies.append(body)
            tokens, cached = node.reply(body)
            events = [_event(each) for each in tokens]
            details = None if cached is None else {"cached_tokens": cached}
            usage = {"prompt_tokens": 9, "completion_tokens": len(events), "prompt_tokens_details": details}
            lines = [*events, json.dumps({"choices": [], "usage": usage}), "[DONE]"]
            self._send(200, "".join(f"data: {line}\n\n" for line in lines))

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Routes)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield node
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _event(token: Token) -> str:
    number, margin = token
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.1 - margin}]
    content = [{"token": "a", "logprob": -0.1, "top_logprobs": top}]
    choice = {"index": 0, "delta": {"content": "a"}, "token_ids": [number], "logprobs": {"content": content}}
    return json.dumps({"choices": [choice]})
