"""Spot notices: what the clouds say, whom it concerns, how much time is left, and sources that do not answer."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.workers.metadata_stand_in import Metadata, serve_metadata
from workers.errors import ConfigError
from workers.launch.azure import AzureNotice, first_notice
from workers.launch.notice import Notice, NoticeUnreadable
from workers.launch.plan import Patience
from workers.launch.shutdown import Shutdown
from workers.launch.spot import AWS, GCP, FileNotice, NoticeSource, UrlNotice, notices_of, parse_source

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with serve_metadata() as running:
        yield running


def preset(name: str, metadata: Metadata) -> UrlNotice:
    """A cloud's preset, sent to the stand-in."""
    source = parse_source(name)
    assert isinstance(source, UrlNotice)
    here = source.url.replace(AWS, metadata.url).replace(GCP, f"{metadata.url}/computeMetadata/v1/instance/preempted")
    token = source.token_url.replace(AWS, metadata.url) if source.token_url else None
    return replace(source, url=here, token_url=token)


def event(**changes: Any) -> dict[str, Any]:
    """An event as Azure's documentation has it."""
    return {
        "EventId": "C1BF8322-4CBF-4FC4-9C45-B40CF3106D0E",
        "EventStatus": "Scheduled",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": ["fleet_7"],
        "NotBefore": format_datetime(NOW + timedelta(seconds=30), usegmt=True),
        "Description": "",
        "EventSource": "Platform",
        "DurationInSeconds": -1,
    } | changes


def azure_notice(*events: dict[str, Any]) -> Notice | None:
    return first_notice(json.dumps({"DocumentIncarnation": 1, "Events": events}), {"fleet_7"}, NOW, 5.0)


async def test_aws_and_gcp_are_asked_as_their_services_want_it(metadata: Metadata) -> None:
    aws, gcp = preset("aws", metadata), preset("gcp", metadata)
    assert await aws.look() is None
    assert await gcp.look() is None
    metadata.aws = {"action": "terminate", "time": (datetime.now(UTC) + timedelta(seconds=110)).isoformat()}
    metadata.gcp = "TRUE"
    notice = await aws.look()
    assert notice is not None and notice.seconds is not None and 100 < notice.seconds <= 110
    notice = await gcp.look()
    assert notice is not None and notice.seconds == 25, "30 s were promised, and it may be out for a poll of 5 s"


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 30),
        ({"Resources": ["other_0", "FLEET_7"]}, 30),
        ({"Resources": ["_fleet_7"]}, 30),
        ({"Resources": "fleet_7"}, 30),
        ({"Resources": ["fleet_70"]}, None),
        ({"Resources": ["other_0"]}, None),
        ({"Resources": []}, 30),
        ({"EventType": "Freeze"}, None),
        ({"EventType": "preempt"}, 30),
        ({"EventType": "Terminate", "NotBefore": format_datetime(NOW + timedelta(minutes=5), usegmt=True)}, 300),
        ({"EventType": "Reboot", "NotBefore": (NOW + timedelta(minutes=14)).isoformat()}, 840),
        ({"EventType": "Redeploy", "NotBefore": format_datetime(NOW + timedelta(days=6), usegmt=True)}, None),
        ({"NotBefore": "2026-11-30T12:00:20Z"}, 20),
        ({"NotBefore": "2026-11-30T12:00:20"}, 20),
        ({"NotBefore": ""}, 25),
        ({"NotBefore": None}, 25),
        ({"NotBefore": "soon"}, 25),
        ({"NotBefore": "", "EventStatus": "Started"}, 0),
        ({"NotBefore": format_datetime(NOW - timedelta(seconds=9), usegmt=True), "EventStatus": "Started"}, 0),
    ],
)
def test_azures_events_count_for_the_machines_that_they_name_and_by_their_time(
    changes: dict[str, Any], seconds: float | None
) -> None:
    """Every machine of a scale set sees the events of all: another one's must not drain this one."""
    notice = azure_notice(event(**changes))
    assert (notice.seconds if notice else None) == seconds


def test_the_event_that_ends_the_machine_first_counts() -> None:
    later = event(EventType="Terminate", NotBefore=format_datetime(NOW + timedelta(minutes=5), usegmt=True))
    notice = azure_notice(later, event(Resources=["other_0"]), event())
    assert notice is not None and notice.seconds == 30
    assert azure_notice() is None


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"Events": [3]}', '{"Events": 1}', "null", "[" * 100_000])
def test_what_is_no_document_of_events_is_told(text: str) -> None:
    with pytest.raises(NoticeUnreadable, match="no document"):
        first_notice(text, {"fleet_7"}, NOW, 5.0)


async def test_azure_is_asked_for_the_machines_own_name(metadata: Metadata) -> None:
    source = AzureNotice(address=metadata.url)
    assert await source.look() is None
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    metadata.azure = [event(Resources=["fleet_8"], NotBefore=soon)]
    assert await source.look() is None
    metadata.azure.append(event(NotBefore=soon))
    notice = await source.look()
    assert notice is not None and notice.seconds is not None and 25 < notice.seconds <= 30
    assert sum("compute/name" in asked for asked in metadata.asked) == 1


async def said_by(source: NoticeSource, said: asyncio.Queue[str]) -> None:
    async for notice in notices_of(source, said.put_nowait):
        said.put_nowait(f"notice {notice.seconds}")


