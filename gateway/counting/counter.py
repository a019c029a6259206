"""How many tokens a prompt has, exactly: as the node will count it.

A prompt that cannot be counted (images, a history that only the node knows, a template that fails, one that takes too
long) is estimated instead, as all are where no tokenizer is configured; no request is refused for it.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from gateway.core.bodies import Body
from gateway.core.dialects.base import Ask, Dialect
from gateway.core.errors import InvalidRequest
from gateway.core.plan import as_asked, under_rules
from gateway.core.reading.outline import Outline
from gateway.core.thinking.policy import Policy
from gateway.core.thinking.sizes import BYTES_PER_TOKEN
from gateway.counting.conversation import NotCountable

log = structlog.get_logger("fleetgate.counting")

INLINE_BYTES = 2048
"""The largest body that is counted at once, in about a millisecond; others go to a thread, which takes about 0.5 s for
a megabyte and leaves the loop alone."""

PATIENCE = 1.0
"""Seconds after which a request goes on without its count."""

MAX_BYTES = 3 * 1024 * 1024
"""The largest body that is counted: what takes longer than anybody waits is not begun."""

_THREADS = 2

CountText = Callable[[str, bool], int]
"""The tokens of a text; whether to add what the tokenizer puts around one."""


class PromptCounter:
    """Counts the prompts of one model."""

    def __init__(self, model: str, count: CountText, render: Callable[[Body], str] | None) -> None:
        """`model` is for the log; `render` makes a chat request's body a prompt, None where there is no template."""
        self._model = model
        self._count = count
        self._render = render
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="counting")
        self._logged = False

    async def count(self, ask: Ask, dialect: Dialect, terms: Policy | None = None) -> int | None:
        """The tokens of the prompt of `ask` under `terms`: 0 where they have to be estimated, None where nothing is
        generated."""
        if not dialect.output_fields:
            return None
        if type(ask.body) is Outline:
            return 0
        try:
            if len(ask.raw) <= INLINE_BYTES:
                tokens = self._count_now(ask, dialect, terms)
            elif len(ask.raw) <= MAX_BYTES:
                loop = asyncio.get_running_loop()
                async with asyncio.timeout(PATIENCE):
                    tokens = await loop.run_in_executor(self._threads, self._count_now, ask, dialect, terms)
            else:
                return 0
        except Exception as error:  # noqa: BLE001 - templates and bodies fail in any way, and no request is refused for it
            self._log_once(error)
            return 0
        return tokens

    def _count_now(self, ask: Ask, dialect: Dialect, terms: Policy | None) -> int:
        if dialect.name == "completions":
            return self._count_prompts(ask.body)
        if ask.continues is not None:
            raise NotCountable("only its node knows the conversation that it continues")
        body = _as_sent(ask, dialect, terms)
        over = dialect.over_chat(body)
        if over is not None and not over.same_prompt:
            raise NotCountable("its tools depend on the dialect in which the node is asked")
        chat = body if over is None else over.chat
        if self._render is None:
            raise NotCountable("its model has no chat template")
        return self._count(self._render(chat), chat.get("add_special_tokens") is True)

    def _count_prompts(self, body: Body) -> int:
        """One text, several, token ids, or several lists of them."""
        prompt = body.get("prompt")
        if body.get("truncate_prompt_tokens") is not None or body.get("prompt_embeds") is not None:
            raise NotCountable("it has more parts than its prompt")
        if not isinstance(prompt, list) or all(type(item) is int for item in prompt):
            prompt = [prompt]
        special = body.get("add_special_tokens") is not False
        return sum(self._count_prompt(each, special) for each in prompt)

    def _count_prompt(self, prompt: object, special: bool) -> int:
        if isinstance(prompt, str):
            return self._count(prompt, special)
        if isinstance(prompt, list) and all(type(item) is int for item in prompt):
            return len(prompt)
        raise NotCountable("its format is not one that nodes accept")

    def _log_once(self, error: Exception) -> None:
        """The first error that the rules do not foresee; the metric counts them all."""
        if not self._logged and not isinstance(error, (NotCountable, InvalidRequest)):
            self._logged = True
            # Its text would quote the prompt: a template's own complaint names what it was given.
            log.warning("prompt_not_counted", model=self._model, reason=type(error).__name__)


def _as_sent(ask: Ask, dialect: Dialect, terms: Policy | None) -> Body:
    """The body with what the plan will change in it: templates read the switch of thinking, for one."""
    if terms is not None:
        _, changes = under_rules(ask, dialect, terms, None, BYTES_PER_TOKEN, None)
        return {**ask.body, **changes}
    if ask.intent.heeded:
        return ask.body
    return ask.body | dialect.carry(ask.body, as_asked(ask.intent, ask.max_tokens))
