"""Thinking budgets on a real vLLM, in every dialect: held by the node, by the gateway, and on a node without a parser.

What is counted is the text that came, by the node's own tokenizer; what the usage says has to agree with it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.real.budget_cases import DIALECTS, MESSAGES, ROOM, THOUGHT, Thought, ask, count_tokens
from tests.real.conftest import Server
from tests.real.processes import running, wait_for
from tests.real.progress import SET_UP_SECONDS
from tests.real.transparency_cases import MODEL
from workers.cpu_node import free_port

pytestmark = pytest.mark.real

BUDGETS = (0, 1, 16, 64, 256)
CASES = [*((budget, None) for budget in BUDGETS), (None, False), (None, True)]
SAMPLE = [(dialect, stream) for dialect in DIALECTS for stream in (True, False)]
OPEN = "fg-open"


def key_of(budget: int) -> str:
    """The key of the tenant whose policy is that budget."""
    return f"fg-budget-{budget}"


@dataclass(slots=True)
class Front:
    """A gateway in front of a real node: `mode` says who holds the budgets there."""

    mode: str
    client: httpx.Client
    node: httpx.Client
    whole: dict[str, Thought] = field(default_factory=dict)

    def ask(self, dialect: str, stream: bool, budget: int | None, switch: bool | None = None) -> Thought:
        key = key_of(budget) if dialect == "responses" and budget is not None else OPEN
        return ask(self.client, dialect, stream, budget, switch, key)

    def unbudgeted(self, dialect: str) -> Thought:
        if dialect not in self.whole:
            self.whole[dialect] = self.ask(dialect, True, None)
        return self.whole[dialect]


@contextmanager
def fronted(mode: str, node: str, directory: Path, **budgets: bool) -> Iterator[Front]:
    port, admin = free_port("127.0.0.1"), free_port("127.0.0.1")
    policies = [
        {
            "name": f"thinks-{budget}",
            "keys": [{"sha256": hashlib.sha256(key_of(budget).encode()).hexdigest()}],
            "thinking": {"mode": "forbidden"} if budget == 0 else {"max_budget": budget, "default_budget": budget},
        }
        for budget in BUDGETS
    ]
    config = {
        "nodes": [{"url": node}],
        "listen": {"port": port},
        "admin": {"port": admin},
        "budgets": budgets,
        "tenants": [{"name": "open", "keys": [{"sha256": hashlib.sha256(OPEN.encode()).hexdigest()}]}, *policies],
    }
    file, log = directory / f"{mode}.yaml", directory / f"{mode}.log"
    file.write_text(yaml.safe_dump(config))
    with running(["fleetgate", "serve", "-c", str(file)], log) as process:
        wait_for(lambda: "node_canary_finished" in log.read_text() or None, process, log, 120.0)
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client,
            httpx.Client(base_url=node, timeout=120, trust_env=False) as direct,
        ):
            yield Front(mode, client, direct)


@pytest.fixture(scope="module")
def native(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The node holds its budgets, as its canary showed."""
    with fronted("node", vllm.url, tmp_path_factory.mktemp("budgets")) as front:
        yield front


