"""A request whose answer is followed by its token ids: it can go on on another node, and its loops are ended."""

from gateway.core.bodies import parse_trusted
from gateway.core.body_edits import insert_fields
from gateway.core.dialects.stream_filter import StreamFilter
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.json_text import dump
from gateway.core.plan import Plan
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.followed_request import FollowedRequest
from gateway.core.resume.loop_checkpoint import LoopCheckpoint
from gateway.core.resume.resumability import Resumability
from gateway.core.upstream.node_request_kinds import NodeRequest, WrappedRequest

_IDS_FIELD = "return_token_ids"


class ResumableRequest(WrappedRequest):
    """Wraps `inner`, a chat or completions request that streams, and asks its node for token ids.

    `resumable`: its answer goes on on another node; false where it is followed for its loops alone.
    """

    __slots__ = (
        "_capabilities",
        "_grammar",
        "_keeps_ids",
        "_loops",
        "assembles",
        "follows_thinking",
        "needs_stream",
        "resumable",
        "rewrites",
    )

    def __init__(self, inner: NodeRequest, plan: Plan, capabilities: Capabilities, resumability: Resumability) -> None:
        """`plan`: that of the chat or completions request."""
        super().__init__(inner, inner.ask, inner.dialect)
        self._capabilities = capabilities
        self.resumability = resumability if plan.resumes else Resumability.NO
        self._grammar = resumability is Resumability.THINKING
        self.assembles = inner.assembles
        self.follows_thinking = inner.follows_thinking
        self.needs_stream = inner.needs_stream
        self.rewrites = inner.rewrites
        self.resumable = plan.resumes
        self._loops = plan.loops
        said = plan.ask.body
        self._keeps_ids = inner.reads_ids or said.get(_IDS_FIELD) is True
        if not self._keeps_ids:
            self.body = _ask_for_ids_anew(inner.body) if _IDS_FIELD in said else _ask_for_ids(inner.body)

    def stream_filter(self) -> StreamFilter:
        followed = FollowedRequest(self.path, self.body)
        inner, known, loops = self._inner.stream_filter(), self._capabilities, self._loops
        if not loops.any:
            return Checkpoint(inner, followed, known, self._keeps_ids, self._grammar, self.resumable)
        comments = self.ask.stream and not self.assembles
        return LoopCheckpoint(inner, followed, known, self._keeps_ids, self._grammar, self.resumable, loops, comments)


def _ask_for_ids(body: bytes) -> bytes:
    return insert_fields(body, {_IDS_FIELD: True})


def _ask_for_ids_anew(body: bytes) -> bytes:
    """The same where the client has set the field to something else."""
    return dump({**parse_trusted(body), _IDS_FIELD: True})
