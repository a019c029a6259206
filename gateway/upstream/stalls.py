"""When a resumable stream in mid-answer counts as stalled.

Every step of the engine shows as an event of such a stream, so silence means that the engine makes nothing for it.
Engines pause, too: a prompt that is computed in one piece holds up all answers of its node.

    silence of                                              lasts longer than                                then
    the stream, while others of its node go on              `stall`                                          it moves
    the whole node                                          `stall` + waiting prompts                        it moves
    the whole node, whose count of tokens stands still      `stall_confirmed` or 50 gaps + waiting prompts   all move

Waiting prompts: `prefill` for each thousand tokens. Gaps: the stream's usual time between two events, where it is
known.
"""

import math

from gateway.fleet.hang_detection import hold_up, stands_still
from gateway.fleet.node import Node
from gateway.upstream.answer_progress import AnswerProgress
from gateway.upstream.timeouts import UpstreamTimeouts

GAPS = 50
"""Usual gaps between two events of a stream that silence has to last."""

ALONE_SECONDS = 5.0
"""How long the other answers of a node go on before a stream is known to be silent alone."""


def is_alone(progress: AnswerProgress, node: Node) -> bool:
    """Whether the other answers of `node` go on without the stream: then it may as well go on there."""
    return node.heard_at - progress.last_heard >= ALONE_SECONDS


def stalled_at(progress: AnswerProgress, node: Node, timing: UpstreamTimeouts) -> float:
    """The loop time at which the stream has stalled, going by what is known of its node."""
    last = progress.last_heard
    stalled = last + timing.stall
    if is_alone(progress, node):
        return stalled
    return stalled + hold_up(node, max(last, node.heard_at), timing.prefill)


def hangs_at(progress: AnswerProgress, node: Node, timing: UpstreamTimeouts, now: float) -> float:
    """The loop time at which `node` hangs, going by the stream's usual pace and by the node's metrics as they are known
    `now`; infinite where those do not tell."""
    limit = max(timing.stall_confirmed, GAPS * progress.usual_gap)
    if limit == math.inf or not stands_still(node, now, limit / 2):
        return math.inf
    silent_since = max(progress.last_heard, node.heard_at)
    return silent_since + limit + hold_up(node, silent_since, timing.prefill)
