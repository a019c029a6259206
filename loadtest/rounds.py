"""Paired rounds: in each one every proxy is measured in turn, so that all of them meet the same machine."""

import subprocess
from collections.abc import Callable, Sequence

from loadtest.measure import Extent, Sample, take
from loadtest.processes import StartError
from loadtest.proxies import Proxy
from loadtest.results import DIRECT

Say = Callable[[str], None]
Take = Callable[[Proxy | None, Extent], Sample]


def order(names: Sequence[str], turn: int) -> list[str]:
    """The names, begun one further each round: no proxy always comes first, or always after the same one."""
    cut = turn % len(names)
    return [*names[cut:], *names[:cut]]


def run_rounds(
    proxies: Sequence[Proxy], extent: Extent, count: int, say: Say, measure: Take = take
) -> list[dict[str, Sample]]:
    """Measure `direct` and every proxy `count` times. One that fails misses that round, and is told."""
    return [run_round(proxies, extent, turn, say, measure) for turn in range(count)]


def run_round(proxies: Sequence[Proxy], extent: Extent, turn: int, say: Say, measure: Take) -> dict[str, Sample]:
    """One round."""
    candidates: dict[str, Proxy | None] = {DIRECT: None} | {proxy.name: proxy for proxy in proxies}
    found = {}
    for name in order(list(candidates), turn):
        try:
            found[name] = measure(candidates[name], extent)
        except (StartError, subprocess.SubprocessError, OSError) as error:
            say(f"round {turn + 1}: {name} failed: {error}")
            continue
        say(f"round {turn + 1}: {name}: {line(found[name])}")
    return found


def line(sample: Sample) -> str:
    """One sample in short, for the eye while it runs."""
    said = f"{sample.cpu_per_request:.0f} µs a request, {sample.cpu_per_event:.1f} µs an event"
    if sample.share_of_offered < 0.95:
        said += f", SATURATED: relayed {sample.share_of_offered:.0%} of the events"
    return said + (f", {sample.broken} BROKEN" if sample.broken else "")
