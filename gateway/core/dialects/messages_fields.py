"""Makes of a messages request what nodes understand of it, in whatever dialect they are asked.

in the request                       becomes
`thinking.type: between_tools`       `disabled`: that is what it means, but for how notes between two tool calls
                                     come back, which are text here
`output_format`, its older name      `output_config.format`
"""

from typing import Any

from gateway.core.bodies import Body
from gateway.core.dialects.fields import optional
from gateway.core.errors import InvalidRequest


def known_to_nodes(body: Body) -> Body:
    """The top-level fields to set in `body`. Raises `InvalidRequest`."""
    changes: Body = {}
    thinking: Any = body.get("thinking")
    if type(thinking) is dict and thinking.get("type") == "between_tools":
        changes["thinking"] = {"type": "disabled"}
    form = body.get("output_format")
    if form is not None:
        optional(body, "output_format", dict)
        config = optional(body, "output_config", dict) or {}
        if config.get("format") not in (None, form):
            raise InvalidRequest(
                "The fields 'output_format' and 'output_config.format' contradict each other: send the second.",
                param="output_format",
                code="contradiction",
            )
        changes["output_config"] = {**config, "format": form}
    return changes


def has_format(body: Body) -> bool:
    """Whether `output_config` asks for an answer of some format."""
    config: Any = body.get("output_config")
    return type(config) is dict and config.get("format") is not None
