"""Sessions of the console are listed, and one of them is ended: its cookie, its copies and its streams."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from gateway.console.live import AGAIN, AT_ONCE
from gateway.console.open_sessions import CLOCKS_APART, LISTED, OpenSessions
from gateway.core.console.session_token import Session
from gateway.core.json_text import dump
from tests.console.chromium import TOKEN, chromium, console_page, needs_chromium, show
from tests.console.operators import events, operator
from tests.support.gateways import eventually, running_gateway
from tests.support.redis import redis_server

ADMIN: dict[str, Any] = {"admin": {"token": TOKEN, "hosts": []}}
PATH = "/admin/console/sessions"
MARKS = {"admin": "0a1b"}
EVE = Session("admin", "Eve", 1e10, 1.0, "a1")


async def test_a_stolen_session_is_ended_in_every_gateway_and_with_it_its_stream() -> None:
    async with redis_server() as redis:
        shared: dict[str, Any] = {"redis": redis.settings, **ADMIN}
        async with (
            running_gateway(ready=False, **shared) as one,
            running_gateway(ready=False, **shared) as two,
            operator(one.admin_url, "Ada") as ada,
            operator(two.admin_url, "Eve") as eve,
        ):
            stream = events(eve)
            assert (await anext(stream))[0] == "snapshot"
            await two.app.open_sessions.share()
            listed = {each["person"]: each for each in (await ada.get(PATH)).json()}
            assert listed.keys() == {"Ada", "Eve"} and listed["Eve"]["address"] == "127.0.0.1"
            assert listed["Eve"]["token"] == "admin" and listed["Eve"]["began"] < listed["Eve"]["ends"]
            done = await ada.delete(f"{PATH}/{listed['Eve']['id']}")
            assert done.status_code == 200 and done.json()["everywhere"] is True
            with pytest.raises(StopAsyncIteration):  # on the other gateway
                while True:
                    await anext(stream)
            assert (await eve.get(PATH)).status_code == 401
            assert (await eve.get("/console/session")).json()["session"] is None
            assert (await ada.delete(f"{PATH}/{listed['Eve']['id']}")).status_code == 404
            assert [each["person"] for each in (await ada.get(PATH)).json()] == ["Ada"]
            lines = (await ada.get("/admin/audit")).json()
            line = next(each for each in lines if each["what"] == "session ended")
            assert line["who"].startswith("Ada (admin)@") and line["detail"]["person"] == "Eve"


async def test_the_page_of_an_ended_session_asks_again_at_once_and_others_in_a_while() -> None:
    """It is refused then, and asks to sign in. A gateway that ends is given time."""
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        viewers = gateway.app.console_feed.viewers
        async with client.stream("GET", "/console/live") as answer:
            await eventually(lambda: len(viewers) == 1)
            viewers.close()
            assert AT_ONCE not in await answer.aread()
        viewers.closed = False
        async with client.stream("GET", "/console/live") as answer:
            await eventually(lambda: len(viewers) == 1)
            assert (await client.delete("/console/session")).status_code == 200
            told = await answer.aread()
        assert told.startswith(AGAIN) and told.endswith(AT_ONCE)


async def test_signing_out_ends_copies_of_the_cookie() -> None:
    async with running_gateway(ready=False, **ADMIN) as gateway, operator(gateway.admin_url) as client:
        (cookie,) = client.cookies.jar
        copy = {"cookie": f"{cookie.name}={cookie.value}"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=copy) as thief:
            assert (await thief.get(PATH)).status_code == 200
            assert (await client.delete("/console/session")).status_code == 200
            assert (await thief.get(PATH)).status_code == 401


async def test_worker_processes_tell_each_other_through_their_directory(tmp_path: Path) -> None:
    one, two = OpenSessions(None, tmp_path, MARKS), OpenSessions(None, tmp_path, MARKS)
    told: list[str] = []
    two.on_end = told.append
    one.note(EVE, "10.0.0.7")
    assert await one.share()
    (found,) = await two.all()
    assert (found.person, found.address) == ("Eve", "10.0.0.7")
    assert await two.end("a1") is not None and told == ["a1"]
    assert not one.is_ended("a1")
    await one.share()
    assert one.is_ended("a1") and await one.all() == [] and await one.end("a1") is None


async def test_while_redis_is_away_it_is_ended_here_and_told_later() -> None:
    async with redis_server() as redis:
        shared: dict[str, Any] = {"redis": redis.settings, **ADMIN}
        async with running_gateway(ready=False, **shared) as one, running_gateway(ready=False, **shared) as two:
            here, there = one.app.open_sessions, two.app.open_sessions
            here.note(EVE, "10.0.0.7")
            redis.kill()
            done = await here.end("a1")
            assert done is not None and not done[1] and here.is_ended("a1")
            redis.start()
            await eventually(lambda: there.is_ended("a1"))


async def test_one_that_was_ended_stays_so_where_redis_loses_its_data() -> None:
    async with redis_server() as redis:
        shared: dict[str, Any] = {"redis": redis.settings, **ADMIN}
        async with running_gateway(ready=False, **shared) as one:
            here = one.app.open_sessions
            here.note(EVE, "10.0.0.7")
            assert await here.end("a1") is not None
            redis.flush()
            async with running_gateway(ready=False, **shared) as later:
                await eventually(lambda: later.app.open_sessions.is_ended("a1"))


async def test_while_redis_is_away_one_of_another_process_is_not_called_ended() -> None:
    async with redis_server() as redis:
        shared: dict[str, Any] = {"redis": redis.settings, **ADMIN}
        async with running_gateway(ready=False, **shared) as one, operator(one.admin_url) as ada:
            redis.kill()
            got = await ada.delete(f"{PATH}/a1")
            assert got.status_code == 503 and "nothing was changed" in got.text
            assert [each["person"] for each in (await ada.get(PATH)).json()] == ["Ada"]


async def test_what_is_over_leaves_redis_though_nobody_asks_for_the_list() -> None:
    async with redis_server() as redis, running_gateway(ready=False, redis=redis.settings, **ADMIN) as one:
        known, ended = "fg1:{console}:sessions", "fg1:{console}:ended"
        over = dump(["Eve", "admin", 1.0, 2.0, "10.0.0.7", 1.0])
        redis.do("HSET", known, "newer", b"[1]", *(word for at in range(500) for word in (f"b{at}", over)))
        redis.do("HSET", ended, "b1", "2.0", "a1", repr(EVE.ends), "newer", "in a while")
        here = one.app.open_sessions
        here._sweep_at = 0.0
        assert await here.share() and here.is_ended("a1")
        await eventually(lambda: redis.do("HKEYS", known) == [b"newer"])  # or by the exchange that was under way
        await eventually(lambda: set(redis.do("HKEYS", ended)) == {b"a1", b"newer"})


async def test_where_redis_refuses_the_list_what_others_ended_is_refused_all_the_same() -> None:
    async with redis_server() as redis, running_gateway(ready=False, redis=redis.settings, **ADMIN) as one:
        here = one.app.open_sessions
        here.note(EVE, "10.0.0.7")
        redis.do("DEL", "fg1:{console}:sessions")
        redis.do("SET", "fg1:{console}:sessions", "of another type")
        redis.do("HSET", "fg1:{console}:ended", "a1", repr(EVE.ends))
        await here.share()
        assert here.is_ended("a1") and await here.all() == []


async def test_of_many_those_are_listed_that_signed_in_last(tmp_path: Path) -> None:
    sessions = OpenSessions(None, tmp_path, MARKS)
    many = [[f"b{at}", "Eve", "admin", float(at), EVE.ends, "10.0.0.7", 1.0] for at in range(LISTED + 1)]
    (tmp_path / "sessions-1.json").write_bytes(dump(many))
    listed = await sessions.all()
    assert len(listed) == LISTED and listed[0].id == f"b{LISTED}" and await sessions.end("b0") is not None


async def test_who_signed_in_with_a_token_that_was_replaced_is_not_listed(tmp_path: Path) -> None:
    """Nor who came with one that there is no more. Their cookies open nothing."""
    before = OpenSessions(None, tmp_path, {"admin": "ffff", "gone": "1111"})
    before.note(EVE, "10.0.0.7")
    before.note(EVE._replace(id="a2", token="gone"), "10.0.0.7")
    assert await before.share() and len(await before.all()) == 2
    after = OpenSessions(None, tmp_path, MARKS)
    assert await after.all() == []
    after.note(EVE._replace(id="a3"), "10.0.0.8")
    assert [each.id for each in await after.all()] == ["a3"]


async def test_gateways_list_the_sessions_that_they_serve() -> None:
    """One of them has a new admin token already."""
    async with redis_server() as redis:
        new: dict[str, Any] = {"admin": {"token": f"new-{TOKEN}", "hosts": []}}
        async with (
            running_gateway(ready=False, redis=redis.settings, **ADMIN) as one,
            running_gateway(ready=False, redis=redis.settings, **new) as two,
            operator(one.admin_url, "Ada") as ada,
        ):
            assert await one.app.open_sessions.share()
            assert [each["person"] for each in (await ada.get(PATH)).json()] == ["Ada"]
            headers = {"authorization": f"Bearer new-{TOKEN}"}
            async with httpx.AsyncClient(base_url=two.admin_url, headers=headers) as admin:
                assert (await admin.get(PATH)).json() == []


async def test_an_ended_one_outlasts_its_end_by_what_clocks_may_be_apart() -> None:
    async with redis_server() as redis, running_gateway(ready=False, redis=redis.settings, **ADMIN) as one:
        redis.do("HSET", "fg1:{console}:ended", "a1", repr(time.time() - CLOCKS_APART / 2))
        assert await one.app.open_sessions.share()
        assert redis.do("HKEYS", "fg1:{console}:ended") == [b"a1"]


@needs_chromium
async def test_an_operator_ends_one_on_the_page_and_its_page_asks_to_sign_in() -> None:
    async with (
        running_gateway(ready=False, **ADMIN) as gateway,
        chromium() as browser,
        console_page(browser, gateway.admin_url, "Eve") as hers,
        console_page(browser, gateway.admin_url, "Ada") as page,
    ):
        await show(page, "changes")
        await page.locator("table", has_text="Admin token").get_by_text("Eve").click()
        dialog = page.locator("dialog")
        await expect(dialog).to_contain_text("last seen at 127.0.0.1")
        await dialog.get_by_role("button", name="End the session").click()
        await expect(page.locator(".toast").last).to_have_text("The session of Eve was ended.")
        await expect(hers.locator(".problem")).to_contain_text("sign in again", timeout=20_000)
        await expect(page.locator(".link-state")).to_have_text("Live")
        await expect(page.locator("table", has_text="Admin token").get_by_text("Eve")).to_have_count(0)
