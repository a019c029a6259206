"""Streams go on where their node is killed: two real vLLMs, and the text of the unbroken run to the last letter."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.real.answers import Answer, difference, read_answer, without
from tests.real.conftest import SET_UP_SECONDS, Server
from tests.real.cutting import WAYS, Cuts, Way, cutting
from tests.real.heard import DIALECTS, Heard, hear
from tests.real.killable import KillableNode, killable_node
from tests.real.merging import merged
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, Json
from workers.cpu_node import free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(SET_UP_SECONDS + 900)]

BUDGET = 24
THOUGHT = BUDGET - 1
"""Tokens of thinking: the node thinks one less than its budget."""

LONG = ("Who are you?", 90)
"""A question whose answer goes on, and its tokens: prompt and answer fill no KV block (128 tokens)."""

SHORT = ("Name a color.", 90)
"""A question whose answer ends by itself after 36 tokens."""

SHORT_TOKENS = 36
SEED = 19


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway process before two nodes."""

    url: str
    admin: str
    log: Path

    def nodes(self) -> list[Json]:
        found: list[Json] = httpx.get(f"{self.admin}/admin/nodes", trust_env=False).json()
        return found

    def both_ready(self) -> bool | None:
        try:
            return all(node["ready"] for node in self.nodes()) or None
        except httpx.TransportError:
            return None

    def order(self, what: str, node: str, **more: float) -> None:
        """`what`: drain or undrain."""
        answer = httpx.post(f"{self.admin}/admin/{what}", json={"node": node, **more}, trust_env=False)
        assert answer.status_code == 200, answer.text


@contextmanager
def fronted(urls: list[str], folder: Path, **settings: Any) -> Iterator[Gateway]:
    port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    thinking = {"default_budget": BUDGET, "max_budget": BUDGET, **settings.pop("thinking", {})}
    config = {"nodes": [{"url": url} for url in urls], "thinking": thinking, **settings}
    (folder / "fleetgate.yaml").write_text(yaml.safe_dump(config))
    log = folder / "gateway.log"
    command = ["fleetgate", "serve", "-c", str(folder / "fleetgate.yaml"), "--port", str(port)]
    with running([*command, "--admin-port", str(admin)], log) as process:
        gateway = Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", log)
        wait_for(gateway.both_ready, process, log, 120.0)
        wait_for(lambda: log.read_text().count("node_canary_finished") == len(urls) or None, process, log, 120.0)
        yield gateway


@pytest.fixture(scope="module")
def second(
    vllm: Server, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[KillableNode]:
    """Another vLLM beside the run's own, which is never killed."""
    with killable_node(tmp_path_factory.mktemp("second"), pytestconfig) as node:
        node.ready()
        yield node


@pytest.fixture(scope="module")
def front(vllm: Server, second: KillableNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with fronted([vllm.url, second.url], tmp_path_factory.mktemp("front")) as gateway:
        yield gateway


# Cut at an event


@dataclass(frozen=True, slots=True)
class Cutter:
    """A gateway whose nodes stand behind proxies that cut their streams, and what it says where they do not."""

    url: str
    cuts: Cuts
    whole: dict[str, Answer] = field(default_factory=dict)

    def ask(self, path: str) -> Answer:
        with httpx.Client(base_url=self.url, timeout=240, trust_env=False) as client:
            # Only a node knows its fingerprint, and one that is cut behind its last token has not told it.
            return without(merged(read_answer(client.post(path, json=_SHORT[path]))), "system_fingerprint")

    def unbroken(self, path: str) -> Answer:
        if path not in self.whole:
            self.whole[path] = self.ask(path)
        return self.whole[path]

    def damage(self, path: str, after: int, way: Way) -> str:
        """What differs from the unbroken answer where the node's stream is cut behind that event; empty: nothing."""
        whole = self.unbroken(path)
        self.cuts.arm(after, way)
        found = difference(whole, self.ask(path))
        if self.cuts.made != 1 or len(set(self.cuts.streams)) != 2:
            found += f"\nnot cut and resumed once: {self.cuts.made} cuts, streams of {self.cuts.streams}"
        return f"{path}, {way} behind event {after}:\n{found}" if found else ""


@contextmanager
def cutter(vllm: Server, second: KillableNode, folder: Path, **settings: Any) -> Iterator[Cutter]:
    cuts = Cuts()
    with cutting(_address(vllm.url), cuts) as one, cutting(_address(second.url), cuts) as other:
        with fronted([one, other], folder, **settings) as gateway:
            yield Cutter(gateway.url, cuts)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port


@pytest.fixture(scope="module")
def cut(vllm: Server, second: KillableNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cutter]:
    with cutter(vllm, second, tmp_path_factory.mktemp("cut")) as found:
        yield found


def _short() -> dict[str, Json]:
    messages = [{"role": "user", "content": SHORT[0]}]
    prompt = f"<|im_start|>user\n{SHORT[0]}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    common: Json = {"model": MODEL, "temperature": 0, "stream": True}
    usage = {"stream_options": {"include_usage": True}}
    return {
        CHAT: {**common, **usage, "messages": messages, "max_tokens": SHORT[1]},
        COMPLETIONS: {**common, **usage, "prompt": prompt, "max_tokens": SHORT[1], "skip_special_tokens": False},
        MESSAGES: {**common, "messages": messages, "max_tokens": SHORT[1]},
        RESPONSES: {**common, "input": SHORT[0], "max_output_tokens": SHORT[1]},
    }


_SHORT = _short()

POINTS = {"thinking": 9, "end of thinking": THOUGHT + 1, "behind it": THOUGHT + 2, "answer": THOUGHT + 7}
"""Events of the node's stream in chat. The first one brings the role, the others a token each."""

EVENTS = SHORT_TOKENS + 2
"""Role, tokens, usage."""


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES, RESPONSES])
@pytest.mark.parametrize("where", POINTS)
def test_a_connection_is_cut(path: str, where: str, cut: Cutter) -> None:
    way = WAYS[list(POINTS).index(where) % len(WAYS)]
    assert not cut.damage(path, POINTS[where], way)


