"""From what a load heard to its figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.bench.answers import Answer
from workers.bench.load import Heard
from workers.bench.pages import NodeCounts, counts_between
from workers.gpus.reading import GpuReading

BUSY_CLIENT = 0.8
OTHERS = 1.1
OTHERS_LEAST = 50
BUSY_GPU = 0.8
"""The checklist's: every GPU of a node that works is above it."""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The mean use of each GPU over the window, 0 to 1, by its index; empty where it is not known."""

    by_index: tuple[tuple[int, float], ...] = ()

    @property
    def least(self) -> float | None:
        """Of the GPU that does least."""
        return min((use for _, use in self.by_index), default=None)

    @property
    def spread(self) -> float | None:
        """Between the GPU that does most and the one that does least."""
        return max(use for _, use in self.by_index) - min(use for _, use in self.by_index) if self.by_index else None

    @property
    def below(self) -> tuple[int, ...]:
        """GPUs below the checklist's 80%."""
        return tuple(index for index, use in self.by_index if use < BUSY_GPU)


@dataclass(frozen=True, slots=True)
class Figures:
    """One load's result. Rates are tokens a second of the whole node within the window of `seconds`; times in seconds;
    `user_rate`: output tokens a second of one answer, the median. None: there was nothing to take it from."""

    load: str
    users: int | None
    rate: float | None
    seconds: float
    whole: int
    failures: tuple[tuple[str, int], ...]
    cut: int
    unsent: int
    tokens_in: float
    tokens_out: float
    ttft: tuple[float | None, float | None]
    itl: tuple[float | None, float | None]
    user_rate: float | None
    node: NodeCounts
    gpus: GpuUse = GpuUse()
    remarks: tuple[str, ...] = field(default_factory=tuple)

    @property
    def failed(self) -> int:
        """Requests that failed."""
        return sum(count for _, count in self.failures)


def make_figures(heard: Heard, gpus: GpuUse = GpuUse()) -> Figures:
    """The figures of a load, a partial one included."""
    since, until = heard.since, heard.until
    seconds = max(until - since, 1e-9)
    answers = heard.answers
    out = sum(_tokens_within(answer, since, until) for answer in answers)
    begun = [a for a in answers if a.first is not None and since <= a.first <= until]
    gaps = sorted(
        later - earlier
        for answer in answers
        for earlier, later in zip(answer.events, answer.events[1:], strict=False)
        if since <= later <= until
    )
    waited = begun or [answer for answer in answers if answer.first is not None]
    ttfts = sorted((answer.first or 0.0) - answer.sent for answer in waited)
    counts = counts_between(heard.before, heard.after)
    failures = Counter(answer.failure for answer in answers if answer.failure is not None)
    return Figures(
        load=heard.load.told,
        users=heard.load.users,
        rate=heard.load.rate,
        seconds=seconds,
        whole=sum(answer.whole for answer in answers),
        failures=tuple(failures.most_common()),
        cut=heard.in_flight,
        unsent=heard.unsent,
        tokens_in=sum(answer.prompt_tokens or 0 for answer in begun) / seconds,
        tokens_out=out / seconds,
        ttft=(quantile(ttfts, 0.5), quantile(ttfts, 0.99)),
        itl=(quantile(gaps, 0.5), quantile(gaps, 0.99)),
        user_rate=quantile(sorted(filter(None, map(_rate_of, answers))), 0.5),
        node=counts,
        gpus=gpus,
        remarks=tuple(_remarks(heard, counts, out, bool(waited) and not begun)),
    )


def mean_use(rounds: Sequence[tuple[float, tuple[GpuReading, ...]]], since: float, until: float) -> GpuUse:
    """The mean use of each GPU over the readings within the window."""
    uses: dict[int, list[float]] = {}
    for at, readings in rounds:
        for reading in readings if since <= at <= until else ():
            if reading.use is not None:
                uses.setdefault(reading.index, []).append(reading.use)
    return GpuUse(tuple((index, sum(seen) / len(seen)) for index, seen in sorted(uses.items())))


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The value below which `share` (0 to 1) of them lie; None of nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def _tokens_within(answer: Answer, since: float, until: float) -> float:
    """Its tokens, laid evenly on the events that brought them (with MTP an event brings several)."""
    if not answer.events:
        return 0.0
    each = answer.tokens / len(answer.events)
    return each * sum(since <= at <= until for at in answer.events)


def _rate_of(answer: Answer) -> float | None:
    """Tokens a second from its first event to its last one."""
    if len(answer.events) < 2 or answer.events[-1] <= answer.events[0]:
        return None
    each = answer.tokens / len(answer.events)
    return (answer.tokens - each) / (answer.events[-1] - answer.events[0])


def _remarks(heard: Heard, counts: NodeCounts, out: float, early: bool) -> list[str]:
    found = []
    seconds = max(heard.until - heard.since, 1e-9)
    if early:
        found.append("every first token came before the window: TTFT is that of the users' start")
    if heard.ended:
        found.append(f"ended after {seconds:.1f} s: {heard.ended}")
    if heard.cpu_seconds / seconds > BUSY_CLIENT:
        found.append(f"this client used {100 * heard.cpu_seconds / seconds:.0f}% of a core: the node may be faster")
    if counts.generated is not None and counts.generated > OTHERS * out + OTHERS_LEAST:
        found.append(f"the node made {counts.generated:,.0f} tokens, {out:,.0f} of them here: others use it too")
    return found
