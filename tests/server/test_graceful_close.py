"""Leaving a port: who has connected is served, who knocks is not let in."""

import os
import select
import socket
from pathlib import Path

from gateway.server.graceful_close import _listening, drop_handshakes


def test_who_stands_in_the_queue_is_served_and_nobody_new_gets_in() -> None:
    with socket.socket() as listener, socket.socket() as early, socket.socket() as late:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        early.connect(listener.getsockname())
        assert drop_handshakes(listener)
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        assert select.select([], [late], [], 0.2) == ([], [], []), "its handshake does not begin"
        server_side, _ = listener.accept()
        with server_side:
            early.sendall(b"hello")
            assert server_side.recv(5) == b"hello"


def test_looking_for_listeners_leaves_no_descriptor_behind() -> None:
    """Most of a process's descriptors are no sockets, and a copy of a pipe's end would keep the other one waiting."""
    reading, writing = os.pipe()
    with socket.socket() as listener, socket.socket():
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        before = set(Path("/proc/self/fd").iterdir())
        found = [sock.getsockname() for sock in _listening()]
        assert listener.getsockname() in found
        assert set(Path("/proc/self/fd").iterdir()) == before
    os.close(writing)
    assert os.read(reading, 1) == b"", "nobody holds the other end"
    os.close(reading)