MODES: dict[str, Json] = {
    "as it comes": {},
    "the gateway holds the budget": {"budgets": {"native": False}},
    "hidden thinking": {"thinking": {"hide_reasoning": True}},
}


@pytest.mark.prove
@pytest.mark.parametrize("mode", MODES)
def test_a_connection_is_cut_at_every_token(mode: str, vllm: Server, second: KillableNode, tmp_path: Path) -> None:
    """In every dialect, and in chat in every way."""
    with cutter(vllm, second, tmp_path, **MODES[mode]) as found:
        cases = [
            (path, after, way)
            for path in _SHORT
            for after in range(1, EVENTS)
            for number, way in enumerate(WAYS)
            if path == CHAT or after % len(WAYS) == number
        ]
        damages = [damage for case in cases if (damage := found.damage(*case))]
    print(f"{mode}: {len(cases) - len(damages)} of {len(cases)} as the unbroken run")
    assert not damages, "\n".join(damages)


# The end of a node, with nine streams on it


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
            dice.randrange(THOUGHT + 3, LONG[1] - 12),
        )
    ]


def break_streams(
    gateway: Gateway, other: str, crowd: list[Listener], breaks: Callable[[], None]
) -> list[tuple[Listener, Heard]]:
    """Start them all on one node (`other` is drained meanwhile), so that all are about at their points when `breaks` is
    called. Returns what they heard."""
    ordered = sorted(crowd, key=lambda listener: -listener.point)
    lead = ordered[0]
    gateway.order("drain", other)
    with ThreadPoolExecutor(len(crowd)) as threads:
        for listener in ordered:
            _until(lambda: lead.heard >= lead.point - listener.point or _over(lead))  # noqa: B023
            listener.answer = threads.submit(hear, listener.dialect, gateway.url, *LONG, listener.count)
        _until(lambda: all(listener.heard or _over(listener) for listener in crowd))
        gateway.order("undrain", other)
        _until(lambda: lead.heard >= lead.point or _over(lead))
        breaks()
        for listener in crowd:
            listener.at_the_kill = listener.heard
        return [(listener, listener.answer.result()) for listener in crowd if listener.answer is not None]


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
        assert listener.at_the_kill < LONG[1] - 3, "it was under way"
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
    told = break_streams(
        front, vllm.url, listeners(random.Random(SEED)), lambda: front.order("drain", second.url, deadline=0.1)
    )
    front.order("undrain", second.url)
    check(front, unbroken, told)


@pytest.mark.prove
def test_a_node_is_frozen(front: Gateway, vllm: Server, second: KillableNode, unbroken: dict[str, Heard]) -> None:
    """SIGSTOP: its connections stay, and nothing comes any more."""
    second_is_up(front, second)
    told = break_streams(front, vllm.url, listeners(random.Random(SEED)), lambda: second.signal(signal.SIGSTOP))
    second.signal(signal.SIGCONT)
    check(front, unbroken, told)


@pytest.mark.parametrize("seed", [SEED, *(pytest.param(SEED + n, marks=pytest.mark.prove) for n in range(1, 7))])
def test_a_node_is_killed(
    seed: int, front: Gateway, vllm: Server, second: KillableNode, unbroken: dict[str, Heard]
) -> None:
    """kill -9, with three streams of each dialect on it: in thinking, at its end, in the answer."""
    second_is_up(front, second)
    told = break_streams(front, vllm.url, listeners(random.Random(seed)), second.kill)
    check(front, unbroken, told)


def second_is_up(gateway: Gateway, second: KillableNode) -> None:
    """Started again where an earlier test has killed it."""
    if not second.runs:
        second.start()
        second.ready()
    _until(lambda: bool(gateway.both_ready()))
