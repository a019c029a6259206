"""What a prompt asks of the fake model in `[[...]]`: lengths, calls, or a whole session turn by turn.

`[[turns=["Let me look.", {"read": {"path": "a.txt"}}, "Done."]]]` is JSON. Its items are the turns that the model takes
from there on: a text, an object of calls (tool to arguments), or an array of both. Which one comes next is counted in
the prompt, so that it is the same wherever the prompt is sent. A turn whose tools the prompt does not have is skipped.
"""

import json
import re
from array import array
from collections.abc import Sequence
from typing import Any

from workers.fake.structured import minimal_instance
from workers.fake.template import call_script
from workers.fake.tokens import EOS, IM_START, Tokenizer

_TRIGGER = re.compile(r"\[\[(\w+)(?:=([^\]]*))?\]\]")
_TOOLS = re.compile(r"<tools>\n(.*?)\n</tools>", re.DOTALL)
_LENGTHS = ("think", "answer", "loop", "answer_loop")
_TURNS = "[[turns="

Script = tuple[int, ...] | None


def read_steering(tokenizer: Tokenizer, ids: Sequence[int], start: int, asked: str) -> tuple[dict[str, int], Script]:
    """The lengths that the last user turn (`asked`) wants, and the answer's tokens where they are prescribed.

    `start` is the index of the turn that is to be written, or the length of a prompt whose turns are all over.
    """
    found = dict(_TRIGGER.findall(asked))
    steer = {key: int(found[key]) for key in _LENGTHS if found.get(key, "").isdigit()}
    if "wide" in found:
        steer["wide"] = 1
    if "call" in found:
        tools = _tools(tokenizer, ids)
        chosen = [name for name in found["call"].split(",") if name in tools] or list(tools)[:1]
        return steer, _script(tokenizer, [tool_script(tools[name]) for name in chosen])
    return steer, _turn(tokenizer, ids, start)


def tool_script(function: dict[str, Any]) -> str:
    """The text with which the model calls a function, with the smallest arguments that its schema allows."""
    arguments = minimal_instance(function.get("parameters") or {"type": "object"})
    return call_script(str(function["name"]), arguments if isinstance(arguments, dict) else {})


def _turn(tokenizer: Tokenizer, ids: Sequence[int], start: int) -> Script:
    packed = array("I", ids).tobytes()
    at = packed.rfind(array("I", tokenizer.encode(_TURNS)).tobytes())
    if at < 0 or at % 4:
        return None
    first = at // 4
    end = ids.index(EOS, first) if EOS in ids[first:] else len(ids)
    try:
        turns, _ = json.JSONDecoder().raw_decode(tokenizer.decode(ids[first:end]).removeprefix(_TURNS))
    except ValueError:
        return None
    head = array("I", [IM_START, *tokenizer.encode("assistant\n")]).tobytes()
    done = packed[at : start * 4].count(head)
    if not isinstance(turns, list) or done >= len(turns):
        return None
    items = turns[done] if isinstance(turns[done], list) else [turns[done]]
    tools = _tools(tokenizer, ids)
    return _script(tokenizer, [text for item in items for text in _texts(item, tools)])


def _texts(item: Any, tools: dict[str, dict[str, Any]]) -> list[str]:
    if not isinstance(item, dict):
        return [str(item)]
    return [call_script(name, arguments) for name, arguments in item.items() if name in tools]


def _script(tokenizer: Tokenizer, texts: list[str]) -> Script:
    return tuple(tokenizer.encode("\n".join(texts))) if texts else None


def _tools(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, dict[str, Any]]:
    # The tools are read from the prompt, not from the request: a resumed prompt has only ids.
    block = _TOOLS.search(tokenizer.decode(ids[: ids.index(EOS)]) if EOS in ids else "")
    functions = [_function(line) for line in block[1].split("\n")] if block else []
    return {function["name"]: function for function in functions}


def _function(line: str) -> dict[str, Any]:
    tool: dict[str, Any] = json.loads(line)
    function: dict[str, Any] = tool.get("function", tool)
    return function
