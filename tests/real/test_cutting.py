"""The proxy that cuts streams does what it says. Needs no vLLM."""

import http.server
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.real.cutting import WAYS, Cuts, Way, cutting

EVENTS = [f'data: {{"number":{number},"some":"{"text" * 30}"}}\n\n'.encode() for number in range(6)]


class _Node(http.server.BaseHTTPRequestHandler):
    """Sends the same events each time, in pieces of `piece` bytes; 0: a chunk each."""

    protocol_version = "HTTP/1.1"
    piece = 0

    def do_GET(self) -> None:
        kind = "text/event-stream" if self.path == "/stream" else "application/json"
        self.wfile.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()  # one piece
        )
        body = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"
        for start in range(0, len(body), self.piece or len(body)):
            self.wfile.write(body[start : start + (self.piece or len(body))])

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(params=[0, 1, 7, 211])
def node(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    handler = type("_Pieces", (_Node,), {"piece": request.param})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield "127.0.0.1", server.server_address[1]
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", [1, 4, 5])
def test_a_stream_is_cut_behind_an_event(node: tuple[str, int], after: int, way: Way) -> None:
    """What passed is whole events, and with `inside` a piece of the next one; the stream after it is whole."""
    cuts = Cuts()
    with cutting(node, cuts) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/plain").content == b"".join(EVENTS)
        cuts.arm(after, way)
        assert client.get("/plain").content == b"".join(EVENTS), "only streams are cut"
        passed = b""
        with pytest.raises(httpx.TransportError), client.stream("GET", "/stream") as answer:
            for piece in answer.iter_raw():
                passed += piece
        whole = b"".join(EVENTS[:after])
        if way == "close":  # with a reset a part may be lost on the way
            assert passed == whole
        else:
            assert (whole + EVENTS[after]).startswith(passed)
            assert len(passed) < len(whole + EVENTS[after])
        assert client.get("/stream").content == b"".join(EVENTS)
        assert cuts.disarm()
        cuts.arm(9, way)
        assert client.get("/stream").content == b"".join(EVENTS)
        with pytest.raises(httpx.TransportError):
            client.get("/stream")
        cuts.arm(9, way)
        assert client.get("/stream").content == b"".join(EVENTS)
        assert not cuts.disarm()
        assert [client.get("/stream").content for _ in range(3)] == [b"".join(EVENTS)] * 3


def test_a_node_that_is_gone(node: tuple[str, int]) -> None:
    """Connections end at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    with cutting(("127.0.0.1", nobody), Cuts()) as url, pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)
