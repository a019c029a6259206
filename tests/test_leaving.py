"""Leaving a port: who has connected is served, who knocks is not let in."""

import select
import socket

from gateway.leaving import turn_away


def test_who_stands_in_the_queue_is_served_and_nobody_new_gets_in() -> None:
    with socket.socket() as listener, socket.socket() as early, socket.socket() as late:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        early.connect(listener.getsockname())
        assert turn_away(listener)
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        assert select.select([], [late], [], 0.2) == ([], [], []), "its handshake does not begin"
        server_side, _ = listener.accept()
        with server_side:
            early.sendall(b"hello")
            assert server_side.recv(5) == b"hello"
