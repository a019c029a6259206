"""`/v1/responses/compact`: a summary in the place of a conversation.

Nodes have no such path: the model is asked for the summary in chat (see `over_chat.compaction`).
"""

from gateway.core.bodies import Body
from gateway.core.dialects.over_chat import OverChat, compaction_over_chat
from gateway.core.dialects.responses import ChatOnlyResponses


class Compact(ChatOnlyResponses):
    """A request that is planned, limited and counted as the response would be that summarises."""

    name = "compact"
    path = "/v1/responses/compact"

    def over_chat(self, body: Body) -> OverChat | None:
        return compaction_over_chat({name: value for name, value in body.items() if name != "stream"}, alone=True)
