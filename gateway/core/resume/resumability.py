"""Which answers can be resumed, by their requests."""

from dataclasses import dataclass
from enum import Enum

from gateway.core.bodies import Body
from gateway.core.budgets.continuation import countable, shows_pictures
from gateway.core.dialects.base import Ask

RESUMABLE_HEADER = "x-fleetgate-resumable"
"""The header that tells a client how far its stream can be resumed."""


class Resumability(Enum):
    """How far an answer can be resumed; the value is that of `RESUMABLE_HEADER`."""

    EXACT = "exact"
    """At every token. A tool call that has begun is the exception."""
    THINKING = "thinking"
    """Until the answer itself begins: its grammar cannot go on in the middle."""
    NO = "no"


_GRAMMARS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")

_TEXTS = ("text", "thinking", "refusal", None)
"""The types of parts of messages that are text."""

_MOST_STOPS, _LONGEST_STOPS = 64, 1 << 16
"""Stop strings, and their characters, that are matched here for an answer that goes on: each is searched for in each
event. OpenAI's API takes four."""


@dataclass(frozen=True, slots=True)
class ResumeRules:
    """`max_resumes`: in a row, with nearly nothing made in between. `wait`: seconds to wait for a node. `rate`: resumes
    a second for each open answer of a model."""

    max_resumes: int = 2
    wait: float = 60.0
    rate: float = 0.2


USUAL_RULES = ResumeRules()


def resumability(ask: Ask) -> Resumability:
    """Of a chat or completions request. What a node has to show of its answers is not asked here."""
    body = ask.body
    if not countable(body) or body.get("prompt_embeds") not in (None, False) or body.get("prompt") in ([], [[]]):
        return Resumability.NO
    if body.get("stop") is not None and not _few_stops(body["stop"]):
        return Resumability.NO
    if shows_pictures(body, _TEXTS):
        return Resumability.NO
    return Resumability.THINKING if has_grammar(body) else Resumability.EXACT


def _few_stops(stop: object) -> bool:
    stops = stop if type(stop) is list else [stop]
    return len(stops) <= _MOST_STOPS and sum(len(each) for each in stops if type(each) is str) <= _LONGEST_STOPS


def has_grammar(body: Body) -> bool:
    """Whether a grammar bounds the answer, which begins with it and cannot begin in its middle."""
    for field in _GRAMMARS:
        given = body.get(field)
        if given is not None and not (type(given) is dict and given.get("type") == "text"):
            return True
    return bool(body.get("tools")) and body.get("tool_choice") not in (None, "auto", "none")
