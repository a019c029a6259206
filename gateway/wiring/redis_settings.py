"""How Redis is reached, as a configuration says it."""

from gateway.config.tree import Config
from gateway.redis.schema import KeySchema
from gateway.redis.settings import RedisSettings


def redis_settings(config: Config, started_with: Config) -> RedisSettings | None:
    """None where there is none now, or was none at the start."""
    given, first = config.redis, started_with.redis
    if given is None or first is None:
        return None
    return RedisSettings(
        url=given.url.reveal(),
        cluster=first.cluster,
        ca_file=given.ca_file,
        cert_file=given.cert_file,
        key_file=given.key_file,
        timeout=given.timeout,
        connect_timeout=given.connect_timeout,
        schema=KeySchema(first.prefix),
    )
