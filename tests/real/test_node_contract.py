"""A real vLLM keeps the contract that the fake node is held to."""

from typing import Protocol

import pytest

from tests.contract.client import node_client
from tests.contract.node_contract import PROMISES, Promise

pytestmark = pytest.mark.real


class RealNode(Protocol):
    """What the fixture of a real node hands out."""

    @property
    def url(self) -> str: ...


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
async def test_real_node_keeps_the_contract(promise: Promise, vllm: RealNode) -> None:
    async with node_client(vllm.url) as node:
        await promise(node)
