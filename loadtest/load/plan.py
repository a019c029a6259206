"""What one run does: whom it asks with whose keys, for what, how much and how long. JSON for the generators."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from loadtest.load.scenarios import MIXES, SCENARIOS
from loadtest.load.turns import Steering


class PlanError(ValueError):
    """A plan that cannot be made; says which option to mend."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One scenario of one tenant, and its share of the users."""

    tenant: str
    scenario: str
    share: float


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`seconds` of load and `grace` more for what is under way then. `rate` multiplies all arrivals, `scale` all
    lengths. `keys` are the tenants' ones. `trace` is a path instead of streams, replayed `speed` times as fast.

    `ttft` and `gap`, where given, replace the scenarios' objectives. `most` requests may be under way in one generator;
    arrivals beyond are counted and not sent.
    """

    url: str
    model: str
    keys: dict[str, str]
    streams: tuple[Stream, ...]
    seconds: float
    grace: float = 30.0
    rate: float = 1.0
    scale: float = 1.0
    steering: Steering = "budget"
    trace: str = ""
    speed: float = 1.0
    ttft: float | None = None
    gap: float | None = None
    timeout: float = 300.0
    most: int = 2000
    seed: int = 1

    def to_json(self) -> str:
        """For a generator's command line; keys are in it, so it is handed over by a file or the environment."""
        return json.dumps(asdict(self))

    def objective(self, scenario: str) -> tuple[float, float]:
        """Seconds to the first token and between two of a good answer."""
        known = SCENARIOS.get(scenario)
        ttft, gap = (known.ttft, known.gap) if known else (5.0, 0.1)
        return (ttft if self.ttft is None else self.ttft), (gap if self.gap is None else self.gap)


def plan_from_json(text: str) -> LoadPlan:
    """What `to_json` made."""
    given: dict[str, Any] = json.loads(text)
    given["streams"] = tuple(Stream(**stream) for stream in given["streams"])
    return LoadPlan(**given)


def streams_of(scenario: str, tenants: list[str]) -> tuple[Stream, ...]:
    """The streams of a scenario, a mix, or `TENANT=SCENARIO[,TENANT=SCENARIO]`. Raises PlanError."""
    if "=" in scenario:
        return tuple(stream for part in scenario.split(",") for stream in _named(part, tenants))
    shares = MIXES.get(scenario) or ({scenario: 1.0} if scenario in SCENARIOS else None)
    if shares is None:
        known = ", ".join([*SCENARIOS, *MIXES])
        raise PlanError(
            f"SCENARIO {scenario!r} is none of {known}, no TENANT=SCENARIO, and no file that ends in .jsonl"
        )
    if scenario == "neighbours" and len(tenants) > 1:  # one tenant is loud, the others see what that does to them
        loud, *others = tenants
        quiet = tuple(Stream(t, name, shares[name] / len(others)) for t in others for name in ("chat", "bursty"))
        return (Stream(loud, "noisy", shares["noisy"]), *quiet)
    return tuple(Stream(tenant, name, share) for tenant in tenants for name, share in shares.items())


def _named(part: str, tenants: list[str]) -> Iterator[Stream]:
    tenant, _, name = part.partition("=")
    if tenant not in tenants:
        raise PlanError(f"SCENARIO: {tenant!r} has no key; there are keys of {', '.join(tenants)}")
    yield from streams_of(name, [tenant])


def read_keys(text: str) -> dict[str, str]:
    """`KEY`, or `TENANT:KEY,TENANT:KEY`. One without a name is the tenant `default`. Raises PlanError."""
    keys: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        tenant, sign, key = part.partition(":")
        tenant, key = (tenant, key) if sign else ("default", part)
        if not key or tenant in keys:
            raise PlanError("KEY is one key, or TENANT:KEY,TENANT:KEY with each tenant once")
        keys[tenant] = key
    return keys or {"default": "none"}


def deal(streams: tuple[Stream, ...]) -> Iterator[Stream]:
    """The streams of users one after the other, each as often as its share says, without an end.

    The first users are one of each, in the order of their shares: a small load has all of its scenarios.
    """
    due = dict.fromkeys(streams, 0.0)
    total = sum(stream.share for stream in streams)
    while True:
        for stream in streams:
            due[stream] += stream.share / total
        chosen = max(streams, key=lambda stream: due[stream])
        due[chosen] -= 1.0
        yield chosen


def chance(plan: LoadPlan, *names: object) -> random.Random:
    """The chance of one user or session: the same for the same names and seed."""
    return random.Random(f"{plan.seed} {' '.join(map(str, names))}")
