"""The filter nearest to the node: it keeps what is needed to go on with the answer on another node.

Theory. The node sends the token ids of each event. They are kept, and the event goes on without them, as the node would
have sent it. When the answer breaks off, prompt and kept ids are the whole state of the model: `/v1/completions`
continues from them. What comes is written as the chunks of the first stream, so that the filters behind this one
(`inner`: budgets, hiding, translation, assembly) see one stream that never broke.

    state        event                               next         does
    FOLLOWING    an event with text and ids          FOLLOWING    keeps the ids, passes the event on without them
    FOLLOWING    one with ids whose text is to come  FOLLOWING    holds the ids; the event is only there for them
    FOLLOWING    one with text and no ids            PASSING      from now on the answer cannot be resumed
    FOLLOWING    a 5xx error, or `abort`             FOLLOWING    raises it: the answer has broken off
    PASSING      anything                            PASSING      passes it on
    any          `inner` asks for a follow-up        FOLLOWING    that is the request whose answer is followed: no ids
    FOLLOWING    `resume`, and nothing has come      FOLLOWING    asks again for what is followed
    any          `resume`                            TOKENIZING   asks /tokenize for the prompt's ids
    TOKENIZING   other ids than the first node had   -            raises `StreamLost`
    any          the prompt's ids are known          DETOKENIZING asks /detokenize for the text of the kept ids
    any          the same, nothing was held back     CONTINUED    drops held ids; asks /v1/completions
    any          the same, nothing is left to come   ENDED        writes the end
    DETOKENIZING text that ends in half a character  DETOKENIZING asks again, without the last id
    DETOKENIZING text that the client has no part of -            raises `StreamLost`
    DETOKENIZING other text                          CONTINUED    writes what was held back; asks /v1/completions
    DETOKENIZING the same, nothing is left to come   ENDED        writes what was held back, and the end
    CONTINUED    a chunk                             CONTINUED    keeps its ids, passes it on as a chunk of the first
    CONTINUED    one that completes a stop string    CONTINUED    writes the end; `follow_up` closes the request

A node holds text back (see `shown_text`): only the text of its tokens tells what of it the client has. Where a node
does not tell that text, the next one is asked only if text is held for certain reasons: stop strings, or several ids in
the last event.

An event of which only a part came is forgotten: its tokens are made again.
"""

from gateway.core.budgets.chunks import head_of
from gateway.core.dialects.stream_filter import FollowUpRequest, StreamFilter
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.http.sse import EventSplitter
from gateway.core.resume.answer_tokens import find
from gateway.core.resume.continued_stream import CheckpointState, ContinuedStream
from gateway.core.resume.followed_request import FollowedRequest


class Checkpoint(ContinuedStream):
    """The node's stream in, the client's out; and what another node needs to go on with it."""

    __slots__ = ("_moves",)

    def __init__(
        self,
        inner: StreamFilter,
        followed: FollowedRequest,
        capabilities: Capabilities,
        keeps_ids: bool,
        grammar: bool,
        moves: bool = True,
    ) -> None:
        """As `ContinuedStream`. `moves`: the answer goes on on another node where its node breaks off."""
        self._moves = moves
        super().__init__(inner, followed, capabilities, keeps_ids, grammar)

    @property
    def begun(self) -> bool:
        """Whether the node has made anything of the answer that would be lost."""
        return bool(self.tokens.shown) or self._reader is not None

    @property
    def has_ids(self) -> bool:
        """False where the node sends text without token ids from the beginning: the stream passes as if unwatched. Also
        where the answer is not to go on on another node."""
        return self._moves and (self.begun or not self._passing or not self._followed.generates)

    def resume(self, capabilities: Capabilities) -> FollowUpRequest:
        """The request that goes on with the answer on another node, with these capabilities; call it once it is certain
        which one. Raises `StreamLost` where the answer cannot go on."""
        if not self._followed.generates or not (self._first or self.begun):  # nothing has come of it
            self._splitter = EventSplitter()
            return FollowUpRequest(self._followed.path, self._followed.body)
        self.check()
        refused = self._state is CheckpointState.DETOKENIZING
        self._clear = False
        self._splitter = EventSplitter()
        self._capabilities = capabilities
        self._answer.clear()
        self._prompt, self._window, self._dropped, self._shows_special = b"", None, 0, False
        if self._grammar and not (self._finished or self._answering):
            self._drop_answer()
        if not self._holds_back(refused):
            self._forget(self.tokens.drop_held())
            self._dropped = -1
        known = None if self._finished else self._followed.prompt_ids()
        if known is not None:
            self._prompt = known
            return self._go_on()
        self._state = CheckpointState.TOKENIZING
        return self._followed.tokenize()

    def _holds_back(self, refused: bool) -> bool:
        """Whether the node may have held text back of the tokens that it sent. `refused`: another did not tell."""
        if self._finished or not self.tokens.shown:
            return False
        if self._reader is not None:  # a stream of raw text, without stop strings
            return not self.tokens.lone
        if self._settled:
            return False
        if not self._speaks_for_itself:
            return True
        self._shows_special = refused
        return self._followed.chat and not refused  # the node's parsers hold text back

    def check(self) -> None:
        """Raises `StreamLost` where the answer cannot go on: it is then to be ended."""
        self._finished = self._finished or (self._reader is not None and self._reader.finished)
        why = self._obstacle()
        if why is not None and not self._begin_answer_anew():
            raise self.lost(why)

    @property
    def resumable(self) -> bool:
        """Whether the answer could go on if it broke off now, from where it is."""
        return self._moves and self._obstacle() is None

    def _obstacle(self) -> str | None:
        """Why the answer cannot go on, if it cannot."""
        if not self._followed.generates or self._finished or not (self._first or self.begun):
            return None
        if not head_of(self._first):
            return "its node's events cannot be read"
        if self._passing:
            return "its node sends no token ids"
        if self._called:
            return "a tool call has begun"
        if self._grammar and self._answering:
            return "a grammar bounds the answer, which has begun"
        if not self._last and self._cannot_tell(None):
            return "whether it begins with thinking is not known"
        return None

    def _begin_answer_anew(self) -> bool:
        """Go back to the end of thinking; False where that is not known, or the client has something of the answer."""
        if self._passing or not self._capabilities.think_end:
            return False
        if (self._counted.thinks and not self._thought) or not self._inner.forget_answer():
            return False
        self._drop_answer()
        self._called = self._finished = self._usage_told = False
        self._last = self._counted.last = b""
        return True

    @property
    def _thought(self) -> bool:
        """Whether the end of thinking is one of the answer's tokens."""
        return find(self.tokens.behind(0, 0), self._capabilities.think_end) >= 0

    def _drop_answer(self) -> None:
        """Do without the tokens behind the end of thinking, of which the client has nothing."""
        thought = self._thought
        if not thought and (self._counted.thinks or (self._reader is not None and self._reader.thinking)):
            return
        self.tokens.keep(0)
        if thought:
            self.tokens.cut_behind(self._capabilities.think_end)
        else:
            self._shown.clear()
        if self._reader is not None and thought:
            self._unfed.append(self._reader.end_thinking())
            self._settled = True
        self._reader = None
        self._counted.forget_answer(not thought)
