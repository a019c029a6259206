"""The answer to each kind of request, cut at each of its events: the client gets the unbroken one."""

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.flow.resume_cuts import resumes_everywhere, unbroken, whole
from tests.flow.test_resume import ASK, MODEL, PATH, fleet
from workers.fake import Fault

HIDING: dict[str, Any] = {"thinking": {"hide_reasoning": True}}
SPLIT_BY_NOBODY: dict[str, Any] = {"reasoning_parser": False}
DISOBEYED: dict[str, Any] = {"budget": "disobey"}
UNKNOWN: dict[str, Any] = {"budget": "absent"}
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
USAGES: dict[str, Any] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
IDS: dict[str, Any] = {"return_token_ids": True}
RAW: dict[str, Any] = {"skip_special_tokens": False}
FILLER = "word " * 20_000


@dataclass(frozen=True, slots=True)
class Mode:
    """A request to nodes with these settings, through a gateway with this config."""

    dialect: str
    body: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


BUDGET: dict[str, dict[str, Any]] = {
    "chat": {"thinking_token_budget": 3},
    "messages": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "responses": {"reasoning": {"effort": "low"}},
}
MODES = {
    **{f"hidden, {name}": Mode(name, config=HIDING) for name in BUDGET},
    "no parser": Mode("chat", RAW, SPLIT_BY_NOBODY),
    **{f"no parser, hidden, {name}": Mode(name, RAW, SPLIT_BY_NOBODY, HIDING) for name in ("chat", "messages")},
    **{f"older field, {name}": Mode(name, settings={"reasoning_field": "reasoning_content"}) for name in BUDGET},
    **{f"a budget of {n}": Mode("chat", {"thinking_token_budget": n, **USAGE}) for n in (0, 1, 3, 100)},
    **{f"ids, {name}": Mode(name, {**IDS, **USAGE}) for name in ("chat", "completions")},
    **{f"ids alone, {name}": Mode(name, IDS) for name in ("chat", "completions")},
    **{f"usage, {name}": Mode(name, USAGE) for name in ("chat", "completions")},
    **{f"usage in each event, {name}": Mode(name, USAGES) for name in ("chat", "completions")},
    "ids and usage in each event": Mode("chat", {**IDS, **USAGES}),
    **{
        f"at most {n} tokens, {name}": Mode(name, {"max_tokens": n, **USAGE})
        for name in ("chat", "completions")
        for n in (1, 2, 7, 8, 10)
    },
    **{
        f"at least 20 tokens, {name}": Mode(name, {"min_tokens": 20, "max_tokens": 40, **USAGE})
        for name in ("chat", "completions")
    },
    "thinking off by the template": Mode("chat", {"chat_template_kwargs": {"enable_thinking": False}}),
    "thinking off by effort": Mode("chat", {"reasoning_effort": "none"}),
    "thinking off, messages": Mode("messages", {"thinking": {"type": "disabled"}}),
    "little thinking": Mode("chat", {"reasoning_effort": "low"}),
    "a large body": Mode("chat", {"messages": [{"role": "user", "content": FILLER}]}),
    **{f"left out, {name}": Mode(name, {"include_reasoning": False}) for name in BUDGET},
    "left out, a large body": Mode(
        "chat", {"include_reasoning": False, "messages": [{"role": "user", "content": FILLER}]}
    ),
    "left out, a large body, responses": Mode("responses", {"include_reasoning": False, "input": FILLER}),
    "left out, a budget": Mode("chat", {"include_reasoning": False, "thinking_token_budget": 3}),
    "a large body, responses": Mode("responses", {"input": FILLER}),
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
async def test_the_answer_is_the_same_wherever_it_is_cut(mode: Mode) -> None:
    path = "/v1/completions" if mode.dialect == "completions" else "/v1/chat"
    async with fleet(config=mode.config, **mode.settings) as made:
        body = {"stream": True, **ASK[mode.dialect], **mode.body}
        assert await resumes_everywhere(made, mode.dialect, body, path)


ENFORCED = {
    **{
        f"{kind}, {n}": Mode("chat", {"thinking_token_budget": n}, {"budget": kind})
        for kind in ("disobey", "absent")
        for n in (1, 3, 5)
    },
    "hidden": Mode("chat", {"thinking_token_budget": 3}, DISOBEYED, HIDING),
    "hidden, not known": Mode("chat", {"thinking_token_budget": 3}, UNKNOWN, HIDING),
    "left out": Mode("chat", {"thinking_token_budget": 3, "include_reasoning": False}, DISOBEYED),
    "left out, plain": Mode("chat", {"thinking_token_budget": 3, "stream": False, "include_reasoning": False}, UNKNOWN),
    "ids": Mode("chat", {"thinking_token_budget": 3, **IDS, **USAGE}, DISOBEYED),
    "completions": Mode("completions", {"thinking_token_budget": 3, "max_tokens": 30}, DISOBEYED),
    "plain": Mode("chat", {"thinking_token_budget": 3, "stream": False}, DISOBEYED),
    "plain, hidden": Mode("chat", {"thinking_token_budget": 3, "stream": False}, UNKNOWN, HIDING),
    "plain, ids": Mode("chat", {"thinking_token_budget": 3, "stream": False, **IDS}, DISOBEYED),
}
"""Budgets that are spent before the answer, which the gateway then asks for."""


@pytest.mark.parametrize("mode", ENFORCED.values(), ids=ENFORCED.keys())
async def test_a_budget_that_the_gateway_holds_is_that_of_the_whole_answer(mode: Mode) -> None:
    async with fleet(config=mode.config, **mode.settings) as made:
        body = {"stream": True, **ASK[mode.dialect], **mode.body}
        if mode.dialect == "chat":
            assert await resumes_everywhere(made, mode.dialect, body, "/v1/chat")
        assert await resumes_everywhere(made, mode.dialect, body, "/v1/completions", first=1)


async def test_reasoning_is_left_out_as_its_node_would_leave_it_out() -> None:
    body = {"stream": True, **ASK["chat"], "include_reasoning": False}
    told = []
    for enabled in (True, False):
        async with fleet(config={"resume": {"enabled": enabled}}) as made:
            _, _, answer = await unbroken(made, "chat", body)
            assert ("x-fleetgate-resumable" in answer.headers) is enabled
            told.append(whole(answer.text))
    assert told[0] == told[1]


@pytest.mark.parametrize("config", [{}, HIDING], ids=["shown", "hidden"])
@pytest.mark.parametrize("dialect", ["messages", "responses"])
async def test_a_budget_that_the_gateway_does_not_need_to_cut(dialect: str, config: dict[str, Any]) -> None:
    async with fleet(config=config, **DISOBEYED) as made:
        body = {"stream": True, **ASK[dialect], **BUDGET[dialect]}
        assert await resumes_everywhere(made, dialect, body)


async def test_a_plain_message_that_its_node_streams() -> None:
    async with fleet(**DISOBEYED) as made:
        assert await resumes_everywhere(made, "messages", {**ASK["messages"], **BUDGET["messages"]})


@pytest.mark.parametrize("kind", ["reset", "error_event"])
@pytest.mark.parametrize("name", ["hidden, responses", "ids, chat", "usage, completions"])
async def test_however_it_is_cut(name: str, kind: str) -> None:
    mode = MODES[name]
    path = "/v1/completions" if mode.dialect == "completions" else "/v1/chat"
    async with fleet(config=mode.config, **mode.settings) as made:
        body = {"stream": True, **ASK[mode.dialect], **mode.body}
        most = await resumes_everywhere(made, mode.dialect, body, path)
        assert await resumes_everywhere(made, mode.dialect, body, path, kind, most=most)


OVERRUN: dict[str, Any] = {"budgets": {"canary": True, "overshoot": 0, "overshoot_tokens": 0}}
"""A node that overruns a budget is cut at it, so that it shows the same as one whose budget the gateway holds."""


@pytest.mark.parametrize(
    ("path", "after"),
    [("/v1/chat", 3), ("/v1/chat", 5), ("/tokenize", 0), ("/v1/completions", 1), ("/v1/completions", 4)],
)
async def test_a_budget_that_a_trusted_node_overruns(path: str, after: int) -> None:
    body = {"model": MODEL, "stream": True, **ASK["chat"], "thinking_token_budget": 3}
    told = []
    for cut in (False, True):
        async with fleet(config=OVERRUN) as made:
            for node in made.nodes:
                control = await made.client.post(
                    f"{node.control_url}/fake/control", json={"settings": {"budget": "disobey"}}
                )
                assert control.status_code == httpx.codes.OK
            home, _, _ = await unbroken(made, "chat", {"stream": True, **ASK["chat"]})
            if cut:
                home.set_faults(Fault("die", after=after, next=1, path=path, scope="all"))
            answer = await made.client.post(PATH["chat"], json=body)
            assert answer.status_code == httpx.codes.OK, answer.text
            told.append(whole(answer.text))
    assert told[0] == told[1]
