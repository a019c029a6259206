"""Writes a grant into the fields that nodes read: the fields that several dialects share.

Fields that a node ignores stay; the fields that it reads are set beside them.
"""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.thinking.grant import Grant
from gateway.core.thinking.intent import UNLIMITED


def carry_switch(body: Body, grant: Grant) -> dict[str, Any]:
    """The arguments of the chat template that switch thinking on or off, and to low effort."""
    given = body.get("chat_template_kwargs") or {}
    wanted = dict(given)
    if grant.thinking is not None:
        wanted["enable_thinking"] = grant.thinking
    if grant.low:
        wanted["low_effort"] = True
    return {} if wanted == given else {"chat_template_kwargs": wanted}


def carry_budget(body: Body, budget: int | None) -> dict[str, Any]:
    """vLLM's own field; null takes back a client's."""
    given = body.get("thinking_token_budget")
    if budget is None and given in (None, UNLIMITED):
        return {}
    return {} if given == budget else {"thinking_token_budget": budget}


def carry_effort(body: Body, field: str, grant: Grant) -> dict[str, Any]:
    """The effort in `field`, or with a dot in a member of an object; `none` is taken back where thinking is on."""
    top, _, member = field.partition(".")
    given = body.get(top)
    was = (given or {}).get(member) if member else given
    wanted = was
    if was is None and grant.thinking is not False and not grant.low:
        wanted = grant.effort
    if was == "none" and grant.thinking is True:
        wanted = None
    if wanted == was:
        return {}
    return {top: {**(given or {}), member: wanted} if member else wanted}
