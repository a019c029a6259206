"""The last hour of all processes, and what of it has changed since the viewers were sent it."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.console.history import (
    BINS,
    MEASURES,
    STEP,
    History,
    Step,
    Steps,
    add_up_steps,
    read_steps,
    spell_steps,
)


class HistoryFeed:
    """Steps are sent as lists: their number, their figures, and the bins of the times to the first token."""

    def __init__(self) -> None:
        self._steps: Steps = {}
        self._fresh: Steps = {}

    @staticmethod
    def spell(history: History) -> dict[str, list[list[int]]]:
        return spell_steps(history.models)

    @staticmethod
    def read(spelled: Mapping[str, Any], now: float) -> Steps:
        return read_steps(spelled, now)

    def merge(self, histories: Iterable[Mapping[str, Mapping[int, Step]]]) -> None:
        """Take over the steps of all processes; `changed` tells of them."""
        self._fresh = add_up_steps(histories)

    def changed(self) -> dict[str, list[list[int]]]:
        """The steps that viewers have to replace; those that are too old they drop by themselves."""
        found: Steps = {}
        for model, steps in self._fresh.items():
            before = self._steps.get(model, {})
            news = {number: step for number, step in steps.items() if before.get(number) != step}
            if news:
                found[model] = news
        self._steps = self._fresh
        return spell_steps(found)

    def whole(self) -> dict[str, Any]:
        return {"step": STEP, "measures": MEASURES, "bins": BINS, "models": spell_steps(self._steps)}
