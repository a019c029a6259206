"""A node is killed, drained or frozen with nine streams on it: each goes on on the other node, to the last letter."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.real.conftest import Server
from tests.real.heard import DIALECTS, Heard, hear
from tests.real.killable import KillableNode
from tests.real.progress import SET_UP_SECONDS
from tests.real.resume_fleet import BUDGET, THOUGHT, Gateway, fronted
from tests.real.transparency_cases import CHAT, MODEL

pytestmark = [pytest.mark.real, pytest.mark.timeout(SET_UP_SECONDS + 900)]

LONG = ("Who are you?", 90)
"""A question whose answer goes on, and its tokens: prompt and answer fill no KV block (128 tokens)."""

SEED = 19

TRIES = 5
"""On a busy machine the first of nine streams may be over before the last has begun."""


@pytest.fixture(scope="module")
def front(vllm: Server, second: KillableNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    second.up()
    with fronted([vllm.url, second.url], tmp_path_factory.mktemp("front")) as gateway:
        _until(lambda: gateway.proofs(vllm.url) > 0 and gateway.proofs(second.url) > 0)
        yield gateway


def start(second: KillableNode, front: Gateway) -> None:
    """Start it unless it runs, and wait until the gateway trusts it as it did before."""
    before = front.proofs(second.url)
    started = second.up()
    _until(lambda: bool(front.both_ready()) and (front.proofs(second.url) > before or not started))


@dataclass(slots=True)
class Listener:
    """One client: its dialect, at which event it wants the kill to happen, and what it has heard."""

    dialect: str
    point: int
    heard: int = 0
    at_the_kill: int | None = None
    answer: "Future[Heard] | None" = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> None:
        with self.lock:
            self.heard += 1


def listeners(dice: random.Random) -> list[Listener]:
    """Three of each dialect: one is in the middle of its thinking, one at its end, one in the answer."""
    return [
        Listener(dialect, point)
        for dialect in DIALECTS
        for point in (
            dice.randrange(2, THOUGHT - 1),
            dice.choice((THOUGHT, THOUGHT + 1)),
            dice.randrange(THOUGHT + 3, THOUGHT + 20),
        )
    ]


def break_streams(
    gateway: Gateway, other: str, crowd: list[Listener], breaks: Callable[[], None]
) -> list[tuple[Listener, Heard]]:
    """Start them all on one node (`other` is drained meanwhile), so that all are about at their points when `breaks` is
    called. Returns what they heard."""
    for _ in range(TRIES):
        told = _try_to_break(gateway, other, crowd, breaks)
        if told is not None:
            return told
    raise AssertionError("on this machine, some had ended each time before all had begun")


def _try_to_break(
    gateway: Gateway, other: str, crowd: list[Listener], breaks: Callable[[], None]
) -> list[tuple[Listener, Heard]] | None:
    """None where one had ended before all had begun: nothing is broken then."""
    resumed = gateway.resumed()
    ordered = sorted(crowd, key=lambda listener: -listener.point)
    lead = ordered[0]
    for listener in crowd:
        listener.heard, listener.answer = 0, None
    gateway.order("drain", other)
    with ThreadPoolExecutor(len(crowd)) as threads:
        for listener in ordered:
            _until(lambda: lead.heard >= lead.point - listener.point or _over(lead))  # noqa: B023
            listener.answer = threads.submit(hear, listener.dialect, gateway.url, *LONG, listener.count)
        _until(lambda: all(listener.heard or _over(listener) for listener in crowd))
        gateway.order("undrain", other)
        _until(lambda: lead.heard >= lead.point or _over(lead))
        whole = not any(listener.heard > LONG[1] - 20 or _over(listener) for listener in crowd)
        if whole:
            for listener in crowd:  # before: a kill waits for the process to be gone, and the streams go on meanwhile
                listener.at_the_kill = listener.heard
            breaks()
        told = [(listener, listener.answer.result()) for listener in crowd if listener.answer is not None]
    if not whole:
        return None
    _until(lambda: gateway.resumed() >= resumed + len(crowd))
    return told


def _over(listener: Listener) -> bool:
    return listener.answer is not None and listener.answer.done()


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def check(gateway: Gateway, unbroken: dict[str, Heard], told: list[tuple[Listener, Heard]]) -> None:
    """Each heard what the unbroken run says, and was really broken on the way."""
    for listener, heard in told:
        assert listener.at_the_kill is not None
        print(
            f"{listener.dialect}: killed at event {listener.at_the_kill} of {listener.heard}, wanted {listener.point}"
        )
        assert heard == unbroken[listener.dialect]


@pytest.fixture(scope="module")
def unbroken(front: Gateway, vllm: Server) -> dict[str, Heard]:
    """Asked through the gateway, in each dialect; their texts are what the node itself says in chat."""
    heard = {dialect: hear(dialect, front.url, *LONG, lambda: None) for dialect in DIALECTS}
    messages = [{"role": "user", "content": LONG[0]}]
    body = {"model": MODEL, "messages": messages, "max_tokens": LONG[1], "temperature": 0}
    with vllm.client() as node:
        said = node.post(CHAT, json={**body, "thinking_token_budget": BUDGET}).json()["choices"][0]["message"]
    assert {(one.thinking, one.answer) for one in heard.values()} == {(said["reasoning"], said["content"])}
    assert said["content"]
    return heard


def test_a_node_is_drained(front: Gateway, vllm: Server, second: KillableNode, unbroken: dict[str, Heard]) -> None:
    """Its deadline passes in the middle of nine streams."""
    start(second, front)
    told = break_streams(
        front, vllm.url, listeners(random.Random(SEED)), lambda: front.order("drain", second.url, deadline=0.1)
    )
    front.order("undrain", second.url)
    check(front, unbroken, told)


@pytest.mark.prove
def test_a_node_is_frozen(front: Gateway, vllm: Server, second: KillableNode, unbroken: dict[str, Heard]) -> None:
    """SIGSTOP: its connections stay, and nothing comes any more."""
    start(second, front)
    told = break_streams(front, vllm.url, listeners(random.Random(SEED)), lambda: second.signal(signal.SIGSTOP))
    second.signal(signal.SIGCONT)
    check(front, unbroken, told)


@pytest.mark.parametrize("seed", [SEED, *(pytest.param(SEED + n, marks=pytest.mark.prove) for n in range(1, 7))])
def test_a_node_is_killed(
    seed: int, front: Gateway, vllm: Server, second: KillableNode, unbroken: dict[str, Heard]
) -> None:
    """kill -9, with three streams of each dialect on it: in thinking, at its end, in the answer."""
    start(second, front)
    told = break_streams(front, vllm.url, listeners(random.Random(seed)), second.kill)
    check(front, unbroken, told)
