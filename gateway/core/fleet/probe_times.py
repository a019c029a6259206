"""When one node is to be asked what, by what was asked and heard of it last.

Theory. A node that is out is probed every `UNREADY_SECONDS`, and more rarely the longer it is out, down to every
`interval`. One that is in is asked for each of three things only when nothing has told them for a while:

    what       every                                            what else tells it
    health     `interval`                                       a token of any answer; its count of tokens has grown
    metrics    `interval` while it has requests, else `quiet`   another gateway's reading of them
    models     `quiet`                                          another gateway has read the same ones

All of it is asked at once where the node may have begun anew (`forget`). Of several gateways one is to ask: the others
wait for `turn` seconds more, each for longer than the one before it, and what the first one found reaches them
meanwhile. Where it does not, because that gateway has died or cannot reach the node, the next one asks.
"""

import math

UNREADY_SECONDS = 0.5
"""Between two probes of a node that is out."""

UNREADY_GROWTH = 20.0
"""After it has been out for so many of its pauses, the pause grows."""

SOON = 0.25
"""The part of an interval within which things that are due are asked together."""


class ProbeTimes:
    """One node's. All times are in seconds of one clock; `-inf`: never yet.

    `asked_at`: when the last round began. `alive_at`: when it was last known to live, from probes. `page_at`,
    `cards_at`: when its metrics and its models were last read, or asked for. `jitter`: the factor of the next pauses.
    `turn`: seconds for which others may ask first. `out_since`: None while it is in.
    """

    __slots__ = ("alive_at", "asked_at", "cards_at", "jitter", "out_since", "page_at", "turn")

    def __init__(self) -> None:
        self.asked_at = self.alive_at = self.page_at = self.cards_at = -math.inf
        self.jitter = 1.0
        self.turn = 0.0
        self.out_since: float | None = None

    def forget(self) -> None:
        """Whatever the node was, it may be another one now: all is asked anew."""
        self.cards_at = self.page_at = -math.inf

    def saw(self, is_out: bool, now: float) -> None:
        """Whether the node is out, as of now."""
        if not is_out:
            self.out_since = None
        elif self.out_since is None:
            self.out_since = now

    def round_at(self, now: float, is_out: bool, interval: float, quiet: float, heard_at: float, busy: bool) -> float:
        """When the next round is due. `heard_at`: when a token of an answer last came; `busy`: it has requests."""
        if is_out:
            out = 0.0 if self.out_since is None else now - self.out_since
            return self.asked_at + self.jitter * min(interval, max(UNREADY_SECONDS, out / UNREADY_GROWTH))
        return max(
            min(
                self.health_at(interval, heard_at),
                self.metrics_at(interval, quiet, busy),
                self.models_at(quiet),
            ),
            self.asked_at + interval * self.jitter,
        )

    def health_at(self, interval: float, heard_at: float) -> float:
        """When it is to be asked for its health."""
        return max(self.alive_at, heard_at) + interval * self.jitter + self.turn

    def metrics_at(self, interval: float, quiet: float, busy: bool) -> float:
        """When it is to be asked for its metrics."""
        return self.page_at + (interval if busy else quiet) * self.jitter + self.turn

    def models_at(self, quiet: float) -> float:
        """When it is to be asked for its models."""
        return self.cards_at + quiet * self.jitter + self.turn
