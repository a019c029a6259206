"""A stream whose connection to its node is cut goes on on another node, and the client has the unbroken answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Server
from tests.real.cutting import WAYS, Way
from tests.real.killable import KillableNode, killable_node
from tests.real.progress import SET_UP_SECONDS
from tests.real.resume_fleet import DIALECTS, SPECIAL, THOUGHT, Ask, Cutter, cutter
from tests.real.transparency_cases import CHAT, Json

pytestmark = [pytest.mark.real, pytest.mark.timeout(SET_UP_SECONDS + 1800)]

POINTS = {"thinking": 9, "end of thinking": THOUGHT + 1, "behind it": THOUGHT + 2, "answer": THOUGHT + 7}
"""Events of the node's stream in chat. The first one brings the role, the others a token each."""


@pytest.fixture(scope="module")
def cut(vllm: Server, second: KillableNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cutter]:
    second.up()
    with cutter([vllm.url, second.url], tmp_path_factory.mktemp("cut")) as found:
        yield found


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("where", POINTS)
def test_a_connection_is_cut(path: str, where: str, cut: Cutter) -> None:
    way = WAYS[list(POINTS).index(where) % len(WAYS)]
    assert cut.damage(DIALECTS[path], POINTS[where], way) == ""


@pytest.mark.parametrize("after", [5, 6])
def test_a_character_is_cut(after: int, cut: Cutter) -> None:
    """Its bytes are in three tokens. From inside it a node would begin with the text of the whole prompt."""
    assert cut.damage(SPECIAL["emoji"], after, "reset") == ""


def cut_everywhere(cutter: Cutter, name: str, ask: Ask, ways: tuple[Way, ...] = WAYS) -> list[str]:
    """Cut behind each event, in turn in each way; returns the damages."""
    found, count, after = [], 0, 1
    while (damage := cutter.damage(ask, after, ways[after % len(ways)])) is not None:
        lost = ask.calls and '"stream_not_resumable"' in damage
        if damage and not lost:
            found.append(f"{name}, {ways[after % len(ways)]} behind event {after}:\n{damage}")
        count, after = count + 1, after + 1
    print(f"{name}: {count - len(found)} of {count} as the unbroken run")
    assert count > 10
    return found


MODES: dict[str, Json] = {
    "as it comes": {},
    "the gateway holds the budget": {"budgets": {"native": False}},
    "hidden thinking": {"thinking": {"hide_reasoning": True}},
}


@pytest.mark.prove
@pytest.mark.parametrize("mode", MODES)
def test_a_connection_is_cut_at_every_token(mode: str, vllm: Server, second: KillableNode, tmp_path: Path) -> None:
    """In every dialect, and in chat in every way."""
    second.up()
    with cutter([vllm.url, second.url], tmp_path, **MODES[mode]) as found:
        damages = [
            damage
            for path, ask in DIALECTS.items()
            for ways in ([(way,) for way in WAYS] if path == CHAT and not MODES[mode] else [WAYS])
            for damage in cut_everywhere(found, f"{mode}, {path}", ask, ways)
        ]
    assert not damages, "\n".join(damages)


@pytest.mark.prove
def test_special_answers_are_cut_at_every_token(cut: Cutter) -> None:
    damages = [damage for name, ask in SPECIAL.items() for damage in cut_everywhere(cut, name, ask)]
    assert not damages, "\n".join(damages)


@pytest.mark.prove
def test_a_node_that_puts_several_tokens_into_an_event(
    vllm: Server, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """As a busy one does, and one with speculative decoding: half a character may stand at an event's end."""
    with killable_node(tmp_path, pytestconfig, "--stream-interval", "3") as node:
        node.up()
        with cutter([node.url, node.url], tmp_path) as found:
            asks = {**DIALECTS, **SPECIAL}
            damages = [damage for name, ask in asks.items() for damage in cut_everywhere(found, name, ask)]
    assert not damages, "\n".join(damages)
