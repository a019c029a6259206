"""Error replies, as hiredis gives them and as redis-py raises them."""

from typing import Any

import pytest
from redis._parsers import _AsyncRESP2Parser

from gateway.redis.refusals import FOR_ALL, RedisRefusals, code_of, text_of, unavailable
from gateway.redis.script import RedisRefusesAll, RedisUnavailable, ScriptFailed

MAX_CLIENTS = "ERR max number of clients reached"
TEXTS = {code: MAX_CLIENTS if code == "MAXCLIENTS" else f"{code} so" for code in FOR_ALL}


def raised(text: str, with_code: bool) -> Any:
    """What redis-py raises for a reply: its older versions do not say which code they took off."""
    parser: Any = _AsyncRESP2Parser(1024)
    error = parser.parse_error(text)
    error.status_code = getattr(error, "status_code", None) if with_code else None
    return error


@pytest.mark.parametrize("with_code", [True, False])
@pytest.mark.parametrize("code", sorted(FOR_ALL))
def test_a_refusal_of_all_is_known_from_either_library(code: str, with_code: bool) -> None:
    text = TEXTS[code]
    assert code_of(text) == code
    known = RedisRefusals("fg").understand("call", "key", text)
    for error in (known, unavailable(raised(text, with_code))):
        assert isinstance(error, RedisRefusesAll)
        assert (error.state, error.remedy) == FOR_ALL[code]
        assert str(type(error)(*error.args)) == str(error), "another caller is given the same words"


@pytest.mark.parametrize("with_code", [True, False])
def test_a_right_that_is_missing_concerns_one_call(with_code: bool) -> None:
    text = text_of(raised("NOPERM User x has no permissions to run the 'hset' command", with_code))
    refusals = RedisRefusals("fg")
    assert isinstance(refusals.understand("call", "key", text), ScriptFailed)
    [refusal] = refusals.standing.values()
    assert "lacks HSET on fg*" in refusal.remedy


def test_what_redis_adds_to_an_error_is_left_out() -> None:
    for text in ("OOM no.", "OOM no", "OOM no. script: 0f3a, on @user_script:12.", "OOM no script: on @user_script:1."):
        error = RedisRefusals("fg").understand("call", "key", text)
        assert isinstance(error, RedisRefusesAll) and error.text == "OOM no", text


def test_a_redis_that_was_not_reached_is_told_as_before() -> None:
    for error, words in (
        (ConnectionRefusedError(111, "refused"), "[Errno 111] refused"),
        (TimeoutError(), "no answer in time"),
    ):
        told = unavailable(error)
        assert type(told) is RedisUnavailable and str(told) == words
