"""The fake node keeps the contract of a real one (tests/real runs the same on a real vLLM)."""

import pytest

from tests.contract.client import node_client
from tests.contract.node import client_leaves
from tests.contract.node_contract import PROMISES, Promise
from workers.fake import FakeSettings, serve_fake


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
async def test_fake_node_keeps_the_contract(promise: Promise) -> None:
    # The abort needs a request that lasts; everything else runs as fast as it can.
    rate = 200.0 if promise is client_leaves else 0.0
    async with serve_fake(FakeSettings(rate=rate, max_model_len=4096)) as fake, node_client(fake.url) as node:
        await promise(node)
