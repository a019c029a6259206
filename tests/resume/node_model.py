"""A node as a pure function, which writes the bytes that vLLM 0.32 writes for a chat and for its continuation."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

START, END, LINE, EOS = 49152, 49153, 198, 2
PROMPT = (1, 4093, 198, START, 198)
DONE = "data: [DONE]\n\n"
HEAD = '"created":1795961145,"model":"m",'


def text_of(token: int) -> str:
    """The text of one token, as /detokenize tells it."""
    return {START: "<think>", END: "</think>", LINE: "\n", EOS: "<|im_end|>"}.get(token, f' w{token}"\\é')


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of `tokens`, `size` of them an event. `finish`: why it ends. `counts`: each event has a usage."""

    tokens: tuple[int, ...]
    finish: str
    size: int = 1
    usage: bool = True
    counts: bool = False

    def chat(self, ids: bool) -> list[str]:
        """The events of its chat stream. `ids`: the request asked for token ids."""
        told = ",".join(map(str, PROMPT))
        begun = f'{{"id":"chatcmpl-1","object":"chat.completion.chunk",{HEAD}'
        role = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        prompt = f'"prompt_token_ids":[{told}]' if ids else '"prompt_token_ids":null'
        events = [f'data: {begun}"choices":[{role}]{self._running(0)},{prompt},"prompt_text":null}}\n\n']
        thinking, held = True, ""
        for group, made in self.groups():
            parts: dict[str, str] = {}
            for token in group:
                if token == END:
                    thinking = False
                elif token == LINE and not thinking:
                    held += "\n"
                elif token != EOS:
                    name = "reasoning" if thinking else "content"
                    parts[name] = parts.get(name, "") + held + text_of(token)
                    held = ""
            last = made == len(self.tokens)
            if not (parts or last or ids):
                continue
            delta = ",".join(f"{quoted(name)}:{quoted(text)}" for name, text in parts.items())
            end = f'"finish_reason":"{self.finish}","stop_reason":null' if last else '"finish_reason":null'
            shown = f"[{','.join(map(str, group))}]" if ids else "null"
            choice = f'{{"index":0,"delta":{{{delta}}},"logprobs":null,{end},"token_ids":{shown}}}'
            events.append(f'data: {begun}"choices":[{choice}]{self._running(made)}}}\n\n')
        if self.usage:
            events.append(f'data: {begun}"choices":[]{self._told(len(self.tokens))},"system_fingerprint":"f"}}\n\n')
        return [*events, DONE]

    def completions(self, body: dict[str, Any]) -> list[str]:
        """The events of the completions stream that continues it."""
        known = len(body["prompt"]) - len(PROMPT)
        assert tuple(body["prompt"]) == PROMPT + self.tokens[:known], "it goes on from the tokens that were made"
        assert body["return_token_ids"] is True and body["max_tokens"] >= len(self.tokens) - known > 0
        begun = f'{{"id":"cmpl-{known}","object":"text_completion",{HEAD}'
        prompt = "[" + ",".join(map(str, body["prompt"])) + "]"
        events = []
        for group, made in self.groups(known):
            shown = [token for token in group if token not in (EOS, END) or body["skip_special_tokens"] is False]
            text = "".join(text_of(token) for token in shown if token != EOS)
            finish = f'"{self.finish}"' if made == len(self.tokens) else "null"
            ids = ",".join(map(str, group))
            events.append(
                f'data: {begun}"choices":[{{"index":0,"text":{quoted(text)},"logprobs":null,"finish_reason":{finish},'
                f'"stop_reason":null,"prompt_token_ids":{prompt},"token_ids":[{ids}]}}]}}\n\n'
            )
            prompt = "null"
        count = len(self.tokens) - known
        usage = {"prompt_tokens": len(body["prompt"]), "total_tokens": len(PROMPT) + len(self.tokens)}
        usage["completion_tokens"] = count
        events.append(f'data: {begun}"choices":[],"usage":{json.dumps(usage)},"system_fingerprint":"g"}}\n\n')
        return [*events, DONE]

    def reply(self, path: str, body: bytes) -> bytes:
        """The answer of the tokenizer."""
        asked = json.loads(body)
        if path == "/tokenize":
            return json.dumps({"count": len(PROMPT), "max_model_len": 4096, "tokens": PROMPT}).encode()
        assert path == "/detokenize"
        return json.dumps({"prompt": "".join(map(text_of, asked["tokens"]))}).encode()

    def groups(self, start: int = 0) -> list[tuple[Sequence[int], int]]:
        """The tokens of each event from number `start` on, and how many are made with it."""
        places = range(start, len(self.tokens), self.size)
        return [(self.tokens[at : at + self.size], min(at + self.size, len(self.tokens))) for at in places]

    def _running(self, made: int) -> str:
        return self._told(made) if self.counts else ""

    def _told(self, made: int) -> str:
        tokens = self.tokens[:made]
        thought = tokens.index(END) if END in tokens else made
        thought -= EOS in tokens[:thought]
        return (
            f',"usage":{{"prompt_tokens":{len(PROMPT)},"total_tokens":{len(PROMPT) + made},"completion_tokens":{made},'
            f'"completion_tokens_details":{{"reasoning_tokens":{thought}}}}}'
        )
