"""How fast a node computes prompts and writes answers: given, measured, or estimated, and which of them it is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from workers.errors import ConfigError
from workers.measured import differences
from workers.profile import Profile
from workers.throughput import Throughput
from workers.workload.workload import Workload

PREFILL_SHARE = 0.25
"""Of the data sheet's BF16 arithmetic, what prefill is taken to reach, at two operations a token and active parameter.
An assumption: nobody has published a prefill rate of these nodes. FP8 and FP4 units are left out of it."""

ASSUMED_USER_RATE = 50.0
"""Tokens a second of one conversation, where a throughput is known without its conversations: NVIDIA's day-0 figures
have 52 to 81."""

FAR = math.log(2)
"""A measurement of the profile's own launch goes before those of others up to this distance: twice or half the computed
prompt tokens for each output token."""


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """`users` answers at once get `rate` tokens a second each."""

    users: float
    rate: float


@dataclass(frozen=True, slots=True)
class NodeSpeed:
    """One node's speed. `prefill` is prompt tokens a second; `places` the answers that run at once.

    `points` are sorted by users, and at least one. The sources are for people.
    """

    prefill: float
    points: tuple[DecodePoint, ...]
    places: int
    prefill_source: str
    decode_source: str

    def rate(self, users: float) -> float:
        """Tokens a second of each of `users` answers. Between two points the time of a token grows evenly with them;
        below the first point it is the first one's, and beyond the last all share the last one's total.
        """
        first, last = self.points[0], self.points[-1]
        if users <= first.users:
            return first.rate
        if users >= last.users:
            return last.users * last.rate / users
        for low, high in zip(self.points, self.points[1:], strict=False):
            if users <= high.users:
                share = (users - low.users) / (high.users - low.users)
                return 1 / ((1 - share) / low.rate + share / high.rate)
        return last.rate


def node_speed(
    profile: Profile, workload: Workload, prefill: float | None = None, decode: Sequence[DecodePoint] = ()
) -> NodeSpeed:
    """The speed of a profile's node for this workload; `prefill` and `decode` are given by the caller where known.

    Raises ConfigError where nothing is known of one of the two.
    """
    points, decode_source = (
        (tuple(sorted(decode, key=lambda p: p.users)), "given") if decode else _decode(profile, workload)
    )
    rate, prefill_source = (prefill, "given") if prefill is not None else _prefill(profile)
    return NodeSpeed(rate, points, profile.max_sequences, prefill_source, decode_source)


def read_points(texts: Iterable[str]) -> tuple[DecodePoint, ...]:
    """`USERS:RATE` options as points. Raises ConfigError for other forms, and for users given twice."""
    points = []
    for text in texts:
        users, sign, rate = text.partition(":")
        try:
            point = DecodePoint(float(users), float(rate))
        except ValueError:
            point = DecodePoint(math.nan, math.nan)
        if not sign or not (0 < point.users < 1e7 and 0 < point.rate < 1e7):
            raise ConfigError(f"--decode: {text!r} is not USERS:RATE, answers at once and tokens a second of each")
        points.append(point)
    if len({point.users for point in points}) < len(points):
        raise ConfigError("--decode: two rates are given for the same number of answers")
    return tuple(points)


def _decode(profile: Profile, workload: Workload) -> tuple[tuple[DecodePoint, ...], str]:
    rows = profile.throughput
    if not rows:
        raise ConfigError(
            f"no throughput of {profile.name} is known: give --decode USERS:RATE, or measure it "
            "(fleetgate-worker bench --save)"
        )
    loaded = [row for row in rows if row.load is not None]
    if not loaded:
        row = rows[0]
        users = max(1.0, row.middle / ASSUMED_USER_RATE)
        source = f"{row.kind}, {row.middle:,.0f} tokens/s ({row.source}); {ASSUMED_USER_RATE:g} a conversation assumed"
        return (DecodePoint(users, row.middle / users),), source
    pool = _own(profile, loaded, workload) or loaded
    nearest = min(pool, key=lambda row: _distance(row, workload))
    same = [row for row in pool if row.load is not None and row.load.is_like(nearest.load)]
    # Newer rows stand first, and of two with as many users the first one counts.
    points = {row.load.users: row.middle / row.load.users for row in reversed(same) if row.load is not None}
    told = f"{nearest.kind}: {nearest.workload} ({nearest.source})"
    if any(differences(profile, nearest)):
        told += ", with other flags than this profile's"
    return tuple(DecodePoint(users, points[users]) for users in sorted(points)), told


def _own(profile: Profile, rows: Sequence[Throughput], workload: Workload) -> list[Throughput]:
    """The rows that were measured with what the profile launches, and whose load is not far from the workload."""
    return [
        row
        for row in rows
        if row.measured_with is not None and _distance(row, workload) <= FAR and not any(differences(profile, row))
    ]


def _distance(row: Throughput, workload: Workload) -> float:
    """How unlike a measured load is, by computed prompt tokens for each output token."""
    if row.load is None:
        return math.inf
    return abs(math.log(row.load.fresh_tokens / row.load.output) - math.log(workload.fresh_tokens / workload.output))


def _prefill(profile: Profile) -> tuple[float, str]:
    measured = [row.load.prefill for row in profile.throughput if row.load is not None and row.load.prefill is not None]
    if measured:
        return max(measured), "measured"
    peak = profile.hardware.gpu.bf16_tflops
    if peak is None:
        raise ConfigError(f"no prefill rate of {profile.name} is known, nor its GPU's arithmetic: give --prefill-rate")
    flops = peak * 1e12 * profile.hardware.gpus * PREFILL_SHARE
    rate = flops / (2 * profile.model.active_billion * 1e9)
    return rate, f"estimate: {PREFILL_SHARE:.0%} of the GPUs' BF16 arithmetic"
