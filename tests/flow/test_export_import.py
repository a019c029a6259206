"""Export and import: tenants, keys, blocks and usage go from one Redis into another; a wrong file changes nothing."""

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from gateway.cli.main import app
from gateway.core.access.api_keys import key_digest
from gateway.core.access.export_format import end_line, header_line, line_of
from tests.support.gateway_process import FLEETGATE
from tests.support.gateways import RunningGateway, eventually, running_gateway
from tests.support.nodes import MODEL, Asked, ScriptedNode, answer, scripted_node
from tests.support.redis import RedisServer, redis_server

HEAD = header_line("2026-11-30T23:00:00Z")
KEY = "fg-of-the-file"
IN_FILE = {"name": "in-file", "keys": [{"sha256": key_digest(KEY).hex()}]}


async def plain(node: ScriptedNode, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b'{"usage":{"prompt_tokens":3,"completion_tokens":5}}'))


@dataclass
class Place:
    """A gateway with a Redis of its own."""

    gateway: RunningGateway
    redis: RedisServer
    admin: httpx.AsyncClient

    async def run(self, *words: str | Path) -> Result:
        arguments = [*map(str, words), "--admin", self.gateway.admin_url]
        return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    async def make(self, path: str, **body: Any) -> Any:
        got = await self.admin.post(f"/admin/{path}", json=body)
        assert got.status_code in (200, 201), got.text
        return got.json()

    async def ask(self, key: str) -> int:
        async with httpx.AsyncClient(timeout=10) as client:
            url = self.gateway.url + "/v1/chat/completions"
            return (await client.post(url, json={"model": MODEL}, headers={"x-api-key": key})).status_code

    async def comes_to(self, key: str, status: int) -> None:
        async with asyncio.timeout(20):
            while await self.ask(key) != status:
                await asyncio.sleep(0.02)

    async def usage(self, per: str = "hour") -> Any:
        assert self.gateway.app.ledger is not None
        await self.gateway.app.ledger.flush()
        query = {"by": ["time", "tenant", "model", "key"], "per": per, "since": "2026-01-01" if per == "day" else None}
        got = await self.admin.get("/admin/usage", params={name: each for name, each in query.items() if each})
        return got.json()["rows"]

    def kept(self) -> dict[bytes, dict[bytes, bytes]]:
        """All that an import may write."""
        with self.redis.client() as client:
            names = [name for name in client.scan_iter() if client.type(name) == b"hash"]
            return {
                name: client.hgetall(name) for name in names if b"{access}:used" not in name and b":change:" not in name
            }


@asynccontextmanager
async def place(**more: Any) -> AsyncIterator[Place]:
    async with scripted_node(plain) as node, redis_server() as redis:
        settings: dict[str, Any] = {
            "redis": redis.settings,
            "access": {"stored": True},
            "usage": {"stored": True},
            "tenants": [IN_FILE],
            **more,
        }
        async with running_gateway(node.url, **settings) as gateway:
            async with httpx.AsyncClient(base_url=gateway.admin_url, timeout=20) as admin:
                yield Place(gateway, redis, admin)


def records(at: Place) -> dict[bytes, Any]:
    wanted = (b":tenants", b":keys", b":blocked")
    return {name: each for name, each in at.kept().items() if name.endswith(wanted) and b"{access}" in name}