async def test_a_source_that_does_not_answer_is_told_once_and_asked_again(metadata: Metadata) -> None:
    metadata.refuse = 503
    said: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(said_by(replace(preset("gcp", metadata), poll_seconds=0.01), said))
    assert "answers 503; it is asked again every 0.01 s" in await said.get()
    await asyncio.to_thread(metadata.wait_until_asked, 3)
    assert said.empty()
    metadata.refuse = None
    assert await said.get() == "--spot gcp: answers now"
    metadata.gcp = "TRUE"
    assert await said.get() == "notice 25.0"
    await asyncio.to_thread(metadata.wait_until_asked, 3)
    assert said.empty(), "the same notice is told once"
    task.cancel()


async def test_a_service_that_is_not_there_or_is_silent_is_told(metadata: Metadata) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(NoticeUnreadable, match="cannot be asked"):
            await UrlNotice("x", address).look()
        with pytest.raises(NoticeUnreadable, match="hop limit to 2"):
            await UrlNotice("aws", address, token_url=address).look()
        with pytest.raises(NoticeUnreadable, match="cannot be asked"):
            await AzureNotice(address=address).look()


async def test_an_answer_without_an_end_is_given_up() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"TRUE" * 100_000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(NoticeUnreadable, match="more than 1,000,000 bytes"):
            await UrlNotice("x", f"http://{host}:{port}").look()


async def test_a_file_that_cannot_be_read_is_told_and_read_when_it_can(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    file.mkdir()
    said: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(said_by(FileNotice(file, 0.01), said))
    assert "cannot be read (Is a directory)" in await said.get()
    file.rmdir()
    assert "answers now" in await said.get()
    file.write_text('{"seconds": "40"}')
    assert await said.get() == "notice 40.0"
    (tmp_path / "sooner").write_text('{"seconds": 10}')
    (tmp_path / "sooner").replace(file)
    assert await said.get() == "notice 10.0", "a notice that changes is a new one"
    task.cancel()


NO_TIMES = ["", "gone", "{}", "[1]", "3", "null", '{"seconds": null}', '{"seconds": "x"}', '{"seconds": NaN}']
NO_TIMES += ['{"time": 3}', '{"time": "tomorrow"}', '{"seconds": Infinity}', '{"seconds": 1e999}', "[" * 60_000]


@pytest.mark.parametrize("text", NO_TIMES)
async def test_a_notice_without_a_time_is_still_a_notice(tmp_path: Path, text: str) -> None:
    (tmp_path / "notice").write_text(text)
    notice = await FileNotice(tmp_path / "notice").look()
    assert notice is not None and notice.seconds is None


@pytest.mark.parametrize(
    ("text", "poll", "says"),
    [
        ("cloud9", 5, "use aws, gcp, azure"),
        ("url:nonsense", 5, "expected url:http"),
        ("url:ftp://host/x", 5, "expected url:http"),
        ("url:http://[::1", 5, "expected url:http"),
        ("url:http://host:99999/", 5, "expected url:http"),
        ("url:http:///path", 5, "expected url:http"),
        ("file:/not/there/notice", 5, "the folder /not/there is not there"),
        ("gcp", 20, "gives 30 s of notice"),
        ("aws", 61, "gives 120 s of notice"),
    ],
)
def test_sources_that_can_never_tell_are_refused(text: str, poll: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_source(text, poll)


# --- what a notice leaves ---------------------------------------------------------------------------------


def shutdown(drain: float = 600.0, stop: float = 30.0) -> tuple[Shutdown, list[str]]:
    said: list[str] = []
    return Shutdown(Patience(drain=drain, stop=stop), said.append), said


@pytest.mark.parametrize(
    ("seconds", "drain", "stop"),
    [(30, 24, 6), (120, 96, 24), (25, 20, 5), (3600, 600, 30), (300, 270, 30), (2, 1, 1), (0.5, 0, 1), (0, 0, 1)],
)
async def test_a_notice_is_shared_between_requests_and_the_servers_end(
    seconds: float, drain: float, stop: float
) -> None:
    """30 s of notice less 30 s for stopping left no second for requests."""
    order, _ = shutdown()
    order.take_notice(Notice("x", seconds))
    assert order.ordered.is_set()
    assert order.stop_seconds == pytest.approx(stop)
    assert order.drain_left == pytest.approx(drain, abs=0.5)


async def test_a_notice_without_a_time_leaves_the_usual_drain() -> None:
    order, _ = shutdown()
    order.take_notice(Notice("x"))
    assert order.stop_seconds == 30
    assert order.drain_left == pytest.approx(600, abs=0.5)


async def test_a_notice_during_a_drain_shortens_it_and_cuts_nothing() -> None:
    order, said = shutdown()
    order.take_signal("SIGTERM")
    order.take_notice(Notice("gone", 100))
    assert order.sooner.is_set() and order.drain_left == pytest.approx(80, abs=0.5)
    order.sooner.clear()
    order.take_notice(Notice("gone later", 500))
    assert not order.sooner.is_set() and order.drain_left == pytest.approx(80, abs=0.5)
    assert said[-1] == "notice: gone: 80 s are left for running requests"


async def test_a_signal_beside_a_notice_cuts_nothing_and_a_second_signal_does() -> None:
    """Clouds stop a machine's services with SIGTERM in the moment in which they put out the notice."""
    order, said = shutdown()
    order.take_notice(Notice("gone", 30))
    order.take_signal("SIGTERM")
    assert not order.sooner.is_set() and order.drain_left > 20
    assert "drains already" in said[-1]
    order.take_signal("SIGTERM")
    assert order.sooner.is_set() and order.drain_left == 0
    assert said[-1] == "SIGTERM: stopping now"


async def test_time_passes_while_a_node_drains() -> None:
    order, _ = shutdown(drain=10)
    before = time.monotonic()
    order.take_signal("SIGINT")
    assert order.drain_left <= 10 - (time.monotonic() - before) + 0.5
