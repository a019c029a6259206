"""What is to be measured, read from the command line's words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.bench.ladder import Step
from workers.bench.load import Load
from workers.bench.node import MeasuredNode
from workers.bench.trace import TraceEntry, read_trace
from workers.bench.workloads import SHAPES, TEMPLATE_TOKENS, Asker, ShapedAsker, TraceAsker, fit
from workers.errors import ConfigError

TRACE = "trace"
RAMP_SHARE = 0.2
"""Of the window: the seconds over which users begin."""
USUAL_USERS = 64
MOST_USERS = 4096
MOST_RATE = 10_000.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`users` or `rates`: chosen loads, empty for a ladder up to `most_users`. `scale` multiplies all lengths; `window`
    and `timeout` in seconds; `requests`: at most for one load."""

    workloads: tuple[str, ...]
    trace: Path | None
    users: tuple[int, ...]
    rates: tuple[float, ...]
    most_users: int
    scale: float
    window: float
    requests: int
    timeout: float

    @property
    def chosen(self) -> bool:
        """Whether somebody has chosen the loads."""
        return bool(self.users or self.rates)

    @property
    def loads(self) -> list[Load]:
        """From light to heavy."""
        ramp = RAMP_SHARE * self.window
        if self.rates:
            return [Load(None, rate, ramp, self.window, self.requests, self.timeout) for rate in self.rates]
        users = self.users or doubled(self.most_users)
        return [Load(each, None, ramp, self.window, self.requests, self.timeout) for each in users]


def doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4 ... and `most` itself."""
    steps = [1]
    while steps[-1] * 2 < most:
        steps.append(steps[-1] * 2)
    return tuple(dict.fromkeys((*steps, most)))


def choose_workloads(names: Sequence[str], trace: Path | None) -> tuple[str, ...]:
    """The workloads by their names; without any, all, the trace where there is one. Raises ConfigError."""
    known = (*SHAPES, TRACE)
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ConfigError(f"unknown workload {wrong[0]!r}; known: {', '.join(known)}")
    if TRACE in names and trace is None:
        raise ConfigError("--workload trace needs --trace FILE, in the mooncake format")
    return tuple(dict.fromkeys(names)) or (*SHAPES, *((TRACE,) if trace is not None else ()))


def read_numbers(option: str, text: str | None, most: float) -> tuple[float, ...]:
    """Numbers above 0 with commas between them, sorted. Raises ConfigError."""
    try:
        numbers = sorted({float(part) for part in text.split(",")}) if text else []
    except ValueError:
        numbers = [0.0]
    if any(not 0 < number <= most for number in numbers):
        raise ConfigError(f"{option} {text!r}: expected numbers above 0 and up to {most:g}, such as 1,2,4")
    return tuple(numbers)


def read_users(text: str | None) -> tuple[int, ...]:
    """Whole numbers of users. Raises ConfigError."""
    numbers = read_numbers("--users", text, MOST_USERS)
    if any(number != int(number) for number in numbers):
        raise ConfigError(f"--users {text!r}: expected whole numbers, such as 1,2,4")
    return tuple(int(number) for number in numbers)


def steps_of(settings: Settings, node: MeasuredNode, run: str) -> dict[str, list[Step]]:
    """The steps of each workload. Raises ConfigError for a trace that cannot be read or does not fit."""
    entries = read_trace(settings.trace) if TRACE in settings.workloads and settings.trace is not None else []
    return {
        name: _trace_steps(settings, entries, node, run) if name == TRACE else _shaped_steps(settings, name, node, run)
        for name in settings.workloads
    }


def _shaped_steps(settings: Settings, name: str, node: MeasuredNode, run: str) -> list[Step]:
    asker = ShapedAsker(fit(SHAPES[name], settings.scale, node.context), run, node.per_word)
    return [Step(name, load, lambda: asker) for load in settings.loads]


def _trace_steps(settings: Settings, entries: Sequence[TraceEntry], node: MeasuredNode, run: str) -> list[Step]:
    """Each load begins the trace anew, with other texts: the earlier ones are in the node's cache."""
    room = node.context - TEMPLATE_TOKENS

    def maker(number: int, load: Load) -> Callable[[], Asker]:
        return lambda: TraceAsker(entries, settings.scale, room, f"{run}/{number}", node.per_word, load.rate)

    maker(0, settings.loads[0])()  # says now what does not fit
    return [Step(TRACE, load, maker(number, load)) for number, load in enumerate(settings.loads)]
