"""The chunks of a chat stream."""

from collections.abc import Iterator, Sequence
from typing import Any

from workers.fake.chat_job import ChatJob
from workers.fake.chat_parts import chat_logprobs, split_step
from workers.fake.generation import Answer, Step, merged
from workers.fake.node import Node
from workers.fake.toolcalls import ToolReader
from workers.fake.wire import DONE, compact, created_cache, ids_json, quoted, usage, without_nulls


class ChatLines:
    """Writes the chunks of one chat stream: everything that does not change is made once."""

    def __init__(self, node: Node, job: ChatJob) -> None:
        model = quoted(node.settings.models[0])
        self._head = (
            f'data: {{"id":{quoted(job.id)},"object":"chat.completion.chunk","created":{job.created},"model":{model},'
        )
        self._ids = job.plan.token_ids and job.body.include_reasoning
        self._hide = not job.body.include_reasoning
        self._field = node.settings.reasoning_field
        self._role = quoted(job.role)
        self._fingerprint = f',"system_fingerprint":{quoted(node.settings.fingerprint)}'
        self._node, self._job = node, job

    def role(self, index: int, usage_json: str) -> bytes:
        """The first chunk of a choice."""
        ids = ids_json(self._job.prompt if self._job.plan.token_ids else None)
        return (
            f'{self._head}"choices":[{{"index":{index},"delta":{{"role":{self._role},"content":""}},"logprobs":null,'
            f'"finish_reason":null}}]{usage_json},"prompt_token_ids":{ids},"prompt_text":null}}\n\n'
        ).encode()

    def delta(self, index: int, step: Step, parts: str, finish: str | None, usage_json: str, logprobs: str) -> bytes:
        """One chunk with a delta's members as JSON."""
        ids = ids_json(step.ids if self._ids else None)
        end = (
            f'"finish_reason":{quoted(finish)},"stop_reason":{compact(step.stop_reason)}'
            if finish
            else '"finish_reason":null'
        )
        mark = self._fingerprint if finish and not self._job.plan.usage else ""
        return (
            f'{self._head}"choices":[{{"index":{index},"delta":{{{parts}}},"logprobs":{logprobs},{end},'
            f'"token_ids":{ids}}}]{usage_json}{mark}}}\n\n'
        ).encode()

    def usage(self, shown: dict[str, Any]) -> bytes:
        """The usage chunk."""
        return f'{self._head}"choices":[],"usage":{compact(without_nulls(shown))}{self._fingerprint}}}\n\n'.encode()


def chat_steps(node: Node, job: ChatJob, cached: int, made: list[int]) -> Iterator[Sequence[bytes]]:
    """The stream's events, step by step; `made` collects the tokens for the prefix cache. A beam search says nothing
    before its end."""
    lines = ChatLines(node, job)
    voices = [ChatVoice(node, job, lines, i) for i in range(job.plan.n)]
    events = [voice.opening() for voice in voices]
    open_voices = voices
    while open_voices:
        events += [event for voice in open_voices if (event := voice.step(made)) is not None]
        open_voices = [v for v in open_voices if v.answer.finish is None]
        if open_voices and job.plan.beams:
            yield ()
            continue
        if not open_voices:
            events += _closing(node, job, lines, voices, cached)
        yield events
        events = []


def _closing(node: Node, job: ChatJob, lines: ChatLines, voices: Sequence["ChatVoice"], cached: int) -> list[bytes]:
    if not job.plan.usage:
        return [DONE]
    made, prompt = sum(v.answer.made for v in voices), len(job.prompt)
    thought = node.thought(sum(v.answer.reasoning_tokens for v in voices))
    created = created_cache(node.settings, prompt, cached)
    return [lines.usage(usage(node.settings, prompt, made, thought, cached, created)), DONE]


class ChatVoice:
    """One choice of a chat stream: its answer, its tool parser, its chunks."""

    def __init__(self, node: Node, job: ChatJob, lines: ChatLines, index: int) -> None:
        self.answer = Answer(node.tokenizer, job.prompt, job.plan, index, raw=False)
        self._tools = ToolReader(job.types) if job.reads_tools else None
        self._node, self._job, self._lines, self._index = node, job, lines, index
        self._beam: list[Step] = []

    def opening(self) -> bytes:
        """The role chunk."""
        return self._lines.role(self._index, self._usage())

    def step(self, made: list[int]) -> bytes | None:
        """The chunk of the next decoding step; None where the step is silent."""
        step = self.answer.step(self._node.settings.tokens_per_event)
        made += step.ids
        if self._job.plan.beams:
            self._beam.append(step)
            if step.finish is None:
                return None
            step = merged(self._beam)
        parts = self._parts(step)
        plan, hidden = self._job.plan, not self._job.body.include_reasoning
        silent = not parts and step.finish is None
        if silent and (hidden or not (plan.token_ids or plan.logprobs is not None)):
            return None
        logprobs = "null"
        if plan.logprobs is not None and not hidden:
            logprobs = compact(chat_logprobs(self._node, step.ids, plan.logprobs))
        return self._lines.delta(self._index, step, parts, self._finish(step), self._usage(), logprobs)

    def _parts(self, step: Step) -> str:
        segments = step.segments
        if len(segments) == 1 and self._tools is None:  # nearly every event
            part, text = segments[0]
            if part == "content" or not self._node.settings.reasoning_parser:
                return f'"content":{quoted(text)}'
            return f'"{self._node.settings.reasoning_field}":{quoted(text)}' if self._job.body.include_reasoning else ""
        message = split_step(self._node, self._job, step, self._tools)
        return compact(message)[1:-1]

    def _finish(self, step: Step) -> str | None:
        called = self._tools is not None and bool(self._tools.calls) and not self._job.named
        return "tool_calls" if step.finish == "stop" and called else step.finish

    def _usage(self) -> str:
        if not self._job.plan.running_usage:
            return ""
        thought = self._node.thought(self.answer.reasoning_tokens)
        shown = usage(self._node.settings, len(self._job.prompt), self.answer.made, thought)
        return f',"usage":{compact(without_nulls(shown))}'
