"""Reads the arguments of a call in tags: `<parameter=KEY>\\nVALUE\\n</parameter>`, until `</function>`.

state    text                                        gives                              next
between  <parameter=KEY>                             -                                  value
between  </function>                                 the closing brace                  done
between  anything else                               -                                  between
value    </parameter>, <parameter=, or </function>   the argument, typed by the schema  between
value    the last text                               a string so far, or the key alone  done
"""

import json
import re

from gateway.core.resume.argument_types import ArgumentTypes

FUNCTION_END = "</function>"


_BETWEEN = re.compile(r"</function>|<parameter=((?:(?!</function>)[^>])*)>")
_VALUE_END = re.compile(r"</parameter>|(?=</function>|<parameter=)")
_TAGS = (FUNCTION_END, "</parameter>", "<parameter=")


def settled(text: str, *tags: str) -> int:
    """The length of `text` without what could be the beginning of one of the tags at its end."""
    at = text.rfind("<")
    return at if at >= 0 and any(tag.startswith(text[at:]) for tag in tags) else len(text)


class TaggedArguments:
    """The arguments of one call, as pieces of JSON: each when it is complete."""

    __slots__ = ("_count", "_key", "_text", "_types", "_value")

    def __init__(self, types: ArgumentTypes) -> None:
        self._types = types
        self._text = ""
        self._key: str | None = None
        self._value: list[str] = []
        self._count = 0

    def feed(self, text: str, last: bool) -> tuple[str, str | None]:
        """Read more text: the JSON that it gives, and the text behind `</function>`; None where that has not come."""
        self._text += text
        pieces = ""
        while True:
            found = (_BETWEEN if self._key is None else _VALUE_END).search(self._text)
            if found is None:
                self._hold()
                return pieces + (self._cut() if last else ""), None
            before, self._text = self._text[: found.start()], self._text[found.end() :]
            if self._key is not None:
                self._value.append(before)
                pieces += self._opening() + self._types.dumped(self._key, self._taken())
                self._key = None
            elif found[0] == FUNCTION_END:
                return pieces + self._closing(), self._text
            else:
                self._key = found[1]

    def _hold(self) -> None:
        """Keep what could be the beginning of a tag; put the rest aside."""
        if self._key is None:
            at = self._text.find("<")
            self._text = self._text[at:] if at >= 0 else ""
            return
        end = settled(self._text, *_TAGS)
        self._value.append(self._text[:end])
        self._text = self._text[end:]

    def _cut(self) -> str:
        if self._key is None:
            return self._closing()
        self._value.append(self._text)
        return self._opening() + self._types.begun(self._key, self._taken())

    def _opening(self) -> str:
        self._count += 1
        return f"{'{' if self._count == 1 else ', '}{json.dumps(self._key, ensure_ascii=False)}: "

    def _closing(self) -> str:
        return "}" if self._count else "{}"

    def _taken(self) -> str:
        """The value, without the line breaks that the tags stand on."""
        value = "".join(self._value)
        self._value.clear()
        return value.removeprefix("\n").removesuffix("\n")
