"""Settings of routing: how a node is chosen, and which requests are one conversation."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.types import GROUP_PATTERN, HEADER_PATTERN, Seconds, Section
from gateway.core.routing.known_clients import SESSION_HEADERS

RoutingPolicy = Literal["expected_wait", "affinity", "least_loaded", "power_of_two", "round_robin"]
RoutingGroupName = Annotated[str, Field(pattern=GROUP_PATTERN)]


class Routing(Section):
    """How requests are spread over nodes."""

    policy: RoutingPolicy = "expected_wait"
    """How a node is chosen; a model may have its own."""
    session_headers: tuple[Annotated[str, Field(pattern=HEADER_PATTERN)], ...] = SESSION_HEADERS
    """Headers that name a session, in the order in which they are looked for. Its agents are conversations each."""
    by_user: bool = False
    """Whether a request's `user` (`metadata.user_id` of messages) names a conversation."""
    affinity_ttl: Seconds = 3600.0
    """Seconds that a conversation's last node is believed to have it in its cache."""
    load_penalty: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """Seconds of waiting that a full node is worse by than an empty one."""
