"""The mock node and the load client, as the processes they are: counts, never times."""

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.answers import MODEL
from loadtest.asks import Target, request
from loadtest.caller import Load
from loadtest.client import parse, run
from loadtest.mock_node import read_order
from loadtest.processes import HOST, Child, free_port, wait_until_answers


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running mock node."""
    port = free_port()
    argv = [sys.executable, "-m", "loadtest.mock_node", "--port", str(port)]
    with Child(argv, tmp_path_factory.mktemp("node") / "log") as child:
        wait_until_answers(child, port, request(Target(HOST, port), 0, 1.0), 30.0)
        yield port


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """One request in the ordinary way, with a real HTTP client."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def events(body: bytes) -> list[str]:
    """The data of each server-sent event."""
    parts = body.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [part.removeprefix("data: ") for part in parts]


def question(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "rate=1000"}], "stream": True, "max_tokens": 5} | fields


def test_a_stream_is_role_tokens_finish_and_done(node: int) -> None:
    status, body = ask(node, "POST", "/v1/chat/completions", question())
    *chunks, done = events(body)
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert (status, done, len(choices)) == (200, "[DONE]", 1 + 5 + 1)
    assert choices[0]["delta"]["role"] == "assistant"
    assert [list(choice["delta"]) for choice in choices[1:6]] == [["reasoning"]] * 4 + [["content"]]
    assert choices[-1]["finish_reason"] == "stop"
    assert all(choice.get("token_ids") is None for choice in choices)


def test_usage_and_token_ids_where_they_are_asked_for(node: int) -> None:
    fields = {"stream_options": {"include_usage": True}, "return_token_ids": True}
    _, body = ask(node, "POST", "/v1/chat/completions", question(**fields))
    *chunks, usage, _ = events(body)
    first, *rest = (json.loads(chunk) for chunk in chunks)
    assert len(first["prompt_token_ids"]) == 120
    assert all(len(chunk["choices"][0]["token_ids"]) == 1 for chunk in rest)
    assert json.loads(usage)["usage"]["completion_tokens"] == 6


def test_a_plain_answer_has_its_usage(node: int) -> None:
    status, body = ask(node, "POST", "/v1/chat/completions", question(stream=False))
    assert status == 200
    assert json.loads(body)["usage"]["completion_tokens"] == 24


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/version", "/metrics", "/get_server_info"])
def test_what_routers_ask_for_is_there(node: int, path: str) -> None:
    assert ask(node, "GET", path)[0] == 200


def test_metrics_tell_how_many_streams_are_under_way(node: int) -> None:
    """A gateway that sends a node no more than it can take goes by that."""
    running = f'num_requests_running{{engine="0",model_name="{MODEL}"}} '
    connection = http.client.HTTPConnection(HOST, node, timeout=10)
    connection.request("POST", "/v1/chat/completions", json.dumps(question(max_tokens=100_000)))
    connection.getresponse().readline()
    assert running + "1\n" in ask(node, "GET", "/metrics")[1].decode()
    connection.close()
    while running + "0\n" not in ask(node, "GET", "/metrics")[1].decode():
        pass


def test_models_tell_the_context_window(node: int) -> None:
    card = json.loads(ask(node, "GET", "/v1/models")[1])["data"][0]
    assert (card["id"], card["max_model_len"]) == (MODEL, 262_144)


def test_unknown_paths_and_bad_bodies_are_errors(node: int) -> None:
    assert ask(node, "GET", "/nothing")[0] == 404
    assert ask(node, "POST", "/v1/chat/completions", [1])[0] == 400


def test_the_prompt_says_how_to_answer() -> None:
    body = {"messages": [{"role": "user", "content": "rate=20 delay=0.25"}], "max_tokens": 600}
    order = read_order(json.dumps(body).encode())
    assert (order.rate, order.delay, order.events, order.stream) == (20.0, 0.25, 600, False)


async def test_every_event_of_every_stream_arrives(node: int) -> None:
    report = await run(Target(HOST, node), Load(20, events=30, rate=500, seconds=0, repeat=False, delays=True))
    assert (report.opened, report.broken, report.lost_events) == (20, 0, 0)
    assert 0 < report.ttft_p50 <= report.ttft_p99
    assert 0 < report.delay_p50 <= report.delay_p99 <= report.delay_max


async def test_callers_ask_again_until_the_window_closes(node: int) -> None:
    report = await run(Target(HOST, node), Load(4, seconds=0.5))
    assert report.whole > 8
    assert (report.broken, report.lost_events) == (0, 0)


async def test_streams_cut_by_the_client_are_not_lost(node: int) -> None:
    report = await run(Target(HOST, node), Load(5, events=100_000, rate=200, seconds=0.3, repeat=False))
    assert report.events > 0
    assert (report.opened, report.broken, report.lost_events) == (5, 0, 0)


async def test_nobody_listening_is_broken(unused: int) -> None:
    report = await run(Target(HOST, unused), Load(3, events=10, seconds=0.2, repeat=False))
    assert (report.opened, report.broken, report.lost_events) == (0, 3, 30)


@pytest.fixture
def unused() -> int:
    return free_port()


def test_the_command_line_makes_a_load() -> None:
    target, load = parse(["--port", "1", "--events", "5", "--once", "--callers", "7"])
    assert target == Target(HOST, 1)
    assert (load.callers, load.events, load.repeat) == (7, 5, False)


def test_a_child_is_gone_after_its_context(tmp_path: Path) -> None:
    with Child([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log") as child:
        assert not child.ended
    assert child.ended
