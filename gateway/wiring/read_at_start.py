"""The settings that a reload does not bring into force."""

from operator import attrgetter

from gateway.config.tree import Config
from gateway.wiring.reloadable import routing_groups, tokenizers

READ_AT_START = (
    "listen",
    "admin",
    "workers",
    "log",
    "telemetry",
    "redis.cluster",
    "redis.prefix",
    "access.stored",
    "access.cached_keys",
    "access.outage",
    "access.audit_lines",
    "usage",
    "discovery",
    "response_secret",
    "responses.stored",
    "requests.max_headers",
    "timeouts.headers",
    "timeouts.client_stall",
    "timeouts.shutdown",
)
"""Settings that a reload does not change, beside each model's tokenizer and routing group, and whether there is a Redis
at all. docs/configuration.md names them."""


def needs_restart(started_with: Config, new: Config) -> list[str]:
    """The settings that differ between the two and are only read at start."""
    there = started_with.redis is not None and new.redis is not None
    names = [name for name in READ_AT_START if there or not name.startswith("redis.")]
    changed = [name for name in names if attrgetter(name)(started_with) != attrgetter(name)(new)]
    if (started_with.redis is None) != (new.redis is None):
        changed.append("redis")
    if tokenizers(started_with) != tokenizers(new):
        changed.append("models.tokenizer")
    if routing_groups(started_with) != routing_groups(new):
        changed.append("models.routing_group")
    return changed
