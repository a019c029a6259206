"""A gateway process before two real nodes of which one may end, and what a test of resumes asks there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.real.answers import Answer, difference, read_answer, without, without_cached
from tests.real.cutting import Cuts, Way, cutting
from tests.real.merging import merged
from tests.real.processes import running, wait_for
from tests.real.transparency_cases import CHAT, COMPLETIONS, MESSAGES, MODEL, RESPONSES, Json
from workers.cpu_node import free_port

BUDGET = 24
THOUGHT = BUDGET - 1
"""Tokens of thinking: the node thinks one less than its budget."""


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

    def resumed(self) -> int:
        """The answers that were resumed, by its log."""
        return self.log.read_text().count('"outcome":"resumed"')

    def proofs(self, url: str) -> int:
        """How often the node at `url` has shown what it can do: before, the gateway holds budgets by itself."""
        told = [json.loads(line) for line in self.log.read_text().splitlines() if "node_canary_finished" in line]
        return sum(line["error"] is None and line["node"] == url.removeprefix("http://") for line in told)

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


@dataclass(frozen=True, slots=True)
class Ask:
    """A streamed request at temperature 0. `calls`: its answer has a tool call, which cannot go on. `counted`:
    its usage is compared, too."""

    path: str
    body: Json
    calls: bool = False
    counted: bool = True


_USER = "Name a color."
_PROMPT = f"<|im_start|>user\n{_USER}<|im_end|>\n<|im_start|>assistant\n<think>\n"
SHORT_TOKENS = 36
"""Tokens of the answer to it, which ends by itself."""

_COMMON: Json = {"model": MODEL, "temperature": 0, "stream": True}
_WITH_USAGE: Json = {**_COMMON, "stream_options": {"include_usage": True}}
_NO_THINKING: Json = {"chat_template_kwargs": {"enable_thinking": False}}
_FUNCTION = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


DIALECTS = {
    CHAT: Ask(CHAT, {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 90}),
    COMPLETIONS: Ask(COMPLETIONS, {**_WITH_USAGE, "prompt": _PROMPT, "max_tokens": 90, "skip_special_tokens": False}),
    MESSAGES: Ask(MESSAGES, {**_COMMON, "messages": [_user(_USER)], "max_tokens": 90}),
    RESPONSES: Ask(RESPONSES, {**_COMMON, "input": _USER, "max_output_tokens": 90}),
}
"""The same short question. The node is asked in chat, but for completions: role, tokens, usage are an event each."""

SPECIAL = {
    "emoji": Ask(
        CHAT,
        {**_WITH_USAGE, **_NO_THINKING, "messages": [_user("Repeat exactly: 😀🎉🚀🦄 你好世界")], "max_tokens": 24},
    ),
    "emoji in completions": Ask(COMPLETIONS, {**_WITH_USAGE, "prompt": "Some emoji: 😀😀😀😀😀😀", "max_tokens": 14}),
    "a tool call": Ask(
        CHAT,
        {
            **_WITH_USAGE,
            **_NO_THINKING,
            "messages": [
                _user("What is the weather in Rome?"),
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
                {"role": "assistant", "content": "Sunny."},
                _user("Call get_weather for Paris."),
            ],
            "tools": [{"type": "function", "function": _FUNCTION}],
            "max_tokens": 80,
        },
        calls=True,
    ),
    # With stop strings a node holds text back, and counts a token of thinking less: the gateway counts ids.
    "a stop string that does not come": Ask(
        CHAT,
        {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 90, "stop": ["shades of red and zebras"]},
        counted=False,
    ),
    # The gateway finds it in an event, and counts all tokens of that; a node counts those up to the one that ends it.
    "a stop string": Ask(
        CHAT,
        {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 90, "stop": ["color of a particular"]},
        counted=False,
    ),
    "cut by its length": Ask(CHAT, {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 30}),
    "at least so many tokens": Ask(
        CHAT, {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 60, "min_tokens": 45}
    ),
    "with token ids": Ask(
        CHAT, {**_WITH_USAGE, "messages": [_user(_USER)], "max_tokens": 90, "return_token_ids": True}
    ),
}


@dataclass(frozen=True, slots=True)
class Cutter:
    """A gateway whose nodes stand behind proxies that cut their streams, and what it says where they do not."""

    url: str
    cuts: Cuts
    whole: dict[str, Answer] = field(default_factory=dict)

    def ask(self, ask: Ask) -> Answer:
        with httpx.Client(base_url=self.url, timeout=240, trust_env=False) as client:
            answer = merged(read_answer(client.post(ask.path, json=ask.body)))
        # Only a node knows its fingerprint, and one that is cut behind its last token has not told it.
        answer = without_cached(without(answer, "system_fingerprint"))
        return answer if ask.counted else without(answer, "usage")

    def damage(self, ask: Ask, after: int, way: Way) -> str | None:
        """What differs from the unbroken answer where the node's stream is cut behind that event; empty: nothing. None:
        there was no such event."""
        whole = self.whole.setdefault(ask.path + str(ask.body), self.ask(ask))
        self.cuts.arm(after, way)
        answer = self.ask(ask)
        if not self.cuts.disarm():
            return None
        return difference(whole, answer)


@contextmanager
def cutter(nodes: list[str], folder: Path, **settings: Any) -> Iterator[Cutter]:
    """Before two nodes, or one that is taken for two."""
    cuts = Cuts()
    one, other = map(_address, nodes)
    with (
        cutting(one, cuts) as first,
        cutting(other, cuts) as second,
        fronted([first, second], folder, **settings) as gateway,
    ):
        yield Cutter(gateway.url, cuts)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
