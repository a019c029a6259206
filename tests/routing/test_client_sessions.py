"""The sessions of real clients: each agent's turns are one conversation, and no two agents or sessions share one."""

import itertools
import re
from collections import defaultdict

import pytest

from gateway.core.routing.conversations import ConversationNaming, conversation_of
from gateway.core.routing.known_clients import AGENT_HEADERS, ATTRIBUTION, SESSION_HEADERS
from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import EXPECTED_WAIT, Candidate, PlacedPrompt, RandomDraw
from tests.support.client_sessions import ClientRequestShape, recorded_sessions

SESSIONS = recorded_sessions()
BLOCK = re.compile(rf'"{ATTRIBUTION}[^"]*"')
NONCES = itertools.count(0x10000)


def key(request: ClientRequestShape, owner: str = "model/tenant") -> bytes:
    return conversation_of(request.body, request.fields, owner, ConversationNaming())


def keys_by_agent(requests: list[ClientRequestShape]) -> dict[str, set[bytes]]:
    found = defaultdict(set)
    for request in requests:
        found[request.agent].add(key(request))
    return found


def unnamed(request: ClientRequestShape) -> ClientRequestShape:
    """The request behind a proxy that keeps no header, from a client that names nothing."""
    body = {name: value for name, value in request.body.items() if name != "prompt_cache_key"}
    return ClientRequestShape(request.client, request.path, request.agent, {}, body)


def with_nonces(text: str) -> str:
    """Every attribution with hashes of its own."""
    return BLOCK.sub(
        lambda found: f'"{ATTRIBUTION}: cc_version=2.1.90.abc; cc_entrypoint=cli; cch={next(NONCES):x};"', text
    )


def test_recordings_are_of_several_clients_and_have_several_agents() -> None:
    assert {client.split(" ")[0] for client in SESSIONS} == {"Claude", "Codex", "OpenCode"}
    for requests in SESSIONS.values():
        assert len(keys_by_agent(requests)) >= 2


@pytest.mark.parametrize("client", SESSIONS)
def test_all_turns_of_an_agent_are_one_conversation_and_no_other_agent_s(client: str) -> None:
    """A compaction begins another one. So does a session that is resumed after the git status has changed: Claude Code
    has it in the system prompt, so little of the old prefix is left."""
    keys = keys_by_agent(SESSIONS[client])
    assert {agent: len(own) for agent, own in keys.items()} == dict.fromkeys(keys, 1)
    assert len(set().union(*keys.values())) == len(keys)


@pytest.mark.parametrize("client", [client for client in SESSIONS if client.startswith("Claude")])
def test_the_attribution_of_a_request_does_not_change_its_conversation(client: str) -> None:
    for requests in (SESSIONS[client], recorded_sessions(with_nonces)[client]):
        assert [key(each) for each in requests] == [key(each) for each in SESSIONS[client]]
    plain = recorded_sessions(with_nonces)[client]
    assert len({each.body["system"][0]["text"] for each in plain}) == len(plain)
    main = [unnamed(each) for each in plain if each.agent == plain[0].agent]
    assert len({key(each) for each in main}) == 1


@pytest.mark.parametrize("client", SESSIONS)
def test_another_session_of_the_same_prompts_is_another_conversation(client: str) -> None:
    others = recorded_sessions(lambda text: text.replace("-8000-0", "-8000-9").replace("ses_0", "ses_9"))[client]
    assert {key(each) for each in others}.isdisjoint(key(each) for each in SESSIONS[client])


@pytest.mark.parametrize("client", SESSIONS)
def test_a_session_that_is_named_goes_on_the_next_day(client: str) -> None:
    tomorrow = recorded_sessions(lambda text: text.replace("2026-11-30", "2026-12-01"))[client]
    assert [key(each) for each in tomorrow] == [key(each) for each in SESSIONS[client]]


def test_without_a_name_the_day_and_the_folder_tell_sessions_apart() -> None:
    def codex(date: str, folder: str) -> bytes:
        text = f"<environment_context><cwd>{folder}</cwd><current_date>{date}</current_date></environment_context>"
        body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}]}
        return conversation_of(body, {}, "model/tenant", ConversationNaming())

    assert len({codex("2026-11-30", "/a"), codex("2026-12-01", "/a"), codex("2026-11-30", "/b")}) == 3


