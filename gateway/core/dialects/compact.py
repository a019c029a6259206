"""`/v1/responses/compact`: a summary in the place of a conversation.

Nodes have no such path: the model is asked for the summary in chat (see `over_chat.compaction`).
"""

from gateway.core.bodies import Body
from gateway.core.dialects.base import NEVER, Ask
from gateway.core.dialects.over_chat import OverChat, compaction_over_chat
from gateway.core.dialects.responses import Responses


class Compact(Responses):
    """A request that is planned, limited and counted as the response would be that summarises."""

    name = "compact"
    path = "/v1/responses/compact"
    mints_ids = False

    def read(self, raw: bytes, parsed: Body | None = None) -> Ask:
        ask = super().read(raw, parsed)
        ask.stream = ask.background = False
        ask.continues, ask.taken_since = None, NEVER
        return ask

    def over_chat(self, body: Body) -> OverChat | None:
        return compaction_over_chat({name: value for name, value in body.items() if name != "stream"}, alone=True)