async def test_everything_goes_into_another_redis_which_has_other_data(tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    async with place() as old, place() as new:
        await old.make(
            "tenants", name="acme", limits={"requests_per_minute": 1000, "reasoning_tokens_per_minute": 900_000}
        )
        await old.make("tenants", name="other")
        key = await old.make("keys", tenant="acme", label="ci")
        of_file = await old.make("keys", tenant="in-file")
        rotated = await old.make(f"keys/{key['id']}/rotate")
        shut = await old.make("keys", tenant="other")
        await old.make("block", key=shut["id"], reason="leaked")
        for each in (key, rotated, of_file):
            await old.comes_to(each["key"], 200)
        used = await old.usage()
        assert len(used) == 3

        done = await old.run("export", file)
        assert done.exit_code == 0, done.output
        text = file.read_text()
        assert file.stat().st_mode & 0o077 == 0
        assert "2 tenants, 4 keys, 1 blocks, 6 sums of usage" in done.output
        assert not any(each["key"] in text for each in (key, rotated, of_file, shut)), "no key in clear"

        # in the other one stand a tenant of the same name with other settings, and one of its own
        await new.make("tenants", name="acme", limits={"requests_per_minute": 1})
        await new.make("tenants", name="mine")
        mine = await new.make("keys", tenant="mine")
        await new.comes_to(mine["key"], 200)
        before = records(new)
        told = await new.run("import", file, "--merge", "--dry-run")
        assert told.exit_code == 0, told.output
        assert (
            "kept, though the file differs: tenant acme (limits)" in told.output
            and "added: tenant other" in told.output
        )
        assert records(new) == before

        done = await new.run("import", file, "--merge", "--yes")
        assert done.exit_code == 0, done.output
        assert (await new.admin.get("/admin/tenants/acme")).json()["settings"] == {"limits": {"requests_per_minute": 1}}
        for each in (of_file, mine):
            await new.comes_to(each["key"], 200)
        await new.comes_to(shut["key"], 403)
        assert [row for row in await new.usage() if row["tenant"] == "acme"] == [
            row for row in used if row["tenant"] == "acme"
        ]
        merged = records(new)
        again = await new.run("import", file, "--merge")
        assert again.exit_code == 0 and "nothing to change" in again.output
        assert records(new) == merged

        # replaced: as in the file, and what is not in it is gone
        told = await new.run("import", file, "--replace", "--dry-run")
        assert "changed: tenant acme (limits)" in told.output and "deleted: tenant mine" in told.output
        assert records(new) == merged
        done = await new.run("import", file, "--replace", "--yes")
        assert done.exit_code == 0, done.output
        assert records(new) == records(old)
        await new.comes_to(key["key"], 200)
        await new.comes_to(mine["key"], 401)
        assert "nothing to change" in (await new.run("import", file, "--replace", "--no-usage")).output
        second = tmp_path / "again.jsonl"
        assert (await new.run("export", second, "--no-usage")).exit_code == 0

        def entries(path: Path) -> list[dict[str, Any]]:
            found = [json.loads(line) for line in path.read_text().splitlines()]
            return sorted((each for each in found if each["kind"] in ("tenant", "key")), key=str)

        assert entries(second) == entries(file)
        audit = (await new.admin.get("/admin/audit")).json()
        assert {"data exported", "records imported", "usage imported", "blocked", "tenant deleted"} <= {
            line["what"] for line in audit
        }
        assert "data exported" in {line["what"] for line in (await old.admin.get("/admin/audit")).json()}


def tenant(name: str, created: Any = 1.0, **settings: Any) -> bytes:
    return line_of({"kind": "tenant", "name": name, "record": {"settings": settings, "created": created, "changed": 1}})


def key(id: str | None, tenant: str = "acme", **more: Any) -> bytes:
    digest = key_digest("fg-some")
    record = {"digest": digest.hex(), "tenant": tenant, "settings": {}, "created": 1.0, "replaces": None, **more}
    return line_of({"kind": "key", "id": id or f"key_{digest[:8].hex()}", "record": record})


def sums(**more: Any) -> bytes:
    day = int(time.time()) // 86_400 * 86_400
    named = {"per": "day", "at": day, "tenant": "acme", "model": "m", "key": "k", "sums": {"requests": 1}, **more}
    return line_of({"kind": "usage", **named})


GOOD = tenant("fine")
WRONG: dict[str, tuple[list[bytes], str]] = {
    "a tenant of the config file": ([GOOD, tenant("in-file")], "is in the config file"),
    "a setting that there is not": ([GOOD, tenant("acme", modles=[])], "modles"),
    "a limit that is no number": ([GOOD, tenant("acme", limits={"requests_per_minute": "x"})], "requests_per_minute"),
    "a model that there is not": ([GOOD, tenant("acme", models=["nope"])], "nope is not in models"),
    "a name that is none": ([GOOD, tenant("a b")], "name is none"),
    "a key of nobody": ([GOOD, key(None)], "exist neither there nor in the file: acme"),
    "an id that is another's": ([tenant("acme"), key("key_0000000000000000")], "not that of its digest"),
    "a key of the config file": (
        [key(f"key_{key_digest(KEY)[:8].hex()}", "in-file", digest=key_digest(KEY).hex())],
        "is in the config file",
    ),
    "a key with a newer field": ([tenant("acme"), key(None, scopes=["x"])], "newer gateway (scopes)"),
    "a digest that is none": ([tenant("acme"), key(None, digest="ab")], "cannot be read"),
    "usage of half a day": ([GOOD, sums(at=3)], "beginning of the day"),
    "usage below nothing": ([GOOD, sums(sums={"input": -1})], "whole numbers from 0"),
    "usage of a name with a blank": ([GOOD, sums(key="a b")], "names without blanks"),
    "usage of a model with half a line": ([GOOD, sums(model="a\nb")], "the name of a model"),
    "a time that is a text": ([GOOD, tenant("acme", created="nan")], "created: expected seconds"),
    "a key that replaces none": ([tenant("acme"), key(None, replaces=["x"])], "replaces: expected the id"),
    "a block without words": (
        [line_of({"kind": "block", "subject": "tenant:a", "who": {}, "at": 1, "reason": ""}), GOOD],
        "expected texts",
    ),
    "usage in figures that there are not": ([GOOD, sums(sums={"inputs": 1})], "expected some of"),
    "a block of nothing": ([line_of({"kind": "block", "subject": "all"}), GOOD], "tenant:NAME or key:ID"),
}


async def test_a_wrong_file_is_refused_whole_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "wrong.jsonl"
    async with place(models=[{"name": MODEL}]) as at:
        await at.make("tenants", name="stands")
        before = at.kept()
        for name, (lines, words) in WRONG.items():
            file.write_bytes(b"".join([HEAD, *lines, end_line(len(lines), 0)]))
            for mode in ("--merge", "--replace"):
                done = await at.run("import", file, mode, "--yes")
                assert (done.exit_code, words in done.output) == (1, True), (name, done.output)
                assert at.kept() == before, name
        file.write_bytes(HEAD + GOOD)
        done = await at.run("import", file, "--replace", "--yes")
        assert done.exit_code == 1 and "cut off after line 2" in done.output and at.kept() == before
        assert (await at.run("import", file)).exit_code == 2
        assert (await at.run("import", file, "--merge", "--replace")).exit_code == 2


async def test_records_that_mean_nothing_sure_are_refused() -> None:
    """One that is there twice, sums that would break the counting of all that comes, and times that are not yet."""
    day = int(time.time()) // 86_400 * 86_400
    tenant = {"kind": "tenant", "name": "acme", "record": {"settings": {}, "created": 1, "changed": 1}}
    other = {**tenant, "record": {"settings": {"limits": {"requests_per_minute": 5}}, "created": 1, "changed": 1}}
    block = {"kind": "block", "subject": "tenant:acme", "who": "ada", "at": 1, "reason": "x"}
    usage = {"kind": "usage", "per": "day", "at": day, "tenant": "a", "model": "m", "key": "k", "sums": {"requests": 1}}
    wrong = {
        "twice": ([tenant, other], [block, {**block, "reason": "y"}], [usage, {**usage, "sums": {"requests": 2}}]),
        "future": ([{**usage, "at": day + 100 * 86_400}], [{**usage, "at": 86_400 * 10**12}]),
        "2^60": ([{**usage, "sums": {"requests": 2**63 - 1}}],),
    }
    async with place() as at:
        before = at.kept()
        for word, each in wrong.items():
            for lines in each:
                for mode in ("merge", "replace"):
                    body = {"mode": mode, "dry_run": False, "records": lines}
                    got = await at.admin.post("/admin/import", json=body)
                    assert got.status_code == 422 and word in got.json()["detail"], got.text
        assert at.kept() == before


async def test_a_file_of_very_many_mistakes_is_not_checked_to_its_end(tmp_path: Path) -> None:
    """Nor is one while Redis is away: each page would wait for it."""
    file = tmp_path / "wrong.jsonl"
    file.write_bytes(HEAD + b"".join([tenant(f"t{number}", modles=[]) for number in range(2000)]))
    async with place() as at:
        done = await at.run("import", file, "--merge")
        assert done.exit_code == 1 and done.output.count("modles") == 20 and "nothing was imported" in done.output
        assert "cut off" not in done.output, "its end was not read"


async def test_what_was_agreed_to_is_what_is_written(tmp_path: Path) -> None:
    """The file is read twice, and may change while a person reads what it would do."""
    file = tmp_path / "backup.jsonl"
    tenant = {"kind": "tenant", "name": "acme", "record": {"settings": {}, "created": 1, "changed": 1}}
    file.write_bytes(HEAD + line_of(tenant) + end_line(1, 0))
    async with place() as at:
        before = records(at)
        command = [sys.executable, "-c", "from gateway.cli.main import main; main()", "import", str(file), "--merge"]
        process = await asyncio.create_subprocess_exec(
            *command, "--admin", at.gateway.admin_url, stdin=PIPE, stdout=PIPE, stderr=STDOUT
        )
        assert process.stdin is not None and process.stdout is not None
        told = await process.stdout.readuntil(b"Go on?")
        assert b"added: tenant acme" in told
        file.write_bytes(HEAD + line_of({**tenant, "name": "evil"}) + end_line(1, 0))
        said, _ = await process.communicate(b"y\n")
        assert process.returncode == 1 and b"was changed meanwhile" in said, said
        assert records(at) == before
        os.mkfifo(tmp_path / "pipe")
        filler = asyncio.create_task(asyncio.to_thread((tmp_path / "pipe").write_bytes, file.read_bytes()))
        got = await at.run("import", tmp_path / "pipe", "--merge", "--yes")
        await asyncio.gather(filler, return_exceptions=True)
        assert got.exit_code == 1 and "read twice" in got.output


async def test_keys_that_a_deleted_tenant_left_do_not_come_back_with_an_import(tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    async with place() as at:
        await at.make("tenants", name="acme")
        made = await at.make("keys", tenant="acme")
        await at.comes_to(made["key"], 200)
        file.write_bytes(HEAD + tenant("acme") + end_line(1, 0))
        at.redis.do("HDEL", "fg1:{access}:tenants", "acme")  # a process that died between tenant and keys
        at.redis.do("INCR", "fg1:{access}:version")
        await at.comes_to(made["key"], 401)
        assert (await at.run("import", file, "--merge", "--yes")).exit_code == 0
        assert (await at.admin.get("/admin/tenants/acme")).json()["keys"] == 0
        assert await at.ask(made["key"]) == 401


async def test_a_long_export_is_read_page_by_page_and_requests_go_on(tmp_path: Path) -> None:
    """500 keys over two months: a stream of pages, while clients are answered."""
    hour = int(time.time()) // 3600
    async with place() as at:
        with at.redis.client() as redis:
            pipe = redis.pipeline(transaction=False)
            pipe.sadd("fg1:{usage}:tenants", "big")
            for back in range(60):
                fields = {f"m key_{number:016x} requests": 1 for number in range(500)}
                pipe.hset(f"fg1:{{usage}}:d:{hour // 24 - back}:big", mapping=fields)
            for back in range(24):
                pipe.hset(f"fg1:{{usage}}:h:{hour - back}:big", mapping=fields)
            pipe.execute()
        answered = 0
        exporting = asyncio.create_task(at.run("export", tmp_path / "big.jsonl"))
        while not exporting.done():
            assert await at.ask(KEY) == 200
            answered += 1
        done = await exporting
        assert done.exit_code == 0, done.output
        lines = (tmp_path / "big.jsonl").read_text().splitlines()
        of_big = [line for line in lines if '"tenant":"big"' in line]
        assert len(of_big) == 84 * 500 and answered > 3
        got = await at.admin.get("/admin/export", params={"since": "2099-01-01"})
        assert '"kind":"usage"' not in got.text and got.text.splitlines()[-1].startswith('{"kind":"end"')
        at.redis.freeze()
        assert (await at.run("export", tmp_path / "big.jsonl")).exit_code == 1
        at.redis.thaw()
        assert len((tmp_path / "big.jsonl").read_text().splitlines()) == len(lines), "the old file stands"


async def test_a_gateway_without_redis_says_so(tmp_path: Path) -> None:
    async with running_gateway(ready=False) as gateway, httpx.AsyncClient(base_url=gateway.admin_url) as admin:
        got = await admin.get("/admin/export")
        assert got.status_code == 409 and "redis.url" in got.json()["remedy"]
        entry = {"kind": "tenant", "name": "a", "record": {"settings": {}, "created": 0, "changed": 0}}
        got = await admin.post("/admin/import", json={"mode": "merge", "dry_run": False, "records": [entry]})
        assert got.status_code == 409 and "access.stored" in got.json()["remedy"]


async def test_what_a_newer_gateway_has_written_is_not_replaced() -> None:
    """Its fields are not known here, and would be lost."""
    mine = json.loads(tenant("acme", limits={"requests_per_minute": 1}))
    async with place() as at:
        for newer in ({"settings": {}, "quota": 1}, {"settings": {"quota": 1}}):
            at.redis.do("HSET", "fg1:{access}:tenants", "acme", json.dumps({"created": 1, "changed": 1, **newer}))
            before = records(at)
            body = {"mode": "replace", "dry_run": False, "records": [mine]}
            got = await at.admin.post("/admin/import", json=body)
            assert got.status_code == 409 and "newer gateway" in got.json()["detail"], got.text
            kept = await at.admin.post("/admin/import", json={**body, "mode": "merge"})
            assert kept.status_code == 200 and records(at) == before


async def test_everything_that_is_exported_can_be_imported(tmp_path: Path) -> None:
    """Models by names with blanks, and tenants of very many settings. What is no record is told."""
    file = tmp_path / "backup.jsonl"
    day = int(time.time()) // 86_400
    async with place() as at:
        at.redis.do("SADD", "fg1:{usage}:tenants", "acme")
        at.redis.do("HSET", f"fg1:{{usage}}:d:{day}:acme", "my\u00a0own model k requests", 3)
        at.redis.do("HSET", "fg1:{access}:keys", "key_broken", "[1")
        names = [f"{number:05d}{'x' * 120}" for number in range(6000)]
        await at.make("tenants", name="big", models=names)
        more = [{"model": name} for name in names]
        got = await at.admin.patch("/admin/tenants/big", json={"per_model": more[:1000]})
        assert got.status_code == 422 and "more than 900000 bytes" in got.json()["detail"], got.text
        done = await at.run("export", file)
        assert done.exit_code == 0 and "1 records of Redis could not be read" in done.output, done.output
        assert "could not be read" in (await at.run("export", "-")).output
        before = at.kept()
        at.redis.flush()
        done = await at.run("import", file, "--merge", "--yes")
        assert done.exit_code == 0, done.output
        for name in (b"fg1:{access}:tenants", f"fg1:{{usage}}:d:{day}:acme".encode()):
            assert at.kept()[name] == before[name]


async def test_a_blocked_key_opens_nothing_after_an_import(tmp_path: Path) -> None:
    """On no other gateway either, which reads the blocks only once a second."""
    file = tmp_path / "backup.jsonl"
    async with place() as at:
        await at.make("tenants", name="acme")
        leaked, ours = await at.make("keys", tenant="acme"), await at.make("keys", tenant="in-file")
        await at.make("block", key=leaked["id"])
        await at.make("block", tenant="in-file")
        assert (await at.run("export", file)).exit_code == 0
        lines = [json.loads(line) for line in file.read_text().splitlines()[1:-1]]
        at.redis.flush()
        shared: dict[str, Any] = {"redis": at.redis.settings, "access": {"stored": True}, "tenants": [IN_FILE]}
        async with scripted_node(plain) as node, running_gateway(node.url, **shared) as other:
            there = Place(other, at.redis, at.admin)
            assert other.app.blocks is not None
            await other.app.blocks.stop()  # its last look was before the import
            await at.make("import", mode="merge", dry_run=False, records=lines)
            for made in (leaked, ours):
                assert [await there.ask(made["key"]), await there.ask(made["key"])] == [403, 403]
            await other.app.blocks.refresh()
            assert await there.ask(leaked["key"]) == 403


def long_file(at: float) -> bytes:
    """Nine requests' worth of tenants, blocks and usage."""
    day = int(at) // 86_400 * 86_400
    lines = [line_of({"kind": "block", "subject": "tenant:t1", "who": "ada", "at": at, "reason": "leaked"})]
    record = {"settings": {}, "created": at, "changed": at}
    lines += [line_of({"kind": "tenant", "name": f"t{number}", "record": record}) for number in range(400)]
    for number in range(1200):
        named = {"tenant": f"t{number % 400}", "model": f"m{number // 400}", "key": "k"}
        lines.append(line_of({"kind": "usage", "per": "day", "at": day, **named, "sums": {"requests": number + 1}}))
    return HEAD + b"".join(lines) + end_line(len(lines), 0)


@pytest.mark.parametrize("mode", ["--merge", "--replace"])
async def test_an_import_that_is_killed_goes_on_when_it_is_repeated(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    file.write_bytes(long_file(time.time()))
    async with place() as at:
        assert (await at.run("import", file, mode, "--yes")).exit_code == 0
        whole = at.kept()
        at.redis.flush()
        command = [FLEETGATE, "import", file, mode, "--yes", "--admin", at.gateway.admin_url]
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=DEVNULL, stderr=DEVNULL)
        await eventually(lambda: at.redis.do("EXISTS", "fg1:{access}:tenants") or process.returncode is not None)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        assert (await at.run("import", file, mode, "--yes")).exit_code == 0
        assert imported(at.kept()) == imported(whole)
        again = await at.run("import", file, mode, "--yes")
        assert "nothing to change" in again.output


def imported(kept: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    return {name: each for name, each in kept.items() if b"{access}" in name or b"{usage}" in name}


async def test_an_import_that_fails_midway_says_that_it_can_be_repeated(tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    file.write_bytes(long_file(time.time()))
    async with place() as at:
        at.redis.do("SET", "fg1:{usage}:tenants", "of another type")
        failed = await at.run("import", file, "--merge", "--yes")
        assert failed.exit_code == 1
        assert "a part may have been written; import again" in " ".join(failed.output.split()), failed.output
        at.redis.do("DEL", "fg1:{usage}:tenants")
        done = await at.run("import", file, "--merge", "--yes")
        assert done.exit_code == 0 and "unchanged: 401; sums of usage: 1200 added" in done.output
