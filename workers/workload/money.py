"""What the fleet of a workload costs a month: on demand, on spot machines, mixed, and at an API.

A spot machine is taken back now and then. The gateway goes on with its answers on other nodes (docs/resume.md), so
nothing is lost but work: the prompt and the answer so far of each running request are computed again, and so is the
cached prefix of each pausing conversation at its next turn. Until a machine is back the others carry its load, so spare
machines are counted for the time that a start takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.catalog.prices import ApiPrice, Price
from workers.cost import SECONDS_PER_HOUR
from workers.workload.sizing import Sizing

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Preemption:
    """What it costs when one node is taken back. Tokens are computed again, on `survivors` other nodes.

    `pause` is the average time in seconds until a running answer goes on: half of the running requests are computed
    before it. None where no other node is left: then answers wait for a new machine, as long as their clients do.
    """

    running: float
    running_tokens: float
    prefix_tokens: float
    survivors: int
    node_seconds: float
    usd: float
    pause: float | None

    @property
    def tokens(self) -> float:
        """All that is computed again."""
        return self.running_tokens + self.prefix_tokens


@dataclass(frozen=True, slots=True)
class Mix:
    """A fleet of steady and spot nodes, spares among them, and what it costs a month in US dollars.

    `left` is the share of the needed nodes that stays when all spot machines are taken back at once.
    """

    steady: int
    spot: int
    spares: int
    machines_usd: float
    preemptions: float
    preemptions_usd: float
    left: float

    @property
    def usd(self) -> float:
        """A month of all of it."""
        return self.machines_usd + self.preemptions_usd


@dataclass(frozen=True, slots=True)
class ApiCost:
    """The same turns at an API, a month in US dollars."""

    api: ApiPrice
    usd: float


def preemption_of(sizing: Sizing, usd_per_node_hour: float) -> Preemption:
    """What one node's end costs; the work is priced at a node's hour."""
    workload, state, survivors = sizing.workload, sizing.busiest, sizing.nodes - 1
    running = state.prefilling * workload.input + state.decoding * (workload.input + workload.output / 2)
    prefixes = max(0.0, state.agents - state.running) * workload.cached_tokens
    seconds = (running + prefixes) / sizing.speed.prefill
    half = running / sizing.speed.prefill / survivors / 2 if survivors else 0.0
    own = (workload.input + workload.output / 2) / sizing.speed.prefill
    return Preemption(
        running=state.running,
        running_tokens=running,
        prefix_tokens=prefixes,
        survivors=survivors,
        node_seconds=seconds,
        usd=seconds / SECONDS_PER_HOUR * usd_per_node_hour,
        pause=half + own if survivors else None,
    )


def mixes_of(sizing: Sizing, prices: Sequence[Price], preemptions_per_day: float) -> tuple[Mix, ...]:
    """Fleets from no spot node to only such, as far as prices are known; on demand before reserved."""
    gpus = sizing.profile.hardware.gpus
    steady = next((price.usd_per_gpu_hour * gpus for price in prices if price.kind != "spot"), None)
    spot = next((price.usd_per_gpu_hour * gpus for price in prices if price.kind == "spot"), None)
    if steady is None and spot is None:
        return ()
    shares = SHARES if None not in (steady, spot) else ((0.0,) if spot is None else (1.0,))
    counts = sorted({math.floor(share * sizing.nodes + 0.5) for share in shares})
    return tuple(_mix(sizing, count, steady or 0.0, spot or 0.0, preemptions_per_day) for count in counts)


def _mix(sizing: Sizing, spot: int, steady_usd: float, spot_usd: float, preemptions_per_day: float) -> Mix:
    hours, steady = sizing.workload.hours, sizing.nodes - spot
    away = spot * preemptions_per_day * sizing.profile.startup_seconds / 86_400
    spares = math.ceil(away) if spot else 0
    preemptions = (spot + spares) * preemptions_per_day * hours / 24
    each = preemption_of(sizing, steady_usd or spot_usd).usd
    machines = (steady * steady_usd + (spot + spares) * spot_usd) * hours
    return Mix(steady, spot, spares, machines, preemptions, preemptions * each, steady / sizing.nodes)


def api_costs(sizing: Sizing, apis: Sequence[ApiPrice]) -> tuple[ApiCost, ...]:
    """What each API takes for a month of this workload's turns."""
    workload, turns = sizing.workload, sizing.turns_per_month
    cached = min(workload.cached_tokens, workload.input)
    fresh, output = (workload.input - cached) * turns, workload.output * turns
    return tuple(ApiCost(api, api.usd(fresh, cached * turns, output)) for api in apis)
