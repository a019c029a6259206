"""A Redis URL is read in one way, and what is said against one holds no part of it."""

import pytest

from gateway.core.redis.url import RedisUrl, read_redis_url

GOOD = {
    "redis://h": RedisUrl(False, "h", 6379, None, None, 0),
    "redis://h/": RedisUrl(False, "h", 6379, None, None, 0),
    "rediss://Cache.Example.com:6380/3": RedisUrl(True, "cache.example.com", 6380, None, None, 3),
    "REDISS://h": RedisUrl(True, "h", 6379, None, None, 0),
    "redis://127.0.0.1:1/0/": RedisUrl(False, "127.0.0.1", 1, None, None, 0),
    "redis://[::1]:6380": RedisUrl(False, "::1", 6380, None, None, 0),
    "redis://:p@h": RedisUrl(False, "h", 6379, None, "p", 0),
    "redis://u:p:q@h": RedisUrl(False, "h", 6379, "u", "p:q", 0),
    "redis://u%40x:%2F%3f%23%40%25%20%C3%BC@h:7/1": RedisUrl(False, "h", 7, "u@x", "/?#@% ü", 1),
}


@pytest.mark.parametrize("url", GOOD)
def test_what_a_url_says(url: str) -> None:
    assert read_redis_url(url) == GOOD[url]
    assert read_redis_url(GOOD[url].spelled()) == GOOD[url]


BAD = [
    "",
    "h:6379",
    "http://h",
    "redis://",
    "redis:///0",
    "redis://h:",
    "redis://h:port",
    "redis://h:0",
    "redis://h:99999",
    "redis://h:-1",
    "redis://h/zero",
    "redis://h/0/1",
    "redis://h/123456",
    "redis://h?db=1",
    "redis://h#0",
    "redis://h h",
    "redis://a..b",
    "redis://::1",
    "redis://[h]",
    "redis://1.2.3",
    "redis://user@h",
    "redis://user:@h",
    "redis://:%ff@h",
]


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_url_of_a_redis(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected redis|port|DATABASE|login|escapes"):
        read_redis_url(url)


@pytest.mark.parametrize("special", [*"/?#@[]% \t", "/0", "%2", "%zz", "]:1", "/1@", "#@"])
@pytest.mark.parametrize("before", ["", "123", "[ab", "a@b"])
def test_a_password_is_never_taken_for_anything_else(special: str, before: str) -> None:
    """Unescaped, it is refused; whatever is refused, nothing of it is told."""
    with pytest.raises(ValueError) as caught:
        read_redis_url(f"redis://:{before}hush{special}hidden@host:6379/0")
    assert "hush" not in str(caught.value) and "hidden" not in str(caught.value)
