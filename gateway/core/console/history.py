"""The last hour of a process, by model, in steps of ten seconds: what the console draws without a database.

Tokens are known when a request ends. They are spread over the steps in which its answer came, so that a long answer is
no spike at its end. Steps are numbered since 1970, so those of several processes are added up by number.
"""

from collections.abc import Iterable, Mapping
from math import log2
from typing import Any

from gateway.core.telemetry.folded import OTHER
from gateway.core.telemetry.request_stats import RequestStats

STEP = 10
"""Seconds."""

STEPS = 360
"""Steps that are kept: an hour."""

MODELS = 12
"""Models with figures of their own; further ones are counted as `OTHER`."""

NONE = "-"

MEASURES = ("requests", "errors", "thinking", "answer", "input", "waiting")
"""The figures of a step, in this order; behind them stand the bins of the times to the first token. `waiting` is the
most that waited for a place at once, the rest are sums."""

BINS = 24
_WAITING = MEASURES.index("waiting")
_WIDTH = len(MEASURES) + BINS

Step = list[int]
Steps = dict[str, dict[int, Step]]
"""By model, by number."""


def bin_of(seconds: float) -> int:
    """The bin of a time to the first token: half a power of two each, from 10 ms on."""
    return min(BINS - 1, max(0, int(2 * log2(max(seconds, 0.01) / 0.01))))


class History:
    """Of one process. `now` and times are seconds since 1970."""

    def __init__(self) -> None:
        self._models: Steps = {}

    @property
    def models(self) -> Mapping[str, Mapping[int, Step]]:
        return self._models

    def note(self, ended: Iterable[RequestStats], now: float) -> None:
        """Add requests that have ended by `now`."""
        for event in ended:
            self._note(event, now)

    def note_waiting(self, model: str, waiting: int, now: float) -> None:
        """So many wait for a place at `now`."""
        if waiting:
            step = self._step(model, int(now) // STEP)
            step[_WAITING] = max(step[_WAITING], waiting)

    def forget(self, now: float) -> None:
        """Drop the steps that are older than an hour, and the models that have none left."""
        oldest = int(now) // STEP - STEPS
        for name, steps in list(self._models.items()):
            for number in [each for each in steps if each <= oldest]:
                del steps[number]
            if not steps:
                del self._models[name]

    def _note(self, event: RequestStats, now: float) -> None:
        model = event.model or NONE
        end = min(event.at, now)
        last = int(end) // STEP
        step = self._step(model, last)
        step[0] += 1
        if event.ending != "ok" and event.level != "info":
            step[1] += 1
        if event.stream and event.ttft is not None:
            step[len(MEASURES) + bin_of(event.ttft)] += 1
        usage = event.usage
        if usage is None:
            return
        step[4] += usage.input
        thinking = min(usage.reasoning or 0, usage.output)
        seconds = max(0.0, event.duration - (event.ttft or 0.0)) if event.stream else event.duration
        first = max(int(end - seconds) // STEP, last - STEPS + 1)
        count = last - first + 1
        if count == 1:
            step[2] += thinking
            step[3] += usage.output - thinking
            return
        for at, number in enumerate(range(first, last + 1)):
            part = self._step(model, number)
            part[2] += _share(thinking, at, count)
            part[3] += _share(usage.output - thinking, at, count)

    def _step(self, model: str, number: int) -> Step:
        if model not in self._models and len(self._models) >= MODELS:
            model = OTHER
        steps = self._models.setdefault(model, {})
        found = steps.get(number)
        if found is None:
            found = steps[number] = [0] * _WIDTH
        return found


def _share(total: int, at: int, count: int) -> int:
    """Part `at` of `total` in `count` parts that differ by one at the most."""
    return total * (at + 1) // count - total * at // count


def add_up_steps(histories: Iterable[Mapping[str, Mapping[int, Step]]]) -> Steps:
    """Those of several processes."""
    sums: Steps = {}
    for models in histories:
        for model, steps in models.items():
            name = model if model in sums or len(sums) < MODELS else OTHER
            total = sums.setdefault(name, {})
            for number, step in steps.items():
                known = total.get(number)
                total[number] = list(step) if known is None else [a + b for a, b in zip(known, step, strict=True)]
    return sums


def spell_steps(models: Mapping[str, Mapping[int, Step]]) -> dict[str, list[list[int]]]:
    """As JSON takes them: each step a list, its number first, without the zeros at its end."""
    return {model: [[number, *_cut(step)] for number, step in steps.items()] for model, steps in models.items()}


def read_steps(spelled: Mapping[str, Any], now: float) -> Steps:
    """What `spell_steps` made. Raises ValueError or TypeError where it is something else."""
    oldest, newest = int(now) // STEP - STEPS, int(now) // STEP + 1
    found: Steps = {}
    for model, steps in spelled.items():
        whole = {int(number): [*map(int, step[:_WIDTH]), *[0] * (_WIDTH - len(step))] for number, *step in steps}
        found[str(model)] = {number: step for number, step in whole.items() if oldest < number <= newest}
    return found


def _cut(step: Step) -> Step:
    end = len(step)
    while end and not step[end - 1]:
        end -= 1
    return step[:end]
