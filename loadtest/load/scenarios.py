"""Who asks for what: sessions of turns, by name. Lengths in tokens are for real nodes; `scale` shortens all of them."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.load.arrivals import Arrivals
from loadtest.load.prompts import shared_text, text
from loadtest.load.turns import Answer, Session, Turn

TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} a file of the project",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    }
    for name in ("read", "write", "search", "run")
)
AGENT_TURNS = 8
PARTS = 30_000
DOCUMENTS = 4
"""Long prompts begin with one of so many documents."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What a session is made from: its chance, its name, its tenant's, and the factor of all lengths."""

    dice: random.Random
    name: str
    tenant: str
    scale: float = 1.0

    def tokens(self, count: float) -> int:
        """`count`, shortened; at least one."""
        return max(1, round(count * self.scale))


@dataclass(frozen=True, slots=True)
class Scenario:
    """`sessions` makes one; `arrivals` is of one user. What is good: seconds to the first token, and between two."""

    name: str
    what: str
    session: Callable[[Draw], Session]
    arrivals: Arrivals
    ttft: float = 5.0
    gap: float = 0.1


def _user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def chat(draw: Draw) -> Session:
    """A person who asks three times, and reads between."""
    messages = [_system(shared_text(f"chat {draw.tenant}", draw.tokens(500)))]
    for number in range(3):
        messages.append(_user(text(f"{draw.name} {number}", draw.tokens(200))))
        pause = draw.dice.expovariate(1 / 5.0) if number else 0.0
        thinking, answer = draw.tokens(draw.dice.expovariate(1 / 200)), draw.tokens(draw.dice.expovariate(1 / 300))
        got = yield Turn(tuple(messages), answer, thinking, session=draw.name, pause=pause)
        if got.failed:
            return
        messages.append({"role": "assistant", "content": got.text})


def agents(draw: Draw) -> Session:
    """A coding agent: a long system prompt that all share, tools, and a call in every turn but the last."""
    messages: list[dict[str, Any]] = [
        _system(shared_text(f"agents {draw.tenant}", draw.tokens(6000))),
        _user(text(draw.name, draw.tokens(500))),
    ]
    for number in range(AGENT_TURNS):
        call = number < AGENT_TURNS - 1
        pause = draw.dice.expovariate(1 / 2.0) if number else 0.0
        got = yield Turn(
            tuple(messages),
            answer=draw.tokens(150),
            thinking=draw.tokens(draw.dice.expovariate(1 / 200)),
            tools=TOOLS,
            call=call,
            session=draw.name,
            pause=pause,
        )
        if got.failed:
            return
        messages += _called(got, text(f"{draw.name} {number}", draw.tokens(500)))


def _called(got: Answer, result: str) -> list[dict[str, Any]]:
    """The assistant's turn, and the answers of its tools; a turn without calls is followed by a word of the user."""
    if not got.calls:
        return [{"role": "assistant", "content": got.text}, _user(result)]
    said = {"role": "assistant", "content": got.text or None, "tool_calls": got.calls}
    return [said, *({"role": "tool", "tool_call_id": call["id"], "content": result} for call in got.calls)]


def reasoning(draw: Draw) -> Session:
    """One hard question: thinking is lognormal around 4,000 tokens, between 2,000 and 8,000."""
    thinking = min(8000.0, max(2000.0, draw.dice.lognormvariate(8.294, 0.5)))
    messages = (_user(text(draw.name, draw.tokens(800))),)
    yield Turn(messages, draw.tokens(500), draw.tokens(thinking), session=draw.name)


def long_context(draw: Draw) -> Session:
    """64,000 tokens in and 400 out; nine tenths of the prompt are a document that others ask about too."""
    document = shared_text(f"document {draw.dice.randrange(DOCUMENTS)}", draw.tokens(57_600))
    messages = (_system(document), _user(text(draw.name, draw.tokens(6400))))
    yield Turn(messages, draw.tokens(300), draw.tokens(100), session=draw.name)


def batch(draw: Draw) -> Session:
    """A job that reads no stream: five plain requests, one after the other."""
    head = shared_text(f"batch {draw.tenant}", draw.tokens(1500))
    for number in range(5):
        messages = (_system(head), _user(text(f"{draw.name} {number}", draw.tokens(500))))
        got = yield Turn(messages, draw.tokens(400), draw.tokens(100), stream=False)
        if got.failed:
            return


def noisy(draw: Draw) -> Session:
    """A neighbour that sends long prompts that nobody has asked before, far more of them than others do."""
    messages = (_user(text(draw.name, draw.tokens(8000))),)
    yield Turn(messages, draw.tokens(400), draw.tokens(200))


def leaving(draw: Draw) -> Session:
    """A client that leaves in mid-answer."""
    messages = (_user(text(draw.name, draw.tokens(200))),)
    yield Turn(messages, draw.tokens(1000), draw.tokens(1000), leave_after=draw.dice.randint(1, 30))


def slow_reader(draw: Draw) -> Session:
    """A client that reads slower than its node writes."""
    messages = (_user(text(draw.name, draw.tokens(200))),)
    yield Turn(messages, draw.tokens(1000), draw.tokens(200), read_every=0.1)


def wrong_key(draw: Draw) -> Session:
    """A client whose key nobody knows: 401, and 429 once it has guessed too often."""
    yield Turn((_user(draw.name),), 10, wrong_key=True, expected=401)


def large_body(draw: Draw) -> Session:
    """A body of very many values: 30,000 message parts of a letter, however short all else is."""
    parts = [{"type": "text", "text": "a"} for _ in range(PARTS)]
    messages = ({"role": "user", "content": parts}, _user(draw.name))
    yield Turn(messages, draw.tokens(100), stream=False)


def _every(seconds: float) -> Arrivals:
    return Arrivals(seconds)


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("chat", "people who chat", chat, _every(30.0), ttft=2.0),
        Scenario("agents", "coding agents with tools", agents, _every(60.0), gap=0.5),
        Scenario("reasoning", "long thoughts", reasoning, _every(60.0)),
        Scenario("long", "64k in, 400 out, 90% shared", long_context, _every(60.0), ttft=10.0),
        Scenario("batch", "plain requests of a job", batch, _every(60.0), ttft=60.0),
        Scenario("noisy", "a noisy neighbour", noisy, _every(6.0), ttft=30.0),
        Scenario("bursty", "chats that come all at once", chat, Arrivals(30.0, burst=5.0, period=30.0), ttft=2.0),
        Scenario("leaving", "clients that leave", leaving, _every(20.0)),
        Scenario("slow", "clients that read slowly", slow_reader, _every(30.0), gap=1.0),
        Scenario("wrong-key", "clients without a key", wrong_key, _every(20.0)),
        Scenario("large", "bodies of very many values", large_body, _every(40.0), ttft=60.0),
    )
}
MIXES: dict[str, dict[str, float]] = {
    "mixed": {"chat": 4, "agents": 2, "reasoning": 1, "long": 1, "batch": 1},
    "neighbours": {"chat": 4, "noisy": 1, "bursty": 2},
    "rough": {
        "chat": 4, "agents": 3, "reasoning": 2, "long": 1, "batch": 2,
        "leaving": 2, "slow": 1, "wrong-key": 1, "large": 1, "bursty": 2,
    },
}  # fmt: skip
"""Several scenarios by their share of the users."""


def describe() -> str:
    """All names, for people."""
    lines = [f"{one.name}: {one.what}" for one in SCENARIOS.values()]
    lines += [f"{name}: {json.dumps(shares)}" for name, shares in MIXES.items()]
    return "\n".join([*lines, "FILE.jsonl: a trace in mooncake's format"])
