"""What answers that have broken off may cost: resumes of each model, and looks for a node of all that wait for one."""

from gateway.core.resume.budget import ResumeBudget
from gateway.core.resume.node_deaths import NodeDeaths
from gateway.core.resume.resumability import ResumeRules

STEP = 0.05
"""Seconds between two looks for a node."""

VAIN_LOOKS = 500.0
"""Looks a second that may find no node, of all answers of a model: each costs up to a millisecond of the event loop."""

AT_ONCE = 50
"""Answers that wait with a look every `STEP`; where more do, each looks less often."""

LONGEST_STEP = 1.0
"""Seconds between two looks of one answer, at the most."""


class ResumeBudgets:
    """What resumes may cost each model, and what waiting may cost the process. `closing`: the process ends, and nothing
    is resumed any more. `waiting`: answers that wait for a node."""

    def __init__(self, rules: ResumeRules) -> None:
        self.closing = False
        self.waiting = 0
        self._next_looks: dict[str | None, float] = {}
        """By model: the loop time from which an answer may look for a node again."""
        self._wanted_until: dict[str | None, float] = {}
        """By model: the loop time until which a place that becomes free is an answer's that waits for one."""
        self._budgets: dict[str | None, ResumeBudget] = {}
        self._deaths: dict[str | None, NodeDeaths] = {}
        self.configure(rules)

    def configure(self, rules: ResumeRules) -> None:
        """Go by `rules` from now on."""
        self.rules = rules
        for budget in self._budgets.values():
            budget.rate = rules.rate

    def deaths(self, model: str | None) -> NodeDeaths:
        """Of the nodes of `model`."""
        return self._deaths.setdefault(model, NodeDeaths())

    def take(self, model: str | None, now: float, open_answers: int) -> bool:
        """Whether one more answer of `model`, of which `open_answers` are open, may go on at loop time `now`."""
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = ResumeBudget(self.rules.rate)
        return budget.take(now, open_answers) <= 0

    def give_back(self, model: str | None) -> None:
        """What was taken is not used: no node has a place."""
        self._budgets[model].give_back()

    @property
    def step(self) -> float:
        """Seconds until an answer that waits looks again."""
        return min(LONGEST_STEP, STEP * max(1.0, self.waiting / AT_ONCE))

    def may_look(self, model: str | None, now: float) -> bool:
        """Whether one more answer of `model` may look for a node at loop time `now`, which may be in vain."""
        return now >= self._next_looks.get(model, now)

    def looked_in_vain(self, model: str | None, now: float) -> None:
        """A look found no node. Those of one `STEP` may come at once."""
        self._next_looks[model] = max(self._next_looks.get(model, 0.0), now - STEP) + 1 / VAIN_LOOKS
        self._wanted_until[model] = now + 2 * self.step

    def wants_place(self, model: str, now: float) -> bool:
        """Whether an answer of `model` has looked for a place in vain, and looks again soon: it goes before requests
        that have not begun."""
        return self.waiting > 0 and now < self._wanted_until.get(model, now)

    def found(self, model: str | None) -> None:
        """A look found a node."""
        self._wanted_until.pop(model, None)
