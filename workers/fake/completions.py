"""/v1/completions: raw text on texts or token ids; the place where a broken stream is continued."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.fake.errors import invalid
from workers.fake.generation import Answer, Step
from workers.fake.http1 import Exchange
from workers.fake.node import Node, Plain
from workers.fake.protocol import CompletionBody
from workers.fake.sampling import Sampling, check_model, check_raw, grammar_script, sampling, under_faults
from workers.fake.tokens import VOCABULARY
from workers.fake.wire import DONE, compact, ids_json, quoted, request_id, usage, without_nulls


@dataclass(frozen=True, slots=True)
class CompletionJob:
    """A completion request, ready to be answered: one prompt each."""

    body: CompletionBody
    prompts: tuple[tuple[list[int], Sampling], ...]
    id: str
    created: int

    @property
    def plan(self) -> Sampling:
        """The sampling of the first prompt; it differs between prompts in lengths only."""
        return self.prompts[0][1]


async def serve_completion(node: Node, exchange: Exchange) -> None:
    """Answers one request. Raises Refusal where vLLM refuses."""
    data = await node.read_json(exchange)
    job = read_completion(node, data, request_id(exchange, data.get("request_id")))
    prompts = tuple((ids, under_faults(plan, exchange.faults)) for ids, plan in job.prompts)
    job = replace(job, prompts=prompts)
    prompt = [i for ids, _ in job.prompts for i in ids]
    if job.body.stream:
        await node.stream(exchange, prompt, job.plan.salt, lambda s: completion_steps(node, job, s.cached, s.made))
    else:
        answers = [await node.make(ids, plan, raw=True) for ids, plan in job.prompts]
        await node.answer(exchange, whole_completion(node, job, answers))


def read_completion(node: Node, data: dict[str, Any], request: str) -> CompletionJob:
    """A body as a job. Raises Refusal (400, 404)."""
    check_raw(data)
    if data.get("prompt") in (None, "") and not data.get("prompt_embeds"):
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    body = node.validate(CompletionBody, data)
    if body.stream and body.use_beam_search:
        raise invalid("Streaming is not currently supported with beam search")
    check_model(body.model, node.settings)
    prompts = tuple(_prompts(node, body))
    return CompletionJob(body, prompts, f"cmpl-{request}", int(time.time()))


def _prompts(node: Node, body: CompletionBody) -> Iterator[tuple[list[int], Sampling]]:
    given = body.prompt
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    for prompt in several:
        ids = node.tokenizer.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt or ()]  # type: ignore[arg-type]
        if over := [i for i in ids if i >= VOCABULARY]:
            raise invalid(f"Token id {max(over)} is out of vocabulary")
        script = grammar_script(body, node.tokenizer)
        plan = sampling(body, body.max_tokens, ids, node.settings, script)
        wishes = replace(plan.wishes, afresh=script is not None)
        yield ids, replace(plan, logprobs=body.logprobs, wishes=wishes)


class CompletionLines:
    """Writes the chunks of one completion stream."""

    def __init__(self, node: Node, job: CompletionJob) -> None:
        model = quoted(node.settings.models[0])
        self._head = (
            f'data: {{"id":{quoted(job.id)},"object":"text_completion","created":{job.created},"model":{model},'
        )
        self._fingerprint = f',"system_fingerprint":{quoted(node.settings.fingerprint)}'
        self._marks_finish = not job.plan.usage
        self._with_ids = job.plan.token_ids

    def text(self, index: int, text: str, step: Step, prompt: Sequence[int] | None, logprobs: str, usage: str) -> bytes:
        """One chunk; `prompt` are the prompt's ids where they are told."""
        finish = compact(step.finish)
        mark = self._fingerprint if step.finish and self._marks_finish else ""
        return (
            f'{self._head}"choices":[{{"index":{index},"text":{quoted(text)},"logprobs":{logprobs},'
            f'"finish_reason":{finish},"stop_reason":{compact(step.stop_reason)},'
            f'"prompt_token_ids":{ids_json(prompt)},"token_ids":{ids_json(step.ids if self._with_ids else None)}'
            f"}}]{usage}{mark}}}\n\n"
        ).encode()

    def usage(self, shown: dict[str, Any]) -> bytes:
        """The usage chunk."""
        return f'{self._head}"choices":[],"usage":{compact(without_nulls(shown))}{self._fingerprint}}}\n\n'.encode()


