"""The table tells passed, failed and not run apart, and says why."""

from typing import Any

from tests.clients.matrix import Outcome, render

ABOUT = {"part": "client", "package": "some-client", "version": "1.2.3", "reasoning": "`reasoning`"}


def _facts(**results: str) -> list[dict[str, Any]]:
    parts = {"plain": "ok", "streaming": "ok", "tools": "ok", "wrong_key": "ok"} | results
    return [ABOUT, *({"part": part, "result": result, "why": f"why {part}"} for part, result in parts.items())]


def test_what_a_client_cannot_do_is_no_failure() -> None:
    """It is told in the cell, and below."""
    outcome = Outcome("Some client", _facts(streaming="absent"))
    assert outcome.row() == ("Some client", "1.2.3", "yes", "has none", "yes", "yes", "`reasoning`", "passed")
    assert outcome.notes() == ["Some client: streaming: why streaming"]


def test_a_failed_part_fails_the_client() -> None:
    """With where to read on."""
    outcome = Outcome("Some client", _facts(tools="failed"), log="/tmp/x.log", status=1)
    assert outcome.result == "failed"
    assert outcome.notes() == ["Some client: tools: why tools (/tmp/x.log)"]


def test_a_script_that_ends_early_has_not_passed() -> None:
    """A part that nobody reported has failed, also where the process ended well."""
    outcome = Outcome("Some client", _facts()[:3], status=0)
    assert outcome.result == "failed"
    assert [row for row in outcome.notes() if "ended with 0" in row]
    assert Outcome("Some client", [], status=1).row()[1:3] == ("-", "FAILED")


def test_a_client_that_this_machine_cannot_run() -> None:
    """Neither passed nor failed."""
    outcome = Outcome("OpenAI for Node", missing="node and npm are not on the PATH")
    assert outcome.row() == ("OpenAI for Node", "-", "-", "-", "-", "-", "-", "not run")
    assert "- OpenAI for Node: not run, node and npm are not on the PATH" in render([outcome])
