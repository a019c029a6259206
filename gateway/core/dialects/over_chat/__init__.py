"""Responses and messages served over chat, for nodes that do not hold in those dialects what was planned.

Sans-IO, three steps each: the request becomes a chat body, a plain chat answer becomes the dialect's answer, a chat
stream becomes the dialect's events. They say what the node itself would have said; where that cannot be, the
difference is listed in docs/api.md, or the request is refused with the field's name.
"""

from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.over_chat.messages import messages_over_chat
from gateway.core.dialects.over_chat.responses import responses_over_chat

__all__ = ["OverChat", "messages_over_chat", "responses_over_chat"]
