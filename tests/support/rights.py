"""The rights of Redis users as docs/redis.md lists them, and everything that a gateway does with Redis."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path

from redis import RedisCluster

from gateway.access.audit import Audit, AuditEvent
from gateway.access.directory import Directory, KeysLeft
from gateway.access.keyring import Keyring, RecordReaders
from gateway.access.new_keys import make_key
from gateway.config.access import read_grant, read_tenant
from gateway.core.access.tenants import Tenants
from gateway.core.admission.fair_order import Turn
from gateway.core.errors import KeysUnknown
from gateway.core.fleet.capabilities import Capabilities
from gateway.core.fleet.found_node import FoundNode
from gateway.core.fleet.registration import RegistrationTrust
from gateway.core.limits.rules import Limits, rules_of
from gateway.core.pressure.factor import FactorRules
from gateway.core.responses.kept_ids import Place
from gateway.core.routing.placement import Placement
from gateway.core.routing.selection import Candidate, PlacedPrompt
from gateway.core.telemetry.request_stats import RequestStats
from gateway.core.usage.ledger import HOUR
from gateway.core.usage.token_usage import Usage
from gateway.fleet.drains import Drains
from gateway.fleet.fleet import Fleet
from gateway.fleet.node import Lease, Node
from gateway.fleet.node_sources import NodeSources
from gateway.fleet.node_spec import NodeSpec
from gateway.fleet.peer_views import PeerViews
from gateway.fleet.probe_sharing import ProbeSharing
from gateway.fleet.registrations import RegistrationRules, Registrations
from gateway.limits.rulesets import Ruleset
from gateway.limits.stores import RedisStore
from gateway.pressure.shared_factor import SharedFactor
from gateway.redis.client import RedisClient, RedisSettings, RedisUnavailable
from gateway.redis.presence import Presence
from gateway.responses.turns import Outcome, Turns
from gateway.routing.router import Router, RoutingRules
from gateway.routing.shared_placement import SharedTurn
from gateway.usage.ledger import Ledger, UsageRetention
from gateway.usage.report import UsageReport
from gateway.usage.transfer import UsageTransfer, read_entry
from tests.limits.awaited import AwaitedStore
from tests.support.redis import RedisServer
from tests.support.registrations import record
from workers.registration import INDEX_KEY, KEY_PREFIX

DOCS = Path(__file__).parents[2] / "docs" / "redis.md"
READING = RecordReaders(lambda name, settings: read_tenant(b"secret", name, settings), read_grant)
RULES = Ruleset.of(rules_of(Limits(tokens_per_day=1000, requests_per_minute=60, concurrent_requests=5), "t"))
NODE = "http://10.0.0.1:8000"


def documented(mark: str) -> list[str]:
    """The words of an ACL rule in the documentation, from its key patterns on."""
    found = re.search(rf"<!-- {mark} -->\n```\nACL SETUSER \S+ on >PASSWORD (.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None, f"docs/redis.md has lost its list: {mark}"
    return found[1].split()


def give(redis: RedisServer, user: str, rights: list[str]) -> str:
    """Have `user` with just these rights; returns a URL."""
    redis.do("ACL", "SETUSER", user, "reset", "on", ">pw", *rights)
    return redis.url.replace("://", f"://{user}:pw@")


@contextlib.asynccontextmanager
async def linked_as(redis: RedisServer, url: str) -> AsyncIterator[RedisClient]:
    link = RedisClient(RedisSettings(url, redis.cluster, timeout=5.0, connect_timeout=5.0))
    await link.start()
    try:
        yield link
    finally:
        await link.stop()


async def use_everything(redis: RedisServer, link: RedisClient) -> list[str]:
    """Do all that a gateway does with Redis; returns what did not work."""
    uses = (
        _limits,
        _keys,
        _usage,
        _presence,
        _peer_views,
        _placement,
        _drains,
        _registrations,
        _audit,
        _pressure,
        _probes,
        _responses,
    )
    failed = []
    for use in uses:
        try:
            await use(redis, link)
        except (AssertionError, RedisUnavailable, KeysUnknown, KeysLeft) as error:
            failed.append(f"{use.__name__}: {type(error).__name__} {error}")
    return failed


async def _limits(_: RedisServer, link: RedisClient) -> None:
    store = AwaitedStore(RedisStore(link, lease=0.001))
    assert (await store.reserve("acme", "first", RULES, (1,) * len(RULES.rules))).granted
    await store.renew("acme", ["first"])
    await asyncio.sleep(0.01)  # its lease runs out
    assert (await store.reserve("acme", "second", RULES, (1,) * len(RULES.rules))).granted
    await store.settle("acme", "second", RULES, (1,) * len(RULES.rules))


async def _responses(_: RedisServer, link: RedisClient) -> None:
    turns, conversation = Turns(link), f"{time.monotonic_ns():024x}"
    first, second = Place(conversation, "1" * 16), Place(conversation, "2" * 16)
    record = b"0" * 32 + b"sealed"
    assert (await turns.keep("acme", first, None, "", record, 60.0, 10**6)).outcome is Outcome.STORED
    small = 10**3  # so that the first conversation has to make room
    another = Place(f"{time.monotonic_ns():024x}", "3" * 16)
    assert (await turns.keep("acme", another, None, "", record, 60.0, small)).evicted
    assert (await turns.keep("acme", second, None, "", record, 60.0, 10**6)).outcome is Outcome.STORED
    following = Place(conversation, "4" * 16)
    after = second.turn.encode() + record[16:]
    assert (await turns.keep("acme", following, second.turn, "", after, 60.0, 10**6)).outcome is Outcome.STORED
    assert len(await turns.walk("acme", following, 10**6, int)) == 2
    assert await turns.read("acme", conversation, [second.turn], int) == [record]
    assert await turns.delete("acme", second) and await turns.delete("acme", following)


async def _keys(_: RedisServer, link: RedisClient) -> None:
    directory, ring = Directory(link, 100), Keyring(link, READING, Tenants(), 100, 60.0)
    name = f"tenant-{time.monotonic_ns()}"
    await directory.create_tenant("who", name, {})
    written = await directory.tenant(name)
    assert written is not None
    await directory.import_records("who", [(written, written)], [], [name], {})
    written = (await directory.kept_tenants([name]))[name]
    await directory.set_tenant("who", written, {"models": ["m"]}, {})
    digests = [bytes.fromhex(make_key()[1]) for _ in range(3)]
    made = [await directory.create_key("who", name, digest, {}, in_file=False) for digest in digests[:2]]
    await ring.refresh()
    assert await ring.find(digests[0]) is not None and ring.known(digests[1]) is not None
    ring._usage._flushed = float("-inf")  # its next flush is due
    await ring.refresh()
    assert made[0].id in await directory.last_used()
    kept = [await directory.key(key.id) for key in made]
    assert kept[0] is not None and kept[1] is not None
    await directory.rotate_key("who", kept[0], digests[2], {}, {})
    await directory.revoke_key("who", kept[1])
    await ring.refresh()
    assert ring.known(digests[1]) is None
    read = await directory.tenant(name)
    assert read is not None and name in [found.name for found in await directory.tenants()]
    assert await directory.delete_tenant("who", read) == 2


async def _usage(_: RedisServer, link: RedisClient) -> None:
    ledger, now = Ledger(link, UsageRetention(100, 10, 10), {}), time.time()
    ledger.request_ended(
        RequestStats(*("r", "chat", "acme", "k", "m", "n", False, 200, "ok", 1, 9, Usage(1, 1)), at=now)
    )
    assert await ledger.flush()
    report = UsageReport(link)
    assert await report.rows(await report.tenants(), now - HOUR, now + HOUR, HOUR)
    transfer = UsageTransfer(link, UsageRetention(100, 10, 10))
    entries = [read_entry(entry) async for entry in transfer.entries(None)]
    assert len(entries) == 2
    changed = [entry._replace(sums=entry.sums._replace(input=0, output=3)) for entry in entries]
    assert (await transfer.write(changed, replace=True, dry=False)).changed == 2


async def _presence(_: RedisServer, link: RedisClient) -> None:
    other, presence = Presence(link), Presence(link)
    await other.start()
    await presence.start()
    lived = presence.live
    await presence.stop()
    await other.stop()
    assert lived == 2


async def _peer_views(_: RedisServer, link: RedisClient) -> None:
    fleet = Fleet()
    fleet.share_with(2)
    one, other = PeerViews(fleet, link, None), PeerViews(fleet, link, None)
    await one.exchange({})
    seen = await other.exchange({})
    await one.withdraw()
    await other.withdraw()
    assert len(seen) == 1


async def _placement(_: RedisServer, link: RedisClient) -> None:
    router = Router(Fleet(), RoutingRules(), Placement(), link)
    assert router.groups is not None
    shared, places = router.groups.common.placement, router.groups.common.places
    assert shared is not None and places is not None
    await places.start()
    nodes = [Candidate("a:1", 0.001, bound=2), Candidate("b:1", 0.001)]
    prompt = PlacedPrompt(100, b"conversation")
    turn = SharedTurn("m", Turn("standard", "t", 1.0, 1.0, 5.0), "1|0|", {"standard": True})
    for request in (b"1", b"1"):  # the answer was lost: the same one again
        placed = shared.read(await shared.choose(request, nodes, prompt, turn), nodes, prompt, turn)
        assert placed.score is not None and placed.score.node in ("a:1", "b:1")
    shared.prefilled(b"1")
    places.correct("m", "standard", 3)
    places.adopt(Lease(Node(NodeSpec("http://a:1"))))
    places.give_back(b"1")
    places.cancel(b"2", turn)
    await places.stop()
    await link.submit(("GET", "fg1:{route}:last:none"))  # answered after it


async def _drains(_: RedisServer, link: RedisClient) -> None:
    drains = Drains(Fleet(), link, None, lambda _: None)
    await drains.drain(f"node-{time.monotonic_ns()}:8000", 1.0)
    assert drains.synced


async def _registrations(redis: RedisServer, link: RedisClient) -> None:
    found: list[str] = []
    written = record(NODE)
    with redis.client() if not redis.cluster else RedisCluster.from_url(redis.url) as client:
        client.set(KEY_PREFIX + written.node_id, written.wire(None))
        client.zadd(INDEX_KEY, {written.node_id: time.time() + 60})
    sources = NodeSources(["registrations"], lambda specs: found.extend(spec.url for spec in specs))
    rules = RegistrationRules(RegistrationTrust(networks=(ip_network("10.0.0.0/8"),)))
    await Registrations(link, rules, sources, Fleet()).poll()
    assert found == [NODE]


async def _pressure(_: RedisServer, link: RedisClient) -> None:
    factor, rules = SharedFactor("m", link), FactorRules(hold=0.0)
    await factor.refresh(rules, 1000.0, 0.0)
    assert factor.seen, "it lies in Redis"


async def _probes(_: RedisServer, link: RedisClient) -> None:
    fleet, url = Fleet(), "http://10.0.0.1:8000"
    fleet.share_with(2)
    one, other = ProbeSharing(link, fleet), ProbeSharing(link, fleet)
    for each in (one, other, one):
        await each.exchange()
    one.tell(FoundNode(url, asyncio.get_running_loop().time(), "models"))
    await one.exchange()
    told = await other.exchange()
    await one.prove(url, 1.0, Capabilities(native_budget=True))
    proven = await other.proven(url, 1.0, Capabilities())
    await one.leave()
    await other.leave()
    assert [found.url for found in told] == [url]
    assert proven == Capabilities(native_budget=True)


async def _audit(_: RedisServer, link: RedisClient) -> None:
    audit = Audit(link, 100)
    subject = str(time.monotonic_ns())
    await audit.note(AuditEvent("who", "node drained", subject, {}))
    assert [line.event.subject for line in await audit.read(0.0, 1)] == [subject]
