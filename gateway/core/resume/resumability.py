"""Which answers can be resumed, by their requests."""

import re
from dataclasses import dataclass
from enum import Enum

from gateway.core.bodies import Body
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


_ALONE = ("logprobs", "prompt_logprobs", "echo", "use_beam_search", "suffix", "prompt_embeds")
"""Fields whose effect on an answer its continuation would not have."""

_GRAMMARS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")

_PICTURES = re.compile(rb'"(?:input_)?(?:image|audio|video|file)_?\w*"|\\u')
"""Parts of messages that are not text, or a name that may be spelled in another way. A quote inside a JSON string is
escaped."""

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
    for field in _ALONE:
        if body.get(field) is not None and body[field] is not False:
            return Resumability.NO
    for field in ("n", "best_of"):
        if body.get(field) not in (None, 1):
            return Resumability.NO
    prompt = body.get("prompt")
    if prompt == [[]] or (type(prompt) is list and len(prompt) != 1 and not (prompt and type(prompt[0]) is int)):
        return Resumability.NO
    if body.get("stop") is not None and not _few_stops(body["stop"]):
        return Resumability.NO
    if body.get("messages") is not None and _PICTURES.search(ask.raw) is not None and _shows_pictures(body):
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


def _shows_pictures(body: Body) -> bool:
    """Whether a message holds more than text, which token ids cannot carry."""
    messages = body["messages"]
    for message in messages if type(messages) is list else ():
        content = message.get("content") if type(message) is dict else None
        for part in content if type(content) is list else ():
            if type(part) is dict and part.get("type") not in ("text", "thinking", "refusal", None):
                return True
    return False
