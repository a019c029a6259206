"""Requests of a thinking fleet: a trace's prompts and arrivals with long thoughts, and agents' sessions."""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from tests.support.decoding.speeds import NodeSpeed
from tests.support.replay import BLOCK, Turn


class Habit(NamedTuple):
    """How one tenant thinks: lognormal, by `median` tokens and `sigma`, cut at the `budget` that it is granted."""

    tenant: str
    share: float
    median: float
    sigma: float
    budget: int


HABITS = (
    Habit("chat", 0.4, 2000, 0.6, 8192),
    Habit("code", 0.4, 4000, 0.6, 16384),
    Habit("study", 0.2, 8000, 0.5, 32768),
)
"""Thoughts of 2,000 to 8,000 tokens, and what is granted for them: two to four times the median."""

ANSWER_GRANTED = 2048
"""Tokens granted for the answer behind the thought."""


class Request(NamedTuple):
    """`at` in seconds; `answer` tokens will be made, of `granted` at most."""

    at: float
    prompt: int
    answer: int
    granted: int
    tenant: str
    blocks: tuple[int, ...]
    conversation: bytes


class Session(NamedTuple):
    """Turns of one agent: each is asked `pauses` seconds after the answer to the one before it."""

    turns: tuple[Request, ...]
    pauses: tuple[float, ...]


def thinking(turns: Sequence[Turn], seed: int = 1, habits: Sequence[Habit] = HABITS) -> list[Session]:
    """A trace's turns, each by itself at its own time, with thoughts before their answers."""
    dice = random.Random(seed)
    of: dict[bytes, Habit] = {}
    sessions = []
    for turn in turns:
        habit = of.get(turn.conversation)
        if habit is None:
            habit = of[turn.conversation] = _drawn(habits, dice)
        answer = _tokens(habit, dice) + min(turn.answer, ANSWER_GRANTED)
        granted = habit.budget + ANSWER_GRANTED
        request = Request(turn.at, turn.prompt, answer, granted, habit.tenant, turn.blocks, turn.conversation)
        sessions.append(Session((request,), (0.0,)))
    return sessions


def agents(
    sessions: int = 400, seconds: float = 3600.0, seed: int = 1, habits: Sequence[Habit] = HABITS, idle: float = 0.0
) -> list[Session]:
    """Coding agents: a system prompt of 8 blocks, 4 to 12 turns that add 1 to 8 blocks, tools that take some seconds.

    `idle`: the share of pauses in which a person thinks it over for ten minutes to an hour.
    """
    dice, fresh = random.Random(seed), iter(range(1000, 10**9))
    made = []
    for number in range(sessions):
        habit = _drawn(habits, dice)
        blocks = [*range(8), *(next(fresh) for _ in range(dice.randint(4, 30)))]
        turns, pauses = [], []
        for _ in range(dice.randint(4, 12)):
            answer = _tokens(habit, dice) + 1 + int(min(dice.expovariate(1 / 350), ANSWER_GRANTED - 1))
            granted = habit.budget + ANSWER_GRANTED
            name = number.to_bytes(8, "big")
            turns.append(Request(0.0, len(blocks) * BLOCK, answer, granted, habit.tenant, tuple(blocks), name))
            blocks += [next(fresh) for _ in range(dice.randint(1, 8))]
            long = dice.random() < idle
            pauses.append(dice.uniform(600, 3600) if long else 2 + dice.expovariate(1 / 8))
        pauses[0] = dice.random() * seconds
        made.append(Session(tuple(turns), tuple(pauses)))
    return made


def at_load(sessions: Sequence[Session], speeds: Sequence[NodeSpeed], load: float, hits: float = 0.35) -> list[Session]:
    """The same sessions, begun faster or slower, so that nodes that run all the sequences they can are busy for `load`
    of the time. `hits`: the share of prompt tokens that is taken to be cached."""
    requests = [turn for session in sessions for turn in session.turns]
    answers, fresh = sum(each.answer for each in requests), sum(each.prompt for each in requests) * (1 - hits)
    length = sum((each.prompt + each.answer / 2) * each.answer for each in requests) / answers
    rate = 0.0  # of the work that all requests are, a second
    for speed in speeds:
        running = min(speed.sequences, speed.kv / length)
        rate += 1 / (answers * speed.step(int(running), running * length) / running + fresh / speed.prefill)
    begins = [_begin(session) for session in sessions]
    stretch = 1 / (rate * load * (max(begins) - min(begins)))
    return [_begun(session, (_begin(session) - min(begins)) * stretch) for session in sessions]


def _begin(session: Session) -> float:
    return session.turns[0].at + session.pauses[0]


def _begun(session: Session, at: float) -> Session:
    return Session((session.turns[0]._replace(at=at), *session.turns[1:]), (0.0, *session.pauses[1:]))


def _drawn(habits: Sequence[Habit], dice: random.Random) -> Habit:
    return dice.choices(habits, [each.share for each in habits])[0]


def _tokens(habit: Habit, dice: random.Random) -> int:
    return max(1, min(int(habit.median * math.exp(dice.gauss(0.0, habit.sigma))), habit.budget))
