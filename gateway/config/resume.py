"""Settings of resume: how an answer goes on when its node does not."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.types import Seconds, Section

ResumableDialect = Literal["chat", "completions", "messages", "responses"]


class Resume(Section):
    """When a broken stream goes on on another node. `dialects`: those whose answers do; messages and responses are
    asked of nodes as chat then. `max_resumes`: times that one answer may be resumed with nearly nothing made in
    between. `wait`: seconds that it may wait for a node. `rate`: resumes a second for each open stream of a model, on
    average; one for each stream is saved up."""

    enabled: bool = True
    dialects: tuple[ResumableDialect, ...] = ("chat", "completions", "messages", "responses")
    max_resumes: Annotated[int, Field(ge=0, le=100)] = 2
    wait: Seconds = 60.0
    rate: Annotated[float, Field(ge=0, le=100)] = 0.2
