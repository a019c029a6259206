"""Compactions of responses over chat: the model writes a summary of the conversation, which replaces it.

Asked for at `/v1/responses/compact`, or by a `compaction_trigger` as the last item of a response's input. The prompt is
that of the conversation, tools included, so that the node finds it in its cache; behind it stands an instruction.
"""

from collections.abc import Mapping
from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import expect
from gateway.core.dialects.opaque_text import COMPACTION, encode_text
from gateway.core.dialects.over_chat.responses import ResponsesOverChat, responses_over_chat
from gateway.core.dialects.over_chat.responses_events import NumberedEvents
from gateway.core.dialects.over_chat.responses_object import ResponseForm, error_event, error_words, response_usage
from gateway.core.dialects.over_chat.stream import ChatStream, derived_id
from gateway.core.dialects.responses_input import SUMMARY_LEAD
from gateway.core.errors import NoSummary

INSTRUCTION = """\
Write a summary of the conversation above. Whoever continues the work sees the summary and nothing else of it. Keep:
- what the user asked for, with every constraint and preference;
- what was decided, and why;
- what was done, with the names, paths, commands, identifiers, numbers and results that still matter;
- errors that came up, and what was learned from them;
- what remains to be done, in order.
Leave out greetings and what was superseded. Answer with the summary alone, and call no tools.\
"""

_NO_SUMMARY = "The model wrote no summary: raise max_output_tokens or lower the reasoning effort, and retry."

_NOT_SUMMARISED = ("include", "structured_outputs", "text", "tool_choice", "top_logprobs")
"""Fields that shape an answer; the summary is a plain text."""


class CompactionOverChat(ResponsesOverChat):
    """A compaction as chat. `alone`: it was asked for at its own path, whose answer has an object of its own."""

    __slots__ = ("_alone", "_items")

    def __init__(self, over: ResponsesOverChat, form: ResponseForm, items: list[Any], alone: bool) -> None:
        super().__init__(over.chat, form, over.names)
        self.same_prompt = over.same_prompt
        self._items = items
        self._alone = alone

    def stream_filter(self) -> ChatStream:
        return CompactionEvents(self._form)

    def answer(self, chat: Mapping[str, Any]) -> Body:
        summary = chat["choices"][0]["message"].get("content")
        if not summary:
            raise NoSummary(_NO_SUMMARY)
        chat_id, used = chat.get("id", ""), chat.get("usage") or {}
        item = _compaction_item(chat_id, summary)
        if not self._alone:
            return self._form.ended(chat, "stop", [item], used)
        return {
            "id": derived_id("resp_", chat_id, 0),
            "object": "response.compaction",
            "created_at": chat.get("created"),
            "output": [*_said_by_the_user(self._items, chat_id), item],
            "usage": response_usage(used or {"prompt_tokens": 0}),
        }


class CompactionEvents(NumberedEvents):
    """A streamed compaction as responses' events: one item, of whose text nothing is shown before its end."""

    __slots__ = ("_pieces",)

    def __init__(self, form: ResponseForm) -> None:
        super().__init__(hide=True, form=form)
        self._pieces: list[str] = []

    def reason(self, text: str) -> None:
        """Thinking is no part of a summary."""

    def speak(self, text: str, choice: Mapping[str, Any]) -> None:
        item = _compaction_item(self.chat_id, "")
        if not self._pieces:
            self._event("response.output_item.added", {"output_index": 0, "item": {**item, "encrypted_content": ""}})
        self._pieces.append(text)
        self._event("response.compaction.compacting", {"output_index": 0, "item_id": item["id"]})

    def begin_call(self, call_id: str, name: str) -> None:
        """Tools were not offered: a call is no part of a summary either."""

    def go_on_calling(self, arguments: str) -> None:
        """The same."""

    def end(self) -> None:
        if not self._pieces:  # the node did its work: this is no failure of it
            self._tell(NoSummary.default_code, "server_error", _NO_SUMMARY)
            return
        item = _compaction_item(self.chat_id, "".join(self._pieces))
        self._event("response.output_item.done", {"output_index": 0, "item": item})
        response = self._form.ended(self._first, "stop", [item], self.used)
        self._event("response.completed", {"response": response})

    def complain(self, message: str, status: int) -> None:
        self._tell(*error_words(status), message)

    def _tell(self, code: str, kind: str, message: str) -> None:
        self._event("error", error_event(code, kind, message))


def compaction_over_chat(body: Body, alone: bool) -> CompactionOverChat:
    """The translation of a compaction's request. Raises `InvalidRequest` for a field that has no counterpart."""
    given: Any = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else expect(given, list, "input")
    if not alone:
        items = items[:-1]
    asked = {name: value for name, value in body.items() if name not in _NOT_SUMMARISED}
    chat = {**asked, "input": [*items, {"role": "user", "content": INSTRUCTION}], "tool_choice": "none"}
    return CompactionOverChat(responses_over_chat(chat), ResponseForm(asked, "none"), items, alone)


def _compaction_item(chat_id: str, summary: str) -> Body:
    item_id = derived_id("cmp_", chat_id, 0)
    return {"type": "compaction", "id": item_id, "encrypted_content": encode_text(COMPACTION, summary)}


def _said_by_the_user(items: list[Any], chat_id: str) -> list[Body]:
    """The user's messages, which a compaction keeps; the message of an earlier summary is in the new one."""
    kept = []
    for index, item in enumerate(items):
        content = item.get("content")
        if item.get("role") != "user" or (item.get("type") or "message") != "message":
            continue
        if isinstance(content, str):
            if content.startswith(SUMMARY_LEAD):
                continue
            content = [{"type": "input_text", "text": content}]
        item_id = item.get("id") or derived_id("msg_", chat_id, index)
        kept.append({**item, "type": "message", "id": item_id, "status": "completed", "content": content})
    return kept
