"""Redis in trouble: no request hangs, the configured mode holds, and what was used meanwhile counts afterwards."""

from pathlib import Path

import pytest

from tests.limits.outages import BEFORE, DURING, FAULTS, LIMIT, MODES, Fault, Outcome, suffer, table

PROOFS = Path(__file__).parents[2] / "docs" / "proofs.md"
QUICK = [FAULTS[1], FAULTS[3]]


def check(fault: Fault, outcome: Outcome) -> None:
    """What each mode promises."""
    room = LIMIT - BEFORE
    if outcome.mode == "closed" and fault.outage:
        assert outcome.failed == DURING and outcome.left >= (LIMIT if fault.loses else room)
    elif outcome.mode == "open" and fault.outage:
        assert outcome.ok == DURING
        assert outcome.left <= (LIMIT if fault.loses else room) - DURING + 5, "what was used is owed"
    else:
        # A few seconds give a request or two; where the books are lost, all may be had again.
        most = (LIMIT if fault.loses and not fault.outage else room) + 5
        assert outcome.failed == 0 and room - 1 <= outcome.ok <= most
        assert outcome.left <= (LIMIT if fault.loses else room) - outcome.ok + 5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.name)
async def test_redis_in_trouble(fault: Fault, mode: str) -> None:
    check(fault, await suffer(fault, mode, timeout=1.0))


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_every_fault_in_every_mode() -> None:
    """Writes the table of docs/proofs.md. The timeout is production's, so the machine must not be busy."""
    outcomes = []
    for fault in FAULTS:
        for mode in MODES:
            outcome = await suffer(fault, mode, timeout=0.05)
            check(fault, outcome)
            outcomes.append(outcome)
    assert max(outcome.worst for outcome in outcomes) < 1000
    text = PROOFS.read_text()
    head, begin, rest = text.partition("<!-- outages -->\n")
    _, end, tail = rest.partition("<!-- /outages -->")
    assert begin and end, "docs/proofs.md has lost the place for this table"
    PROOFS.write_text(f"{head}{begin}{table(outcomes)}\n{end}{tail}")
