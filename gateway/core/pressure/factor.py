r"""The factor by which granted thinking budgets shrink while requests of a model wait. Sans-IO.

Theory. The expected wait of a model asks for a factor between two lines, of which the second is the first one moved to
shorter waits. Between the lines the factor stays: that is the hysteresis.

    factor
    1.0  ------e-----b
                \     \           b  `begin`: above it budgets shrink     e  `end`: below it all of them grow back
                 \     \          f  `full`: the wait at which the factor is at its floor
    floor         -----f--------   wait in seconds

A wait is the integral of the load beyond capacity. So the factor is in proportion to it: one that fell for as long as
there is a wait would swing without end. Budgets act minutes after they were granted, so this one swings, too, within
its bounds. It moves by `shrink` and `grow` a second at the most.

    the wait asks for     the last move was          next
    less, or more         the same                   moves on, at once
    less, or more         the other one              turns, once it has asked for `hold` seconds without a break, and
                                                     not before `TURN` seconds after the last turn
    what there is         any                        stays

Time is counted in steps, each `LONGEST_STEP` at the most. So a clock that is set, or a pause without any gateway, is a
few seconds to the rules: it makes no leap and allows no second turn.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.core.json_text import dump, load_object

TURN = 60.0
"""The fewest seconds between two turns of a factor."""

LONGEST_STEP = 2.0
"""The most seconds that one step counts for."""

SHRINKS, GROWS = -1, 1
_ENDLESS = 1e9
"""More than any number of a state; NaN and what JSON has beyond floats are no numbers of one, either."""


@dataclass(frozen=True, slots=True)
class FactorRules:
    """`begin`, `end`, `full`: expected waits, `hold`: how long one has to ask for a turn, all in seconds. `floor`: the
    smallest factor. `shrink`, `grow`: what the factor moves by in a second, at the most."""

    begin: float = 2.0
    end: float = 0.5
    full: float = 10.0
    hold: float = 5.0
    floor: float = 0.15
    shrink: float = 0.2
    grow: float = 0.005

    def highest(self, wait: float) -> float:
        """The factor from which budgets shrink, at this expected wait."""
        return self._line(wait - self.begin)

    def lowest(self, wait: float) -> float:
        """The factor to which they grow."""
        return self._line(wait - self.end)

    def _line(self, beyond: float) -> float:
        if beyond <= 0:
            return 1.0
        return max(self.floor, 1.0 - (1.0 - self.floor) * beyond / (self.full - self.begin))


class FactorState(NamedTuple):
    """The factor, and what its next step depends on: the `direction` of its last move, the seconds `since_turn` (`TURN`
    at the most), and for how many seconds a turn has been `asked`."""

    factor: float = 1.0
    direction: int = GROWS
    since_turn: float = TURN
    asked: float = 0.0


FRESH = FactorState()


def step(state: FactorState, rules: FactorRules, wait: float, passed: float) -> FactorState:
    """The state `passed` seconds later, where `wait` seconds are expected now. A wait that is no number changes
    nothing; an infinite one is the longest."""
    passed = min(max(passed, 0.0), LONGEST_STEP)
    factor, direction, since_turn, asked = state
    since_turn = min(TURN, since_turn + passed)
    high, low = rules.highest(wait), rules.lowest(wait)
    wanted = SHRINKS if factor > high else GROWS if factor < low else 0
    if math.isnan(wait):
        wanted = 0
    if wanted != -direction:
        asked = 0.0
    else:
        asked += passed
        if asked < rules.hold or since_turn < TURN:
            return FactorState(factor, direction, since_turn, asked)
        direction, since_turn, asked = wanted, 0.0, 0.0
    if wanted == SHRINKS:
        factor = max(high, factor - rules.shrink * passed)
    elif wanted == GROWS:
        factor = min(low, factor + rules.grow * passed)
    return FactorState(factor, direction, since_turn, asked)


def write(state: FactorState) -> bytes:
    """The text by which gateways share a state. Floats are text there: Redis' scripts would cut them to integers."""
    return dump(state._asdict())


def read(text: bytes) -> FactorState | None:
    """The state of such a text; None where it is none, or has numbers that no gateway of this version writes."""
    found = load_object(text) or {}
    factor, since_turn, asked = [_number(found.get(name)) for name in ("factor", "since_turn", "asked")]
    direction = found.get("direction")
    if factor is None or since_turn is None or asked is None or type(direction) is not int:
        return None
    if not 0 < factor <= 1 or direction not in (SHRINKS, GROWS) or since_turn > TURN:
        return None
    return FactorState(factor, direction, since_turn, asked)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value < _ENDLESS else None