@pytest.mark.parametrize("date", ["Mon Nov 30 2026", "Tue Dec 01 2026"])
def test_a_date_at_the_end_of_a_system_prompt_does_not_count_in_a_session(date: str) -> None:
    def opencode(date: str) -> bytes:
        body = {"messages": [{"role": "system", "content": "x" * 3000 + f"\n  Today's date: {date}\n</env>"}]}
        return conversation_of(body, {b"x-session-affinity": b"ses_1"}, "model/tenant", ConversationNaming())

    assert opencode(date) == opencode("Wed Dec 02 2026")


@pytest.mark.parametrize("header", SESSION_HEADERS)
def test_a_session_header_is_joined_with_the_opening(header: str) -> None:
    def named(session: str, system: str, tools: int) -> bytes:
        body = {"system": system, "tools": [{"name": "t"}] * tools, "messages": [{"role": "user", "content": "Go."}]}
        return conversation_of(body, {header.encode(): session.encode()}, "model/tenant", ConversationNaming())

    different = [named("one", "a", 1), named("two", "a", 1), named("one", "b", 1), named("one", "a", 2)]
    assert len(set(different)) == 4


def test_a_name_with_an_underscore_is_a_header_of_its_own() -> None:
    def named(header: bytes) -> bytes:
        return conversation_of({"prompt": "Go."}, {header: b"one"}, "model/tenant", ConversationNaming())

    assert named(b"x_session_id") == conversation_of({"prompt": "Go."}, {}, "model/tenant", ConversationNaming())
    assert named(b"session_id") == named(b"session-id") != named(b"x_session_id")


@pytest.mark.parametrize("header", AGENT_HEADERS)
def test_agents_of_one_prompt_cache_key_are_told_apart(header: bytes) -> None:
    def of(**headers: bytes) -> bytes:
        body = {"prompt_cache_key": "one"}
        return conversation_of(body, {header: headers["agent"]} if headers else {}, "m/t", ConversationNaming())

    assert len({of(), of(agent=b"a"), of(agent=b"b")}) == 3


@pytest.mark.parametrize("client", SESSIONS)
def test_a_switched_model_is_another_conversation(client: str) -> None:
    for request in SESSIONS[client]:
        assert key(request, "model/tenant") != key(request, "other/tenant")


COMPACTED = [client for client in SESSIONS if any("compacted" in each.agent for each in SESSIONS[client])]


@pytest.mark.parametrize("client", COMPACTED)
def test_after_a_compaction_no_node_is_preferred_for_what_it_had_before(client: str) -> None:
    """The old node is busy: the same turn would wait for it, the compacted one goes to the free one."""
    after = next(each for each in SESSIONS[client] if "compacted" in each.agent)
    before = [each for each in SESSIONS[client] if each.agent == after.agent.removesuffix(", compacted")][-1]
    placement, nodes = Placement(), [Candidate("old", 1 / 8000), Candidate("free", 1 / 8000)]
    chosen = placement.choose(EXPECTED_WAIT, nodes[:1], PlacedPrompt(50_000, key(before)), RandomDraw(0, 0.5), 0.0)
    placement.add(chosen, PlacedPrompt(50_000, key(before)), 0.0)
    placement.prefilled(chosen)
    other = placement.choose(EXPECTED_WAIT, nodes[:1], PlacedPrompt(40_000, b"other"), RandomDraw(1, 0.5), 1.0)
    placement.add(other, PlacedPrompt(40_000, b"other"), 1.0)
    went = {}
    for turn, request in (("same", before), ("compacted", after)):
        prompt = PlacedPrompt(50_000, key(request))
        went[turn] = placement.choose(EXPECTED_WAIT, nodes, prompt, RandomDraw(2, 0.5), 2.0)
    assert (went["same"].node, went["same"].reason) == ("old", "home")
    assert (went["compacted"].node, went["compacted"].reason) == ("free", "new")


def test_recordings_with_a_compaction_are_of_two_clients() -> None:
    assert len(COMPACTED) == 2