class CompletionVoice:
    """One choice of a completion stream."""

    def __init__(self, node: Node, job: CompletionJob, lines: CompletionLines, index: int) -> None:
        which, salt = divmod(index, job.plan.n)
        self._prompt, plan = job.prompts[which]
        self.answer = Answer(node.tokenizer, self._prompt, plan, salt, raw=True)
        self._node, self._job, self._lines, self._index = node, job, lines, index
        self._offset = 0
        self._told = not plan.token_ids
        self._echo = node.tokenizer.decode(self._prompt) if job.body.echo else ""

    def step(self, made: list[int]) -> bytes:
        """The chunk of the next decoding step."""
        step = self.answer.step(self._node.settings.tokens_per_event)
        made += step.ids
        text = self._echo + "".join(piece for _, piece in step.segments)
        prompt = None if self._told else self._prompt
        self._told, self._echo = True, ""
        logprobs = "null"
        if self._job.plan.logprobs is not None:
            shown = completion_logprobs(self._node, step.ids, self._job.plan.logprobs, self._offset)
            self._offset += sum(map(len, shown["tokens"]))
            logprobs = compact(shown)
        return self._lines.text(self._index, text, step, prompt, logprobs, self._usage())

    def _usage(self) -> str:
        if not self._job.plan.running_usage:
            return ""
        shown = usage(self._node.settings, len(self._prompt), self.answer.made)
        return f',"usage":{compact(without_nulls(shown))}'


def completion_steps(node: Node, job: CompletionJob, cached: int, made: list[int]) -> Iterator[Sequence[bytes]]:
    """The stream's events, step by step; `made` collects the tokens for the prefix cache."""
    lines = CompletionLines(node, job)
    voices = [CompletionVoice(node, job, lines, i) for i in range(job.plan.n * len(job.prompts))]
    talking = voices
    while talking:
        step = [voice.step(made) for voice in talking]
        talking = [v for v in talking if v.answer.finish is None]
        if not talking:
            step += _closing(node, job, lines, voices, cached)
        yield step


def _closing(
    node: Node, job: CompletionJob, lines: CompletionLines, voices: Sequence[CompletionVoice], cached: int
) -> list[bytes]:
    if not job.plan.usage:
        return [DONE]
    prompt = sum(len(ids) for ids, _ in job.prompts)
    return [lines.usage(usage(node.settings, prompt, sum(v.answer.made for v in voices), None, cached)), DONE]


def completion_logprobs(node: Node, ids: Sequence[int], top: int, offset: int) -> dict[str, Any]:
    """`logprobs` of a completion choice; offsets in characters."""
    tokens = [node.tokenizer.decode([i]) for i in ids]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    tops = [{node.tokenizer.decode([i + k]): -0.125 - 2.0 * k for k in range(max(top, 1))} for i in ids]
    return {"text_offset": offsets, "token_logprobs": [-0.125] * len(ids), "tokens": tokens, "top_logprobs": tops}


def whole_completion(node: Node, job: CompletionJob, answers: Sequence[Plain]) -> dict[str, Any]:
    """The body of a plain answer, with vLLM's null members in vLLM's order."""
    steps = [(ids, step) for (ids, _), plain in zip(job.prompts, answers, strict=True) for step in plain.steps]
    prompt = sum(len(ids) for ids, _ in job.prompts)
    shown: dict[str, Any] = {
        "id": job.id,
        "object": "text_completion",
        "created": job.created,
        "model": node.settings.models[0],
        "choices": [_whole_choice(node, job, i, ids, step) for i, (ids, step) in enumerate(steps)],
        "service_tier": None,
        "system_fingerprint": node.settings.fingerprint,
        "usage": usage(node.settings, prompt, sum(a.made for a in answers), None, answers[-1].cached),
        "kv_transfer_params": None,
    }
    return {**shown, "ec_transfer_params": None, "metrics": None} if node.settings.is_032 else shown


def _whole_choice(node: Node, job: CompletionJob, index: int, prompt: list[int], step: Step) -> dict[str, Any]:
    logprobs = job.plan.logprobs
    text = "".join(piece for _, piece in step.segments)
    return {
        "index": index,
        "text": node.tokenizer.decode(prompt) + text if job.body.echo else text,
        "logprobs": None if logprobs is None else completion_logprobs(node, step.ids, logprobs, 0),
        "finish_reason": step.finish,
        "stop_reason": step.stop_reason,
        "token_ids": step.ids if job.plan.token_ids else None,
        "prompt_logprobs": None,
        "prompt_token_ids": prompt if job.plan.token_ids else None,
        "routed_experts": None,
    }
