"""How many nodes a workload needs, by each of what a node can run out of, and which of them decides."""

import math
from dataclasses import dataclass
from typing import Literal

from workers.architecture import Architecture
from workers.errors import ConfigError
from workers.profile import Profile
from workers.units import GB
from workers.vram import MemoryPlan, plan_memory
from workers.workload.closed_loop import SteadyState, steady_states
from workers.workload.speed import NodeSpeed
from workers.workload.workload import Workload

Bound = Literal["prefill", "decode", "places", "KV memory"]
BOUNDS: tuple[Bound, ...] = ("prefill", "decode", "places", "KV memory")
SLACK = 2.0
"""Standard deviations of a Poisson count that the places of a node exceed its average of requests by."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """`nodes` of one profile for a workload. `needed` has the nodes by each bound; the largest decides.

    `busiest` is a node with the most conversations (their number divided by the nodes, rounded up), `lightest` one
    with the fewest. `held_gb` is what the busiest node's memory holds for its conversations, of `room_gb`.
    """

    profile: Profile
    workload: Workload
    speed: NodeSpeed
    memory: MemoryPlan
    needed: dict[Bound, int]
    busiest: SteadyState
    lightest: SteadyState
    held_gb: float
    notes: tuple[str, ...]
    given: int | None = None
    """Nodes that were asked about, instead of as many as are needed."""

    @property
    def nodes(self) -> int:
        """Nodes that satisfy every bound, or those that were asked about."""
        return self.given or self.most_needed

    @property
    def most_needed(self) -> int:
        """By the bounds that decide."""
        return max(self.needed.values())

    @property
    def binding(self) -> tuple[Bound, ...]:
        """The bounds that decide."""
        return tuple(bound for bound in BOUNDS if self.needed[bound] == self.most_needed)

    @property
    def room_gb(self) -> float:
        """Memory of a node that sequences may take."""
        return self.memory.room_gb

    @property
    def turns_per_second(self) -> float:
        """Turns that the whole fleet completes."""
        more = self.workload.agents % self.nodes
        if self.workload.agents < self.nodes:
            return more * self.busiest.turns
        return more * self.busiest.turns + (self.nodes - more) * self.lightest.turns

    @property
    def turns_per_month(self) -> float:
        """In the hours of a month that the fleet runs."""
        return self.turns_per_second * 3600 * self.workload.hours


def size_fleet(
    profile: Profile,
    workload: Workload,
    speed: NodeSpeed,
    architecture: Architecture | None = None,
    given: int | None = None,
) -> Sizing:
    """The fewest nodes that keep a workload within its targets and the nodes' memory, or what `given` ones do with it;
    `architecture` is that of the model's real config.json where it is at hand.

    Raises ConfigError where no number of nodes does, and says which bound one conversation alone breaks.
    """
    notes = []
    if not profile.caching.prefix and workload.cached_tokens:
        workload = workload.without_cache()
        notes.append("This profile caches no prefixes: every turn's prompt is computed whole.")
    context = math.ceil(workload.input + workload.output)
    if context > profile.max_model_len:
        raise ConfigError(
            f"a turn of {context:,} tokens is longer than max_model_len ({profile.max_model_len:,}) of {profile.name}"
        )
    memory = plan_memory(profile, context, architecture=architecture)
    if not memory.fits:
        raise ConfigError(f"{profile.name} does not fit its own node: see `fleetgate-worker plan {profile.name}`")
    most = _most_agents(workload, speed, memory, profile.offload_bytes)
    impossible = [bound for bound in BOUNDS if most[bound] == 0]
    if impossible:
        raise ConfigError(f"{profile.name}: {_impossible(impossible[0], workload, speed, memory)}")
    needed = {bound: math.ceil(workload.agents / most[bound]) for bound in BOUNDS}
    nodes = given or max(needed.values())
    busiest = _last(workload, speed, math.ceil(workload.agents / nodes))
    lightest = _last(workload, speed, max(1, workload.agents // nodes))
    held = held_bytes(busiest, workload, memory, profile.offload_bytes) / GB
    return Sizing(profile, workload, speed, memory, needed, busiest, lightest, held, tuple(notes), given)


def held_bytes(state: SteadyState, workload: Workload, memory: MemoryPlan, offload: int = 0) -> float:
    """Bytes that a node's GPUs hold for its conversations: of those that run everything, of those that pause the prefix
    (keys, values and one state), without which the next turn's `cached` would not be cached. `offload` bytes of the
    latter lie in the machine's RAM.
    """
    whole = memory.sequence.bytes_at(memory.context)
    pausing = max(0.0, state.agents - state.running)
    if not workload.cached_tokens:
        return state.running * whole
    kept = memory.sequence.kv_bytes_per_token * memory.context + memory.sequence.state_bytes
    return state.running * whole + max(0.0, pausing * kept - offload)


def _most_agents(workload: Workload, speed: NodeSpeed, memory: MemoryPlan, offload: int) -> dict[Bound, int]:
    """Of each bound the most conversations on one node before it is broken for the first time."""
    most: dict[Bound, int] = {}
    room = memory.room_gb * GB
    for state in steady_states(workload, speed, workload.agents):
        kept: dict[Bound, bool] = {
            "prefill": state.first_token <= workload.first_token,
            "decode": state.rate >= workload.rate,
            "places": state.agents <= speed.places or state.running + SLACK * math.sqrt(state.running) <= speed.places,
            "KV memory": held_bytes(state, workload, memory, offload) <= room,
        }
        for bound, good in kept.items():
            if not good:
                most.setdefault(bound, state.agents - 1)
        if len(most) == len(BOUNDS):
            break
    return {bound: most.get(bound, workload.agents) for bound in BOUNDS}


def _last(workload: Workload, speed: NodeSpeed, agents: int) -> SteadyState:
    *_, last = steady_states(workload, speed, agents)
    return last


def _impossible(bound: Bound, workload: Workload, speed: NodeSpeed, memory: MemoryPlan) -> str:
    if bound == "prefill":
        seconds = workload.fresh_tokens / speed.prefill + 1 / speed.rate(1)
        return f"one prompt alone takes {seconds:,.1f} s to its first token, first_token is {workload.first_token:g}"
    if bound == "decode":
        first = speed.points[0]
        return (
            f"rate is {workload.rate:g}, and the fewest answers whose speed is known ({first.users:g} at once) get "
            f"{first.rate:,.1f} tokens/s each: measure fewer, or give --decode"
        )
    if bound == "places":
        return "it has no place for one request"
    return f"one conversation takes more than the {memory.room_gb:,.1f} GB that are left for sequences"
