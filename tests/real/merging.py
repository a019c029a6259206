"""Puts together what vLLM may cut differently from one time to the next.

When its server is slower than its engine, as on a busy machine, several tokens travel in one event. Two streams that
mean the same are then no longer equal event by event, but they are once neighbouring deltas of one kind are folded
into one: texts, token ids and logprobs appended, counters as they last were.
"""

from typing import Any

from tests.real.answers import Answer, Event

# Appended when two events are folded.
_TEXTS = frozenset(("content", "reasoning", "text", "arguments", "delta", "thinking", "partial_json"))
_LISTS = frozenset(("token_ids", "tokens", "token_logprobs", "top_logprobs", "text_offset", "content", "logprobs"))
# The later value counts.
_COUNTERS = frozenset(("completion_tokens", "total_tokens", "reasoning_tokens", "output_tokens"))
# Null until the end, and on the last event only.
_ENDINGS = frozenset(("finish_reason", "stop_reason"))
# Numbers the events, so it says nothing once they are folded.
_NUMBERING = "sequence_number"


class _DifferentKinds(Exception):
    """Two events that no cutting makes out of one."""


def merged(answer: Answer) -> Answer:
    """The answer with its stream's deltas folded; other answers as they are."""
    if "event-stream" not in answer.content_type:
        return answer
    folded: list[Event] = []
    for event in _by_choice(answer.content):
        plain = Event(event.name, _without_numbering(event.data))
        try:
            folded[-1:] = [_fold_events(folded[-1], plain)] if folded else [plain]
        except _DifferentKinds:
            folded.append(plain)
    return Answer(answer.status, answer.content_type, folded)


def _by_choice(events: list[Event]) -> list[Event]:
    """Events of several choices come in any order; those of one choice keep theirs."""
    return sorted(events, key=lambda event: _choice(event.data))


def _choice(data: Any) -> int:
    choices = dict(data).get("choices") if isinstance(data, list) else None
    # What belongs to no choice, usage and [DONE], stands behind them all.
    return int(dict(choices[0])["index"]) if choices else (10**6 if choices is not None or data == "[DONE]" else 0)


def _fold_events(first: Event, second: Event) -> Event:
    if first.name != second.name or "[DONE]" in (first.data, second.data):
        raise _DifferentKinds
    return Event(first.name, _fold(first.data, second.data, ""))


def _fold(first: Any, second: Any, field: str) -> Any:
    if first == second and field not in _TEXTS | _LISTS:
        return first
    if _is_object(first) and _is_object(second):
        return _fold_objects(dict(first), dict(second))
    if isinstance(first, str) and isinstance(second, str) and field in _TEXTS:
        return first + second
    if isinstance(first, list) and isinstance(second, list):
        if field in _LISTS:
            return first + second
        if len(first) == len(second):
            return [_fold(one, other, field) for one, other in zip(first, second, strict=True)]
    if first is None and second is None:
        return None
    if field in _COUNTERS or (field in _ENDINGS and first is None):
        return second
    raise _DifferentKinds


def _fold_objects(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, Any]]:
    names = [*first, *(name for name in second if name not in first)]
    return [
        (
            name,
            _fold(first[name], second[name], name) if name in first and name in second else {**first, **second}[name],
        )
        for name in names
    ]


def _is_object(value: Any) -> bool:
    # answers.py reads objects as lists of pairs, the empty one as {}.
    return value == {} or (isinstance(value, list) and bool(value) and isinstance(value[0], tuple))


def _without_numbering(data: Any) -> Any:
    return [pair for pair in data if pair[0] != _NUMBERING] if _is_object(data) else data
