"""Reads tool calls out of the answer's text as it comes, in the form of vLLM's `qwen3_coder` parser.

`<tool_call>\\n<function=NAME>\\n<parameter=KEY>\\nVALUE\\n</parameter>\\n</function>\\n</tool_call>` becomes deltas:
the name with a new id, then the arguments in pieces. Text outside calls is content.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from workers.fake.wire import random_id

_NAME = re.compile(r"<function=([^>]+)>\n")
_PARAMETER = re.compile(r"<parameter=([^>]+)>\n(.*?)\n</parameter>\n", re.DOTALL)
_OPEN, _CLOSE, _END = "<tool_call>", "</tool_call>", "</function>"


class ToolReader:
    """The state of one answer's tool parser. `types` maps function to parameter to JSON schema type."""

    def __init__(self, types: Mapping[str, Mapping[str, str]]) -> None:
        self._types = types
        self._text = ""
        self._inside = False
        self._name = ""
        self._parameters = 0
        self.calls: list[dict[str, Any]] = []

    def feed(self, text: str, *, last: bool = False) -> tuple[str, list[dict[str, Any]]]:
        """More text of the answer: the content in it, and tool-call deltas.

        A mark may come in pieces (a request with stop strings holds text back): what could be the beginning of one
        waits for more, unless this is the `last` text.
        """
        self._text += text
        content = ""
        deltas: list[dict[str, Any]] = []
        while True:
            if not self._inside:
                before, mark, after = self._text.partition(_OPEN)
                held = 0 if mark or last else _begun(before)
                after = after if mark else before[len(before) - held :]
                before = before[: len(before) - held]
                content += before if not self.calls else before.strip("\n")
                self._text = after
                self._inside = bool(mark)
                if not mark:
                    return content, deltas
            deltas += self._call_deltas()
            _, mark, after = self._text.partition(_CLOSE)
            if not mark:
                return content, deltas
            self._text, self._inside, self._name = after, False, ""

    def _call_deltas(self) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        if not self._name:
            found = _NAME.search(self._text)
            if found is None:
                return deltas
            deltas.append(self._begin(found))
        pieces = ""
        while found := _PARAMETER.match(self._text):
            pieces += self._argument(found[1], found[2])
            self._text = self._text[found.end() :]
        if self._text.startswith(_END):
            pieces += "}" if self._parameters else "{}"
            self._text = self._text[len(_END) :]
        if pieces:
            self.calls[-1]["arguments"] += pieces
            deltas.append({"index": len(self.calls) - 1, "function": {"arguments": pieces}})
        return deltas

    def _begin(self, found: re.Match[str]) -> dict[str, Any]:
        self._name, self._parameters = found[1], 0
        self._text = self._text[found.end() :]
        call_id = f"chatcmpl-tool-{random_id()}"
        self.calls.append({"id": call_id, "name": self._name, "arguments": ""})
        head = {"id": call_id, "type": "function", "index": len(self.calls) - 1}
        return {**head, "function": {"name": self._name}}

    def _argument(self, key: str, value: str) -> str:
        opening = ", " if self._parameters else "{"
        self._parameters += 1
        kind = self._types.get(self._name, {}).get(key, "string")
        shown = value if kind != "string" else json.dumps(value, ensure_ascii=False)
        return f"{opening}{json.dumps(key)}: {shown}"


def _begun(text: str) -> int:
    """How many characters at the end of `text` could be the beginning of a call's mark."""
    return next((length for length in range(len(_OPEN) - 1, 0, -1) if text.endswith(_OPEN[:length])), 0)


def parameter_types(tools: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Function to parameter to type, out of the functions' schemas."""
    types: dict[str, dict[str, str]] = {}
    for tool in tools:
        properties = (tool.get("parameters") or {}).get("properties") or {}
        types[tool["name"]] = {k: str(v.get("type", "string")) for k, v in properties.items()}
    return types
