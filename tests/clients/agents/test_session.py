"""What is wrong with a session is found in the gateway's log, and told in the table."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.agents.fleet import AgentFleet, Key
from tests.clients.agents.known import AGENTS
from tests.clients.agents.run import HEADER, AgentOutcome
from tests.clients.agents.session import Session, judge

CLAUDE, AIDER = AGENTS[0], AGENTS[-1]
TURN: dict[str, Any] = {
    "request_id": "req_1",
    "dialect": "messages",
    "node": "a",
    "status": 200,
    "ending": "ok",
    "attempts": 1,
    "request_bytes": 50_000,
    "cached_tokens": 9_000,
    "input_tokens": 10_000,
}


def judged(*turns: dict[str, Any], most: int = 5) -> dict[str, list[str]]:
    session = Session(CLAUDE, AgentFleet("", (), Path()), Key("", ""), Path(), Path())
    judge(session, [{**TURN, **turn} for turn in turns], most)
    return session.faults


def test_a_good_session_has_no_fault() -> None:
    """The first turn finds nothing cached; a title may be asked of another node."""
    assert judged({"cached_tokens": 0}, {}, {"node": "b", "request_bytes": 2_000, "cached_tokens": 0}, {}) == {}


@pytest.mark.parametrize(
    ("turns", "part"),
    [
        ([{"status": 502, "ending": "upstream_cut"}], "retries"),
        ([{"attempts": 2}], "retries"),
        ([{}] * 6, "retries"),
        ([], "retries"),
        ([{"dialect": "chat"}], "retries"),
        ([{}, {"node": "b"}], "session"),
        ([{}, {"cached_tokens": 100}], "session"),
    ],
)
def test_each_fault_is_found(turns: list[dict[str, Any]], part: str) -> None:
    assert list(judged(*turns)) == [part]


def test_the_table_tells_what_failed() -> None:
    """And why below it; an agent that cannot be installed is told apart."""
    outcome = AgentOutcome(CLAUDE, {"retries": ["2 attempts"]}, log="/tmp/x")
    row = dict(zip(HEADER, outcome.row(), strict=True))
    assert (row["no retries"], row["session"], row["result"]) == ("FAILED", "yes", "failed")
    assert outcome.notes() == ["Claude Code: retries: 2 attempts (/tmp/x)"]
    missing = AgentOutcome(AIDER, {}, missing="no pip")
    assert missing.row() == ("aider", *["-"] * (len(HEADER) - 2), "not run")
    assert AgentOutcome(AIDER, {}).row()[6] == "has none"
