"""The gateway's own clients of nodes."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.fleet.node import Node
from gateway.fleet.node_client import client_of
from gateway.fleet.node_spec import NodeSpec
from tests.support.certificates import self_signed


async def test_public_authorities_are_read_once_and_a_nodes_own_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the public ones takes 20 ms, in which the event loop stands still."""
    own = str(self_signed(tmp_path).cert)
    read: list[str] = []
    make = ssl.create_default_context

    def note(*args: Any, **options: Any) -> ssl.SSLContext:
        read.append(options["cafile"])
        return make(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", note)
    for ca_file in (None, None, own, None, own):
        async with client_of(Node(NodeSpec("https://127.0.0.1:1", ca_file=ca_file))):
            pass
    assert read.count(own) == 2
    assert len(read) <= 3