@pytest.fixture(scope="module")
def enforced(vllm: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """The gateway holds them all."""
    with fronted("gateway", vllm.url, tmp_path_factory.mktemp("budgets"), native=False) as front:
        yield front


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A second node, started without a reasoning parser: it refuses budgets, and its thinking is plain text."""
    directory = tmp_path_factory.mktemp("bare")
    log = directory / "cpu-node.log"
    command = ["fleetgate-worker", "cpu-node", "--port", "0", "--dtype", "float32", "--log", f"{log}.vllm"]
    with running([*command, "--", "--reasoning-parser", ""], log) as process:
        found = wait_for(lambda: re.search(r"ready: (http://\S+)", log.read_text()), process, log, SET_UP_SECONDS)
        with fronted("no parser", found[1], directory) as front:
            yield front


def check(front: Front, dialect: str, stream: bool, budget: int | None, switch: bool | None) -> int:
    """Ask, and hold the answer to everything that is promised; returns its tokens of thinking, counted anew."""
    heard = front.ask(dialect, stream, budget, switch)
    whole = front.unbudgeted(dialect)
    thought = count_tokens(front.node, heard.reasoning)
    told = heard.told if heard.told is not None else thought
    assert abs(told - thought) <= 1, "the usage says what came"
    if budget is not None:
        assert max(thought, told) <= budget + 1
    unbroken = whole.reasoning or whole.answer  # without a parser, and without a budget, all is text
    assert unbroken.startswith(heard.reasoning), "up to the cut it is the unbudgeted run"
    if budget is None and switch is not False:
        assert (heard.reasoning, heard.answer) == (whole.reasoning, whole.answer)
    elif budget is not None and budget > THOUGHT:
        assert heard.reasoning == unbroken, "nothing was cut"
    else:
        assert heard.answer.strip(), "an answer follows"
        if budget is None or budget == 0:
            assert thought == 0
    assert heard.output <= (THOUGHT if budget is None else budget) + ROOM
    return thought


SAMPLES = pytest.mark.parametrize(("dialect", "stream"), SAMPLE, ids=lambda value: str(value))


@SAMPLES
def test_the_gateway_holds_a_budget(enforced: Front, dialect: str, stream: bool) -> None:
    assert check(enforced, dialect, stream, 16, None) >= 15


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_node_holds_a_budget(native: Front, dialect: str) -> None:
    assert check(native, dialect, dialect != "chat", 16, None) >= 14


def test_thinking_is_switched_off(enforced: Front) -> None:
    for dialect, stream in SAMPLE:
        check(enforced, dialect, stream, 0, None)


@pytest.mark.parametrize("budget", [15, *(pytest.param(budget, marks=pytest.mark.prove) for budget in (7, 40, 63))])
def test_the_gateway_ends_thinking_as_the_node_does(native: Front, enforced: Front, budget: int) -> None:
    """A node thinks one token less than its budget: so the gateway's answer is the node's for one more, whole."""
    by_node = native.ask("chat", True, budget + 1)
    by_gateway = enforced.ask("chat", True, budget)
    shorter = min(len(by_node.answer), len(by_gateway.answer))
    assert by_gateway.reasoning.rstrip() == by_node.reasoning.rstrip()
    assert by_gateway.answer[:shorter] == by_node.answer[:shorter] and shorter > 10


def test_a_grammar_begins_behind_the_cut(native: Front, enforced: Front) -> None:
    capital = {"type": "string", "maxLength": 20}
    schema = {
        "type": "object",
        "properties": {"capital": capital},
        "required": ["capital"],
        "additionalProperties": False,
    }
    wish = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    texts = []
    for front, budget in ((native, 16), (enforced, 15)):
        body: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
        body |= {"temperature": 0, "max_tokens": 80, "thinking_token_budget": budget, **wish}
        answer = front.client.post(
            "/v1/chat/completions", json=body, headers={"authorization": f"Bearer {OPEN}"}
        ).json()
        texts.append(answer["choices"][0]["message"]["content"])
    assert texts[0] == texts[1] and json.loads(texts[0]).keys() == {"capital"}


@pytest.mark.prove
@pytest.mark.timeout(SET_UP_SECONDS + 900)
def test_every_budget_in_every_dialect(
    native: Front, enforced: Front, bare: Front, pytestconfig: pytest.Config
) -> None:
    rows = []
    for dialect in DIALECTS:
        for budget, switch in CASES:
            wish = str(budget) if budget is not None else "on" if switch else "off"
            seen = []
            for front in (native, enforced, bare):
                counts = [check(front, dialect, stream, budget, switch) for stream in (True, False)]
                seen.append(" / ".join(map(str, counts)))
            rows.append(f"| {dialect} | {wish} | {' | '.join(seen)} |")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():  # type: ignore[union-attr]
        print("\n| dialect | budget | held by the node | by the gateway | no parser |\n|---|---|---|---|---|")
        print("\n".join(rows))
