"""A checkpoint that ends loops: it has the token ids of the answer, and what goes on from any of them.

A loop in the thinking is ended as a break is mended: the node's request is closed, and `/v1/completions` continues from
prompt, kept ids and the marker that ends thinking. The filters behind see a stream whose model ended its thinking by
itself: budgets, hiding, translation and tools go on as ever. The marker counts as a token of the answer, as it does
at a budget.

    a loop is found                                        what follows
    in thinking, which can be continued                    TOKENIZING, then CONTINUED behind the marker (`checkpoint`)
    in thinking, which cannot be, or is not to be ended    nothing, and no further look
    in the answer, where it is to be ended                 finish_reason `stop`, usage, [DONE]; the request is closed
    in a tool call                                         nothing: half a call is worth less than an error at the end
    in the answer otherwise                                nothing, and no further look
    at the event at which a budget ends the thinking       the budget's continuation

What the node holds back of the text of a loop is left out.
"""

from gateway.core.budgets.chunks import last_of
from gateway.core.dialects.stream_filter import STOP, StreamFilter
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.resume.answer_tokens import find
from gateway.core.resume.checkpoint import Checkpoint
from gateway.core.resume.continuation_reader import ContinuationReader
from gateway.core.resume.continued_stream import CheckpointState
from gateway.core.resume.followed_request import FollowedRequest
from gateway.core.resume.shown_text import UnshownText
from gateway.core.thinking.loop_detector import LOOK_BYTES, NEVER, LoopDetector
from gateway.core.thinking.loops import LoopBounds, LoopNote

_FOLLOWED = (CheckpointState.FOLLOWING, CheckpointState.CONTINUED)


class LoopCheckpoint(Checkpoint):
    """`loops`: those that were ended, in order."""

    __slots__ = ("_bounds", "_comments", "_detector", "_ending", "_found", "loops")

    def __init__(
        self,
        inner: StreamFilter,
        followed: FollowedRequest,
        capabilities: Capabilities,
        keeps_ids: bool,
        grammar: bool,
        moves: bool,
        bounds: LoopBounds,
        comments: bool,
    ) -> None:
        """`comments`: its client gets a stream, and a comment in it where a loop was ended."""
        self._bounds = bounds
        self._comments = comments
        self.loops: tuple[LoopNote, ...] = ()
        self._found = self._ending = False
        """Whether a loop was found, and whether the thinking is to be ended for it before the answer goes on."""
        super().__init__(inner, followed, capabilities, keeps_ids, grammar, moves)

    def _follow(self, followed: FollowedRequest) -> None:
        super()._follow(followed)
        self._found = self._ending = False
        self._detector = LoopDetector(self._bounds.repeats)
        self._next_look = self._detector.next_look

    def _look(self) -> bool:
        shown = self._counted
        if not self._bounds.answer and shown.thought > 0 and self._splits:  # all that follows is the answer
            self._next_look = NEVER
            return False
        found = self._detector.look(self._shown)
        self._next_look = self._detector.next_look
        self._found = found and self._is_to_end()
        if found and not self._found:
            self._next_look = len(self._shown) + LOOK_BYTES if self._bounds.answer else NEVER
        return self._found

    def _is_to_end(self) -> bool:
        """Whether a loop that the answer ends in now is ended."""
        reader = self._reader
        if self._finished or self._state not in _FOLLOWED or (reader is not None and reader.finished):
            return False
        if self._thinks_now():
            return self._bounds.reasoning and self._obstacle() is None
        return self._bounds.answer and self._answering and not self._calls

    def _breaks(self) -> bool:
        if not self._found and (len(self._shown) < self._next_look or not self._look()):
            return False
        self._found = self._is_to_end()  # an event more may have come since it was found
        return self._found

    def feed(self, data: bytes) -> bytes:
        passed = super().feed(data)
        if not self._found:
            return passed
        self._found = False
        if self.follow_up is not None or self.ended or self.failed:
            return passed
        return passed + (self._leave_thinking() if self._thinks_now() else self._end_answer())

    @property
    def _calls(self) -> bool:
        """Whether a tool call has begun."""
        return self._called or (self._reader is not None and self._reader.calls)

    def _thinks_now(self) -> bool:
        """Whether the answer is in its thinking, whose end is known."""
        reader, known = self._reader, self._capabilities
        if not known.think_end or (reader is not None and reader.thinking):
            return bool(known.think_end)
        ids = self.tokens.behind(0, 0)
        if self._splits:
            return reader is None and bool(self._reasoning) and find(ids, known.think_end) < 0
        started, ended = last_of(ids, known.think_start), last_of(ids, known.think_end)
        return started > ended or (self._opened and ended < 0)

    # In thinking

    def _leave_thinking(self) -> bytes:
        self._next_look = NEVER
        self._ending = True
        told = self._note("reasoning")
        self.follow_up = self.resume(self._capabilities)
        return told

    def _holds_back(self, refused: bool) -> bool:
        return not self._ending and super()._holds_back(refused)

    def _thinks(self, ids: bytes, unshown: UnshownText | None) -> bool:
        return self._ending or super()._thinks(ids, unshown)

    def _end_thought(self, reader: ContinuationReader) -> bool:
        if not self._ending:
            return False
        self._ending = False
        self._forgotten.clear()  # of the loop, whose tokens are not made again
        end = self._capabilities.think_end
        self.tokens.show(",".join(map(str, end)).encode())
        self._unfed.append(reader.close_thinking(self._marked))
        self._next_look = len(self._shown) + LOOK_BYTES if self._bounds.answer else NEVER
        return True

    # In the answer

    def _end_answer(self) -> bytes:
        """End the client's stream in the node's place, and close its request."""
        self._next_look = NEVER
        told = self._note("answer")
        self.tokens.drop_held()
        if self._reader is None:
            self._reader = self._new_reader(self.tokens.ids(), None)
        self._reader.begin(self.prompt_tokens)
        passed = self._pass(self._reader.end("stop"))
        self.follow_up = STOP
        return told + passed

    def _note(self, part: str) -> bytes:
        """Note the loop that was found; returns the comment for the client."""
        note = LoopNote(part, self._detector.period, self.tokens.count)
        self.loops += (note,)
        return note.comment() if self._comments else b""
