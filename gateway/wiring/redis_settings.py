"""How Redis is reached, as a configuration says it."""

from gateway.config.tree import Config
from gateway.redis.schema import KeySchema
from gateway.redis.settings import RedisSettings


def redis_settings(config: Config, started_with: Config) -> RedisSettings | None:
    """None where there is none now, or was none at the start; and where another one waits for a restart: its address
    alone would lead to a cluster that is taken for a server, or to the tenants of another installation."""
    given, first = config.redis, started_with.redis
    if given is None or first is None or (given.cluster, given.prefix) != (first.cluster, first.prefix):
        return None
    return RedisSettings(
        url=given.url.reveal(),
        cluster=given.cluster,
        ca_file=given.ca_file,
        cert_file=given.cert_file,
        key_file=given.key_file,
        timeout=given.timeout,
        connect_timeout=given.connect_timeout,
        schema=KeySchema(given.prefix),
    )
