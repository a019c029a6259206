"""Answers of a model for property tests: what it said, and the chat stream in which a node tells that."""

import json
from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st

from tests.dialects.over_chat import chat_streams as recorded

Json = dict[str, Any]

TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from('🌧️数é\n\r\u2028\u0085"\\{}:'), min_size=1, max_size=6)
ARGUMENTS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.lists(TEXTS, max_size=2), max_size=3)
NOISE = st.sampled_from((b"", b"", b"", b": keep-alive\n", b": keep-alive\n\n", b": a node's comment\n\n"))
USAGE = recorded.USAGE


class Call(NamedTuple):
    """A tool call: its arguments, and where they are cut."""

    name: str
    id: str
    arguments: str
    cuts: tuple[int, ...]

    @property
    def pieces(self) -> list[str]:
        edges = sorted({0, len(self.arguments), *(cut % (len(self.arguments) + 1) for cut in self.cuts)})
        return [self.arguments[a:b] for a, b in pairwise(edges)]


class Drawn(NamedTuple):
    """An answer. `stream`: a node's bytes. `told_usage`: whether it has the usage event."""

    thinking: str
    text: str
    calls: list[Call]
    finish: str
    stream: bytes
    told_usage: bool

    def plain(self) -> bytes:
        """The same as a plain chat answer."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        return recorded.plain(self.finish, reasoning=self.thinking or None, content=self.text or None, tool_calls=calls)


@st.composite
def calls(draw: st.DrawFn, most: int) -> list[Call]:
    """Tool calls with any arguments, cut anywhere."""
    made = []
    for number in range(draw(st.integers(0, most))):
        given = draw(ARGUMENTS)
        text = json.dumps(
            given, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        )
        cuts = tuple(draw(st.lists(st.integers(0, 200), max_size=4)))
        made.append(Call(f"tool{number}", f"call-{number}", text, cuts))
    return made


def segments(*kinds: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Pieces of thinking and text, one after the other."""
    return st.lists(st.tuples(st.sampled_from(kinds), TEXTS), max_size=6)


@st.composite
def answers(draw: st.DrawFn, interleaved: bool = True, usage: bool | None = None, limit: bool = True) -> Drawn:
    """Any answer. `interleaved`: pieces of calls come in any order, with thinking and text between them. `usage`:
    whether it is told, `limit`: whether the answer may have run into its limit."""
    made = draw(calls(3))
    if interleaved:
        said = draw(segments("reasoning", "content"))
    else:
        said = sorted(draw(segments("reasoning", "content")), key=lambda piece: piece[0] != "reasoning")
    steps: list[Json] = [{kind: text} for kind, text in said]
    queues = [
        [recorded.call(index, "", call.name, call.id), *(recorded.call(index, piece) for piece in call.pieces)]
        for index, call in enumerate(made)
    ]
    if interleaved:
        begun = 0  # a call begins behind the beginning of the one before it
        places = []
        while any(queues):
            open_ones = [index for index, queue in enumerate(queues[: begun + 1]) if queue]
            index = draw(st.sampled_from(open_ones))
            begun = max(begun, index + 1) if index == begun else begun
            places.append({"tool_calls": [queues[index].pop(0)]})
        for step in places:
            steps.insert(draw(st.integers(_behind_calls(steps), len(steps))), step)
    else:
        steps += [{"tool_calls": [piece]} for queue in queues for piece in queue]
    told_usage = draw(st.booleans()) if usage is None else usage
    finish = draw(st.sampled_from(("tool_calls", "stop") if made else ("stop", "length" if limit else "stop")))
    return Drawn(
        "".join(text for kind, text in said if kind == "reasoning"),
        "".join(text for kind, text in said if kind == "content"),
        made,
        finish,
        _written(draw, steps, finish) + recorded.ending(USAGE if told_usage else None),
        told_usage,
    )


def _behind_calls(steps: list[Json]) -> int:
    """The first place behind every piece of a call. Not looked for by its content: two pieces may be equal."""
    return max((place + 1 for place, step in enumerate(steps) if "tool_calls" in step), default=0)


def _written(draw: st.DrawFn, steps: list[Json], finish: str) -> bytes:
    """The chat stream: some steps share a chunk, comments come between, the finish with the last step or behind it."""
    usage = draw(st.booleans())
    stream = recorded.opening(usage) if draw(st.booleans()) else b""
    chunks: list[Json] = []
    for step in steps:
        if (
            chunks
            and not chunks[-1].keys() & step.keys()
            and draw(st.integers(0, 3)) == 0
            and _keeps_order(chunks[-1], step)
        ):
            chunks[-1] |= step
        elif chunks and "tool_calls" in step and "tool_calls" in chunks[-1] and draw(st.booleans()):
            chunks[-1]["tool_calls"] = [*chunks[-1]["tool_calls"], *step["tool_calls"]]
        else:
            chunks.append(dict(step))
    with_finish = bool(chunks) and draw(st.booleans())
    for number, chunk in enumerate(chunks):
        stream += draw(NOISE) + recorded.delta(finish if with_finish and number == len(chunks) - 1 else None, **chunk)
    if not with_finish:
        stream += recorded.delta(finish)
    return stream + draw(NOISE)


_ORDER = ("reasoning", "content", "tool_calls")


def _keeps_order(chunk: Json, step: Json) -> bool:
    """Whether both can stand in one chunk, whose members have a fixed order."""
    return max(map(_ORDER.index, chunk)) < min(map(_ORDER.index, step))


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """A stream in pieces: cut anywhere, or at every byte."""
    if draw(st.integers(0, 9)) == 0:
        return [stream[at : at + 1] for at in range(len(stream))]
    edges = [0, *sorted(draw(st.sets(st.integers(1, len(stream) - 1), max_size=8))), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]
