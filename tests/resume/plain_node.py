"""A plain model of a node: what it streams of a given answer, as vLLM's detokenizer and parser shape it."""

import json
from dataclasses import dataclass
from typing import Any

THINK, THINK_END, EOS, OTHER = 1, 2, 3, 4
SPECIALS = {THINK: "<think>", THINK_END: "</think>", EOS: "<eos>", OTHER: "<|other|>"}
PROMPT = [5, 6, 7, THINK]
"""Ids whose text must never be shown."""
TEXTS = {5: b"SECRET", 6: b"PROMPT", 7: b"TEXT"}

_TAGS = ("<tool_call>", "<function=")


class Detokenizer:
    """Text as it becomes certain. A prompt that ends in half a character comes out whole, as vLLM's does."""

    def __init__(self, words: dict[int, bytes], prompt: list[int], skips: bool) -> None:
        self._words = words
        self._skips = skips
        self._pending = b"".join(map(self._bytes, prompt))
        if not self._pending.decode("utf-8", "replace").endswith("\ufffd"):
            self._pending = b""

    def _bytes(self, token: int) -> bytes:
        if token in SPECIALS:
            return b"" if self._skips else SPECIALS[token].encode()
        return self._words[token]

    def step(self, token: int) -> str:
        self._pending += self._bytes(token)
        text = self._pending.decode("utf-8", "replace")
        if text.endswith("\ufffd"):
            return ""
        self._pending = b""
        return text


class Parser:
    """Reasoning and content of raw text. `trims`: whitespace at the end of reasoning is left out. A possible tag, and
    whitespace before the first word, are held back."""

    def __init__(self, thinking: bool, trims: bool) -> None:
        self._thinking = thinking
        self._trims = trims
        self._text = self._spaces = ""
        self._spoken = False

    def feed(self, text: str, last: bool) -> dict[str, str]:
        self._text += text
        delta = {}
        if self._thinking:
            thought, marker, rest = self._text.partition("</think>")
            held = 0 if marker or last else _beginning(thought, "</think>")
            self._text = rest if marker else thought[len(thought) - held :]
            thought = self._spaces + thought[: len(thought) - held]
            kept = thought.rstrip() if self._trims else thought
            self._spaces = "" if marker else thought[len(kept) :]
            self._thinking = not marker
            if kept:
                delta["reasoning"] = kept
        if not self._thinking:
            content = self._text.replace("</think>", "")
            held = 0 if last else max(_beginning(content, tag) for tag in (*_TAGS, "</think>"))
            content = content[: len(content) - held]
            self._spoken = self._spoken or last or bool(content.strip())
            if self._spoken:
                self._text = self._text[len(self._text) - held :] if held else ""
                if content:
                    delta["content"] = content
        return delta


def _beginning(text: str, tag: str) -> int:
    return next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)


@dataclass
class PlainNode:
    """`answer`: the ids that the model makes. `sizes`: ids of its events, in turn. `grammar`: one bounds the answer
    itself, so that no prompt may have a part of it."""

    words: dict[int, bytes]
    answer: list[int]
    sizes: list[int]
    trims: bool = True
    detokenizes: bool = True
    grammar: bool = False

    def ask(self, path: str, body: dict[str, Any]) -> bytes:
        if path == "/tokenize":
            return json.dumps({"tokens": PROMPT, "max_model_len": 100000}).encode()
        if path == "/detokenize":
            if not self.detokenizes:
                return b'{"error":{"message":"Not Found","code":404}}'
            made = b"".join(SPECIALS[i].encode() if i in SPECIALS else self.words[i] for i in body["tokens"])
            return json.dumps({"prompt": made.decode("utf-8", "replace")}).encode()
        return b"".join(self.stream(path, body))

    def stream(self, path: str, body: dict[str, Any]) -> list[bytes]:
        """The events of the answer to `body`."""
        chat = path == "/v1/chat/completions"
        prompt = PROMPT if chat or isinstance(body["prompt"], str) else body["prompt"]
        assert prompt[: len(PROMPT)] == PROMPT
        before = prompt[len(PROMPT) :]
        assert self.answer[: len(before)] == before
        assert not (self.grammar and THINK_END in before[:-1])
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        keeps = bool(body.get("include_stop_str_in_output"))
        hold = max(map(len, stops)) - 1 if stops and not keeps else 0
        detokenizer = Detokenizer(self.words | TEXTS, prompt, not chat and body.get("skip_special_tokens", True))
        parser = Parser(THINK_END not in before, self.trims)
        events = []
        if chat:
            role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            events.append(_event(chat, role, {"prompt_token_ids": PROMPT}))
        text, passed, made, ids = "", 0, 0, list[int]()
        finish: str | None = None
        reason: str | None = None
        for token in self.answer[len(before) :]:
            ids.append(token)
            made += 1
            known = len(text)
            if token == EOS:
                finish = "stop"
            else:
                text += detokenizer.step(token)
            found = [(at + len(s), s) for s in stops if (at := text.find(s, max(0, known + 1 - len(s)))) >= 0]
            if found and made > body.get("min_tokens", 0) and len(text) > known:
                end, reason = min(found, key=lambda pair: pair[0])
                text = text[: end if keeps else end - len(reason)]
                finish = "stop"
            elif made == body["max_tokens"]:
                finish = finish or "length"
            if finish is None and len(ids) < self.sizes[len(events) % len(self.sizes)]:
                continue
            piece = text[passed : len(text) if finish else max(passed, len(text) - hold)]
            passed += len(piece)
            prompt_ids = PROMPT if not events else None
            events.append(_choice(chat, parser, piece, finish, reason, ids, prompt_ids))
            ids = []
            if finish:
                break
        usage = {"prompt_tokens": len(prompt), "completion_tokens": made, "total_tokens": len(prompt) + made}
        return [*events, _event(chat, None, {"usage": usage}), b"data: [DONE]\n\n"]


def _choice(
    chat: bool,
    parser: Parser,
    piece: str,
    finish: str | None,
    reason: str | None,
    ids: list[int],
    prompt: list[int] | None,
) -> bytes:
    if not chat:
        choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": finish, "stop_reason": reason}
        return _event(chat, {**choice, "prompt_token_ids": prompt, "token_ids": ids})
    delta = parser.feed(piece, finish is not None)
    delta = {name: delta[name] for name in ("content", "reasoning") if name in delta}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    stop = {"stop_reason": reason} if finish else {}
    return _event(chat, {**choice, **stop, "token_ids": ids})


def _event(chat: bool, choice: dict[str, Any] | None, more: dict[str, Any] | None = None) -> bytes:
    kind = "chat.completion.chunk" if chat else "text_completion"
    chunk = {"id": "x", "object": kind, "created": 1, "model": "m", "choices": [] if choice is None else [choice]}
    data = json.dumps({**chunk, **(more or {})}, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + data.encode() + b"\n\n"
