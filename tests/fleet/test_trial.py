"""The gateway's own tiny completion: what speaks against a node, and what only says that it is busy."""

import asyncio
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer

import pytest

from gateway.fleet.probe import ask_one_token
from tests.support.node_clients import asking
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, listening, scripted_node


@pytest.mark.parametrize(
    ("status", "certain"),
    [
        ("200 OK", None),
        ("400 Bad Request", None),
        ("404 Not Found", None),
        ("429 Too Many Requests", None),
        ("500 Internal Server Error", True),
        ("502 Bad Gateway", True),
        ("503 Service Unavailable", False),
        ("504 Gateway Timeout", True),
    ],
)
async def test_an_answer_below_500_will_do_and_a_full_queue_says_nothing(status: str, certain: bool | None) -> None:
    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"{}", status))

    async with scripted_node(reply) as node, asking(node.url) as client:
        problem = await ask_one_token(client, MODEL)
        assert (None if problem is None else problem.certain) is certain


class DeadEngine(ScriptedNode):
    """Every answer is 503, also its health's."""

    def probed(self, request: Asked) -> bytes | None:
        return answer(b"", "503 Service Unavailable")


async def test_a_dead_engine_is_told_from_a_full_queue() -> None:
    async def never(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        writer.write(answer(b"", "503 Service Unavailable"))

    async with listening(DeadEngine(never)) as node:
        async with asking(node.url) as client:
            problem = await ask_one_token(client, MODEL)
            assert problem is not None and problem.certain


@pytest.mark.parametrize("breaks", [1, 2])
async def test_a_connection_that_breaks_is_tried_once_more(breaks: int) -> None:
    """A kept one may have stood idle for too long; the second is a fresh one."""

    async def reply(node: ScriptedNode, asked: Asked, reader: Reader, writer: Writer) -> None:
        if len(node.asked) <= breaks:
            writer.close()
        else:
            writer.write(answer(b"{}"))

    async with scripted_node(reply) as node, asking(node.url) as client:
        problem = await ask_one_token(client, MODEL)
        assert (problem is None) is (breaks == 1)
        assert problem is None or problem.certain


async def test_where_no_connection_comes_about_it_may_be_the_gateways_own_want() -> None:
    """Whether the node takes none is for its probes to say: the gateway may be out of descriptors."""
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()
    async with asking(url) as client:
        problem = await ask_one_token(client, MODEL)
        assert problem is not None and not problem.certain
