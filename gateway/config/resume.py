"""Settings of resume: how an answer goes on when its node does not."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.types import Seconds, Section

ResumableDialect = Literal["chat", "completions", "messages", "responses"]


class Resume(Section):
    """When a broken stream goes on on another node."""

    enabled: bool = True
    """Whether broken streams go on on another node."""
    dialects: tuple[ResumableDialect, ...] = ("chat", "completions", "messages", "responses")
    """The dialects whose answers do. Messages and responses are asked of nodes as chat then."""
    max_resumes: Annotated[int, Field(ge=0, le=100)] = 2
    """Times that one answer may be resumed with fewer than 16 tokens made in between."""
    wait: Seconds = 60.0
    """Seconds that it may wait for a node with a place."""
    rate: Annotated[float, Field(ge=0, le=100)] = 0.2
    """Resumes a second for each open stream of a model, on average; one for each, and 20, are saved up."""
