"""`python -m tests.fuzz`: fuzzes for some seconds, tells what was found, and ends with 1 where that is anything.

--seconds 300     how long, all kinds together
--seed 1          what is drawn; the same seed draws the same inputs
--kind bodies     one kind only: bodies, plans, heads or talks
--mode Redis      one mode only (see modes.py)
"""

import argparse
import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from tests.counting.test_counting import build
from tests.fuzz.bodies import fuzz_bodies
from tests.fuzz.heads import fuzz_heads
from tests.fuzz.modes import modes
from tests.fuzz.plans import fuzz_plans
from tests.fuzz.talks import fuzz_talks
from tests.fuzz.trial import Finding, Trial, trial
from tests.support.redis import redis_server

KINDS: dict[str, tuple[Callable[[Trial, range], Awaitable[None]], int]] = {
    "bodies": (fuzz_bodies, 2000),
    "plans": (fuzz_plans, 5000),
    "heads": (fuzz_heads, 2000),
    "talks": (fuzz_talks, 500),
}
"""What is fuzzed, and how many inputs a gateway gets before it is looked for leaks and the next one has its turn."""


async def fuzz(seconds: float, seed: int, kinds: list[str], only: str | None) -> list[Finding]:
    """All kinds in all modes in turn, until the time is over."""
    end = time.monotonic() + seconds
    findings: list[Finding] = []
    done: Counter[str] = Counter()
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        build(folder)
        redis = await stack.enter_async_context(redis_server())
        number = 0
        while time.monotonic() < end:
            for mode, settings in modes(folder, redis.settings).items():
                if only in (None, mode):
                    for kind in kinds:
                        send, count = KINDS[kind]
                        async with trial(mode, settings, seed) as running:
                            await send(running, range(number, number + count))
                        number += count
                        done[kind] += count
                        done.update({f"{kind} {what}": often for what, often in running.done.items()})
                        findings += _told(running.findings)
                if time.monotonic() > end:
                    break
            print(f"seed {seed}: {dict(done)}, found {len(findings)}", flush=True)
    return findings


def _told(findings: list[Finding]) -> list[Finding]:
    for finding in findings:
        print(f"{finding.keep()}: {finding.mode}: {finding.fault[-1500:]}", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--mode")
    chosen = parser.parse_args()
    kinds = [chosen.kind] if chosen.kind else list(KINDS)
    found = uvloop.run(fuzz(chosen.seconds, chosen.seed, kinds, chosen.mode))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
