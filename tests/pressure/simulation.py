"""What pressure is worth: the same requests in front of the same fleet, by three ways to deal with too much of them.

    python -m tests.pressure.simulation [--load 1.3] [--seconds 1800] [--seeds 5]

Objectives are on the time to the first token and to the end. A refused request misses both.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from gateway.config.pressure import Pressure
from gateway.core.pressure.early_ends import EarlyEndRules
from gateway.core.pressure.factor import TURN
from tests.pressure.fleet_model import FleetModel, Job, Scene, Way

RULES = Pressure(enabled=True).rules()
"""The gateway's defaults."""

WAYS = (
    Way("fixed budgets, a line without bound"),
    Way("fixed budgets, 429 beyond the objective", refuses=True),
    Way("elastic", factor=RULES.factor),
    Way(
        "elastic, running thoughts end early",
        factor=RULES.factor,
        early_ends=EarlyEndRules(RULES.factor.full),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares (0 to 1) of all requests that came under load, and means; `turns`: the most in any minute."""

    ttft: float
    end_to_end: float
    both: float
    refused: float
    granted: float
    thought: float
    shortened: float
    turns: int


def outcome(run: FleetModel) -> Outcome:
    scene, jobs = run.scene, [job for job in run.jobs if job.measured]
    served = [job for job in jobs if not job.refused]
    waits = {job: job.began - job.came <= scene.ttft for job in jobs}
    ends = {job: job.ended - job.came <= scene.end_to_end for job in jobs}
    return Outcome(
        ttft=_share(jobs, waits),
        end_to_end=_share(jobs, ends),
        both=_share(jobs, {job: waits[job] and ends[job] for job in jobs}),
        refused=1 - len(served) / len(jobs),
        granted=fmean(job.grant for job in served),
        thought=fmean(job.thought for job in served),
        shortened=fmean(job.thought < min(job.thinks, scene.budget) for job in served),
        turns=max((sum(at - TURN < other <= at for other in run.turns) for at in run.turns), default=0),
    )


def _share(jobs: Sequence[Job], kept: dict[Job, bool]) -> float:
    return fmean(kept[job] for job in jobs)


def compare(scene: Scene, ways: Sequence[Way], seeds: Sequence[int]) -> dict[str, list[Outcome]]:
    """Every way with every seed."""
    return {way.name: [outcome(FleetModel(scene, way, RULES.squeeze, seed).run()) for seed in seeds] for way in ways}


def table(found: dict[str, list[Outcome]]) -> str:
    """The means over the seeds, as a table in Markdown; of the turns the most."""
    rows = [
        "| way | TTFT kept | end kept | both | refused | mean budget | mean thinking | shortened | turns a minute |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, outcomes in found.items():
        shares = [
            fmean(getattr(each, field) for each in outcomes) for field in ("ttft", "end_to_end", "both", "refused")
        ]
        tokens = [fmean(getattr(each, field) for each in outcomes) for field in ("granted", "thought")]
        shortened, turns = fmean(each.shortened for each in outcomes), max(each.turns for each in outcomes)
        cells = [f"{100 * share:.0f} %" for share in shares] + [f"{count:,.0f}" for count in tokens]
        rows.append(f"| {' | '.join([name, *cells, f'{100 * shortened:.0f} %', str(turns)])} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", type=float, default=1.3)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    scene = Scene(load=given.load, seconds=given.seconds)
    print(table(compare(scene, WAYS, range(1, given.seeds + 1))))


if __name__ == "__main__":
    main()
