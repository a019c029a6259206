"""Translations of responses and messages to chat, for nodes that cannot do in those dialects what was planned.

Each has three parts: the request to a chat body, a plain chat answer to the dialect's answer, a chat stream to the
dialect's events. The result is what the node itself would have answered. Differences are listed in docs/api.md; a
request that chat cannot carry is refused with the field's name.
"""

from gateway.core.dialects.over_chat.base import OverChat
from gateway.core.dialects.over_chat.compaction import compaction_over_chat
from gateway.core.dialects.over_chat.messages import messages_over_chat
from gateway.core.dialects.over_chat.responses import responses_over_chat

__all__ = ["OverChat", "compaction_over_chat", "messages_over_chat", "responses_over_chat"]
