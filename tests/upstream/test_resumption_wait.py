"""Answers that wait for a node: what their looks cost the process, and what may change meanwhile."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.core.errors import (
    ClientGone,
    ConnectFailed,
    FleetFull,
    GatewayError,
    NodeBusy,
    NoNodeReady,
    ShuttingDown,
    StreamLost,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.core.resume.budget import Resumes
from gateway.core.resume.node_deaths import NodeDeaths
from gateway.core.resume.resumability import ResumeRules
from gateway.fleet.node import SILENT, Lease, Node
from gateway.fleet.node_spec import NodeSpec
from gateway.upstream.resume_budgets import LONGEST_STEP, STEP, VAIN_LOOKS, ResumeBudgets
from gateway.upstream.resumption import RESPITE, AnswerResumption
from tests.support.virtual_time import run_virtually


def looks(budgets: ResumeBudgets, model: str, now: float, asked: int) -> int:
    """The looks of `asked` answers that find no node."""
    made = 0
    for _ in range(asked):
        if budgets.may_look(model, now):
            budgets.looked_in_vain(model, now)
            made += 1
    return made


def test_vain_looks_are_bounded_however_many_wait() -> None:
    budgets = ResumeBudgets(ResumeRules())
    made = sum(looks(budgets, "m", 100 + tick / 1000, 100) for tick in range(1000))
    assert VAIN_LOOKS <= made <= VAIN_LOOKS * (1 + STEP) + 1


def test_one_model_without_nodes_holds_up_no_other() -> None:
    budgets = ResumeBudgets(ResumeRules())
    assert looks(budgets, "full", 5.0, 10_000) < 100
    assert not budgets.may_look("full", 5.0)
    assert budgets.may_look("free", 5.0) and budgets.may_look("full", 5.1)


def test_looks_that_find_a_node_are_not_bounded() -> None:
    budgets = ResumeBudgets(ResumeRules())
    assert all(budgets.may_look("m", 5.0) for _ in range(10_000))


@pytest.mark.parametrize(("waiting", "step"), [(0, STEP), (1, STEP), (50, STEP), (100, 2 * STEP), (9999, LONGEST_STEP)])
def test_the_more_wait_the_less_often_each_looks(waiting: int, step: float) -> None:
    budgets = ResumeBudgets(ResumeRules())
    budgets.waiting = waiting
    assert budgets.step == step


def test_a_resume_that_finds_no_node_costs_the_model_nothing() -> None:
    budgets = ResumeBudgets(ResumeRules(rate=0.0))
    for _ in range(1000):
        assert budgets.take("m", 0.0, 30)
        budgets.give_back("m")
    assert [budgets.take("m", 0.0, 30) for _ in range(31)] == [True] * 30 + [False]


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
@pytest.mark.parametrize("leaves", [True, False])
async def test_what_happens_until_all_answers_have_broken_off_comes_first(leaves: bool) -> None:
    """An answer is given up a moment later: its client may be gone by then, or the process about to end."""
    budgets, request = ResumeBudgets(ResumeRules()), SimpleNamespace(gone=False)
    stats, checkpoint, node = (
        SimpleNamespace(resumes=()),
        SimpleNamespace(count=3),
        SimpleNamespace(name="A", failed_probes=0),
    )
    given: list[Any] = [Resumes(0, NodeDeaths(), 0), request, stats, None, None, inf]
    broken: list[Any] = [checkpoint, node]
    judged = asyncio.create_task(AnswerResumption(budgets, *given).judge(UpstreamCut("x"), *broken))
    await asyncio.sleep(0)
    if leaves:
        request.gone = True
    else:
        budgets.closing = True
    with pytest.raises(GatewayError) as error:
        await judged
    assert isinstance(error.value, ClientGone if leaves else ShuttingDown)


def standing(names: str, silent: str) -> tuple[list[Node], Callable[[Collection[Node]], Lease]]:
    """Nodes with a stream each, of which the `silent` have sent nothing for two seconds, and how one is leased: the
    first that was not tried."""
    now = asyncio.get_running_loop().time()
    nodes = [Node(NodeSpec(f"http://{name}:1")) for name in names]
    for node in nodes:
        Lease(node).heard = True
        node.heard_at = now - (2 * SILENT if node.name[0] in silent else 0.0)

    def another(tried: Collection[Node]) -> Lease:
        for node in nodes:
            if node not in tried:
                return Lease(node)
        raise NoNodeReady("none")

    return nodes, another


def broken_on(node: Node, another: Callable[[Collection[Node]], Lease]) -> tuple[AnswerResumption, list[Any]]:
    """An answer that breaks off on `node`, and what its `judge` is told of it."""
    request, stats = SimpleNamespace(gone=False), SimpleNamespace(resumes=(), answered=False, go_on=lambda made: None)
    checkpoint = SimpleNamespace(
        count=99,
        tokens=SimpleNamespace(count=99),
        check=lambda: None,
        resume=lambda known: "",
        lost=lambda why, advice: StreamLost(f"{why}. {advice}"),
    )
    costs = SimpleNamespace(open=1)
    given: list[Any] = [Resumes(2, NodeDeaths(), 0), request, stats, another, costs, inf]
    return AnswerResumption(ResumeBudgets(ResumeRules()), *given), [checkpoint, node]


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
@pytest.mark.parametrize(
    ("silent", "chosen"), [("", "B"), ("B", "C"), ("BC", "D"), ("D", "B"), ("BCD", "A"), ("ABCD", "A"), ("A", "B")]
)
async def test_an_answer_goes_on_where_others_get_tokens(silent: str, chosen: str) -> None:
    """It broke off on A. A node that stands still is found out seconds later; its streams tell at once. Where there is
    no other, A is asked again, and at last any."""
    nodes, another = standing("ABCD", silent)
    resumption, broken = broken_on(nodes[0], another)
    await resumption.judge(UpstreamCut("x"), *broken)
    lease, _ = await resumption.next_node("m", inf)
    assert lease.node.name == f"{chosen}:1"
    assert [len(node.leases) for node in nodes] == [1 + (node is lease.node) for node in nodes], "no other is held"


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
@pytest.mark.parametrize("several", [True, False])
async def test_where_all_nodes_are_silent_an_answer_waits_for_a_sign_of_life(several: bool) -> None:
    """Once it has broken off on several: where it has only one, nothing is gained by waiting."""
    nodes, another = standing("ABC", "ABC")
    resumption, (checkpoint, _) = broken_on(nodes[0], another)
    for node in nodes[: 1 + several]:
        await resumption.judge(UpstreamTimeout("x"), checkpoint, node)
    waits = asyncio.create_task(resumption.next_node("m", inf))
    await asyncio.sleep(RESPITE + 3 * STEP)
    assert waits.done() != several
    if not several:
        return
    nodes[2].heard_at = asyncio.get_running_loop().time()
    lease, _ = await waits
    assert lease.node is nodes[2]


async def given_up(
    names: str, another: Callable[[Sequence[Node], Collection[Node]], Lease], error: UpstreamError | None = None
) -> tuple[str, list[tuple[str, float]]]:
    """An answer that broke off on the first of the nodes, which are out and fail it with `error`: what its client
    is told in the end, and which nodes were asked at which loop time."""
    nodes = [Node(NodeSpec(f"http://{name}:1")) for name in names]
    for node in nodes:
        node.refused("refused")
    resumption, (checkpoint, _) = broken_on(nodes[0], lambda tried: another(nodes, tried))
    await resumption.judge(UpstreamCut("x"), checkpoint, nodes[0])
    asked: list[tuple[str, float]] = []
    while True:
        try:
            lease, _ = await resumption.next_node("m", inf)
        except StreamLost as lost:
            return lost.message, asked
        asked.append((lease.node.name, asyncio.get_running_loop().time()))
        lease.release()
        assert error is not None and len(asked) < 1000
        await resumption.judge(error, checkpoint, lease.node)


def least_asked(nodes: Sequence[Node], tried: Collection[Node]) -> Lease:
    for node in nodes:
        if node not in tried:
            return Lease(node)
    raise NoNodeReady("none")


def full(nodes: Sequence[Node], tried: Collection[Node]) -> Lease:
    raise FleetFull("full")


def drained(nodes: Sequence[Node], tried: Collection[Node]) -> Lease:
    raise NoNodeReady("none")


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
@pytest.mark.parametrize(
    ("another", "error", "told", "waits"),
    [
        (least_asked, ConnectFailed("x"), "no node could be reached", True),
        (least_asked, NodeBusy("x"), "no node had a place for it", False),
        (full, None, "no node had a place for it", False),
        (drained, None, "no node was ready", True),
    ],
)
def test_the_error_after_the_wait_says_why_no_node_went_on(
    another: Callable[[Sequence[Node], Collection[Node]], Lease], error: UpstreamError | None, told: str, waits: bool
) -> None:
    message, _ = run_virtually(given_up("ABC", another, error))
    assert message.startswith(f"{told} within 60 s. Repeating the request is safe")
    assert message.endswith("once a node is ready again.") == waits


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
@pytest.mark.parametrize("names", ["A", "AB", "ABCDEFGH"])
def test_nodes_that_are_out_are_asked_less_and_less_often(names: str) -> None:
    _, asked = run_virtually(given_up(names, least_asked, ConnectFailed("x")))
    assert len(names) + 5 < len(asked) < len(names) + 20
    assert {name for name, _ in asked} == {f"{name}:1" for name in names}
    assert asked[-1][1] > 50, "the prober may be wrong: they are asked to the end"


@pytest.mark.source_only("its checkpoints and requests are no compiled objects")
def test_a_node_that_is_back_is_asked_at_once() -> None:
    back: list[float] = []

    def another(nodes: Sequence[Node], tried: Collection[Node]) -> Lease:
        lease, now = least_asked(nodes, tried), asyncio.get_running_loop().time()
        if now > 31 and not back:
            lease.node.ready = True
            back.append(now)
        return lease

    _, asked = run_virtually(given_up("A", another, ConnectFailed("x")))
    assert min(at for _, at in asked if at >= back[0]) < back[0] + RESPITE
