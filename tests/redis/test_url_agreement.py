"""A Redis URL reaches both clients of Redis whole."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.redis.url import RedisUrl
from gateway.redis.plain_client import client_of
from gateway.redis.settings import RedisSettings


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text)))
def test_an_escaped_password_reaches_both_ways_to_redis_whole(password: str) -> None:
    url = RedisUrl(False, "h", 1, "u", password, 2).spelled()
    settings = RedisSettings(url)
    assert settings.login == [("AUTH", "u", password), ("SELECT", "2")]
    told = client_of(settings).connection_pool.connection_kwargs
    assert (told["host"], told["port"], told["username"], told["password"], told["db"]) == ("h", 1, "u", password, 2)


def test_tls_is_on_in_whichever_case_its_scheme_is_written() -> None:
    """An upper-case scheme once fell back to plain TCP."""
    assert RedisSettings("REDISS://h").tls() is not None
    assert RedisSettings("redis://h").tls() is None
