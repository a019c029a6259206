"""Groups of models whose routing facts lie together in Redis, and when all gateways go by them.

Theory. A node's places are counted in its models' group, so all gateways have to agree on the groups, or a node gets as
many requests as it can take from each side. Only the configuration says which model is in which group, and gateways get
a new one at different times. So groups are gone by while all live gateways name the same ones, and one group has all
models while they do not. Redis says since when (`routing/lua/agree.lua`), by its own clock; each gateway looks every
`LOOK` seconds. It goes from the one state to the other in two steps of `STEP` seconds, so that any two gateways which
are less than a step apart both count where either chooses:

    since Redis said so    going apart                      going together
    the first step         chosen together, told to both    chosen apart, told to both
    the second step        chosen apart, told to both       chosen together, told to both
    then                   chosen and told apart            chosen and told together

A gateway that begins with other groups than those that are gone by chooses for all models together from its first
request on. So it begins when the others do (`may_begin`): until then they would not see what it has.
"""

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

LOOK: Final = 0.5
"""Seconds between two looks of a gateway at what all agree on."""

STEP: Final = 3 * LOOK
"""Seconds of one step: a look or two may fail."""


SETTLED: Final = STEP + 2 * LOOK
"""Seconds after which all gateways choose together."""


class GroupPhase(NamedTuple):
    """`apart`: nodes are chosen by the facts of the model's group, not by those of all models together. `both`: places
    are counted in both."""

    apart: bool
    both: bool


TOGETHER: Final = GroupPhase(apart=False, both=False)
APART: Final = GroupPhase(apart=True, both=False)


def fingerprint(groups: Mapping[str, str]) -> str:
    """A name of `groups` (each model's, of those that name one): equal for equal ones, empty for none."""
    if not groups:
        return ""
    words = "\n".join(f"{model}\t{groups[model]}" for model in sorted(groups))
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def phase_of(own: str, before: str, now: str, seconds: float) -> GroupPhase:
    """What a gateway with the groups `own` does where those of `now` hold since `seconds`, and those of `before` held
    until then; all of them fingerprints. The groups of others are never gone by."""
    if own and now == own:
        if before == own or seconds >= 2 * STEP:
            return APART
        return GroupPhase(apart=seconds >= STEP, both=True)
    if own and before == own and seconds < 2 * STEP:
        return GroupPhase(apart=seconds < STEP, both=True)
    return TOGETHER


def may_begin(own: str, before: str, now: str, seconds: float) -> bool:
    """Whether the others count where a new gateway with the groups `own` would choose; arguments as in `phase_of`."""
    if now:
        return now == own
    return not before or seconds >= SETTLED
