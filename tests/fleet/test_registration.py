"""Which records are believed: the contract's own, and what makes one unbelievable."""

import hashlib
import hmac
import ipaddress
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gateway.core.fleet.launch_facts import LONGEST, LaunchFacts
from gateway.core.fleet.registration import (
    KnownRegistrations,
    RegisteredNode,
    RegistrationTrust,
    UntrustedRegistration,
    read_registration,
)

CONTRACT = json.loads((Path(__file__).parents[1] / "contract" / "registration-v1.json").read_text())
SECRET: str = CONTRACT["secret"]
SIGNED = RegistrationTrust(secret=SECRET)
LISTED = RegistrationTrust(networks=(ipaddress.ip_network("10.0.0.0/8"),), models=frozenset({"nemotron-3-ultra"}))
READY: dict[str, Any] = CONTRACT["records"][0]["wire"]
NOW: float = READY["heartbeat_at"] + 1


def signed(**changes: Any) -> bytes:
    record = {key: value for key, value in {**READY, **changes}.items() if key != "signature"}
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**record, "signature": hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()}).encode()


def read(text: bytes, trust: RegistrationTrust = SIGNED, now: float = NOW) -> RegisteredNode:
    return read_registration(text, trust, now)


@pytest.mark.parametrize("case", CONTRACT["records"], ids=lambda case: str(case["case"]))
def test_the_contracts_records_are_read(case: dict[str, Any]) -> None:
    wire = json.dumps(case["wire"]).encode()
    trust = SIGNED if case["signed"] else LISTED
    record = read(wire, trust)
    assert (record.node_id, record.url) == (case["wire"]["node_id"], "http://10.0.0.7:8000")
    assert (record.state, record.max_concurrency) == (case["wire"]["state"], 64)
    assert record.drain_deadline == case["wire"]["drain_deadline"]
    assert record.price == (None if case["wire"]["price"] is None else case["wire"]["price"]["usd_per_hour"])
    assert dict(record.labels) == case["wire"]["labels"]
    wire_price, canary = case["wire"]["price"], case["wire"]["canary"]
    assert record.launch == LaunchFacts(
        profile=case["wire"]["profile"],
        vllm_version=case["wire"]["vllm_version"],
        price_kind=wire_price and wire_price["kind"],
        max_model_len=case["wire"]["capacity"]["max_model_len"],
        warm_up=canary["warm_up"],
        thinking_budget=canary["thinking_budget"],
    )
    assert [asdict(gpu) for gpu in record.gpus] == (case["wire"]["gpus"] or [])
    if not case["signed"]:
        with pytest.raises(UntrustedRegistration, match="not signed"):
            read(wire)


@pytest.mark.parametrize("field", ["url", "models", "state", "weight", "labels", "heartbeat_at"])
def test_a_signed_record_cannot_be_changed(field: str) -> None:
    other = {"url": "http://10.6.6.6:8000", "models": ["x"], "state": "failed", "weight": 2.0, "labels": {}}
    record = {**READY, field: other.get(field, NOW - 0.25)}
    with pytest.raises(UntrustedRegistration, match="not signed with the secret"):
        read(json.dumps(record).encode())


def test_fields_that_a_newer_writer_adds_are_signed_and_ignored() -> None:
    assert read(signed(colour="blue")).node_id == READY["node_id"]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"profile": 7, "vllm_version": ["x"], "canary": "obeyed", "capacity": {"max_concurrency": 64}},
        {"profile": "a\nb", "canary": {"warm_up": 1, "thinking_budget": {}}, "vllm_version": None},
        {"capacity": {"max_concurrency": 64, "max_model_len": "32768"}, "price": {"usd_per_hour": 1, "kind": 3}},
        {"capacity": {"max_concurrency": 64, "max_model_len": True}, "canary": []},
    ],
)
def test_a_node_serves_whatever_its_record_says_of_its_launch(told: dict[str, Any]) -> None:
    """Written by something else than the launcher, say: what cannot be read is left out."""
    names = {"profile", "vllm_version", "canary", "price"}
    record = {key: value for key, value in READY.items() if key not in names}
    record["capacity"] = {"max_concurrency": 64}
    text = json.dumps(record | told).encode()
    assert read(text, LISTED).launch == LaunchFacts()


def test_a_long_text_of_a_record_is_cut() -> None:
    assert read(signed(profile="p" * 10_000)).launch.profile == "p" * LONGEST


@pytest.mark.parametrize("gpus", ["many", {"0": {}}, [{"index": "zero"}], [{}], 8])
def test_gpus_that_cannot_be_read_cost_no_node(gpus: Any) -> None:
    assert read(signed(gpus=gpus)).gpus == ()


def test_a_record_of_an_older_launcher_has_no_gpus() -> None:
    older = {key: value for key, value in READY.items() if key not in ("gpus", "signature")}
    assert read(json.dumps(older).encode(), LISTED).gpus == ()


def test_an_old_record_cannot_be_played_again() -> None:
    assert read(signed(), now=READY["heartbeat_at"] + 24)
    with pytest.raises(UntrustedRegistration, match="26 s old"):
        read(signed(), now=READY["heartbeat_at"] + 26)
    with pytest.raises(UntrustedRegistration, match="clocks differ"):
        read(signed(), now=READY["heartbeat_at"] - 6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"url": "http://192.168.0.7:8000"}, "192.168.0.7 is in none of the listed"),
        ({"url": "http://gpu-7:8000"}, "'gpu-7' is a name"),
        ({"models": ["nemotron-3-ultra", "other"]}, "it serves other"),
        ({"models": []}, "it serves nothing"),
    ],
)
def test_an_unsigned_record_is_believed_within_what_is_listed(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UntrustedRegistration, match=reason):
        read(json.dumps({**READY, **changes}).encode(), LISTED)


def test_lists_bound_signed_records_too() -> None:
    both = RegistrationTrust(SECRET, LISTED.networks, LISTED.models)
    assert read(signed(), both)
    with pytest.raises(UntrustedRegistration):
        read(signed(url="http://192.168.0.7:8000"), both)
    assert read(signed(url="http://gpu-7:8000")).url == "http://gpu-7:8000"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"schema": 1}',
        signed(schema=2),
        signed(url="file:///etc/passwd"),
        signed(url="http://10.0.0.7:8000/v1"),
        signed(url=None),
        signed(weight=0),
        signed(weight="nan"),
        signed(state="asleep"),
        signed(capacity=None),
        signed(heartbeat_at="soon"),
        signed(labels=[]),
    ],
)
def test_what_is_no_record_is_refused_and_not_more(text: bytes) -> None:
    with pytest.raises(UntrustedRegistration):
        read(text)


LISTED_READY = {key: value for key, value in READY.items() if key != "signature"}


def test_a_record_that_was_renewed_is_the_same_and_its_heartbeat_counts() -> None:
    known = KnownRegistrations()

    def read_known(now: float, **changes: Any) -> RegisteredNode:
        return known.read("n", json.dumps({**LISTED_READY, "heartbeat_at": now, **changes}).encode(), LISTED, now)

    first = read_known(NOW)
    assert read_known(NOW + 5) is first
    assert read_known(NOW + 10, weight=2.0).weight == 2.0
    assert read_known(NOW + 15).weight == first.weight
    with pytest.raises(UntrustedRegistration, match="heartbeat is 60 s old"):
        read_known(NOW + 80, heartbeat_at=NOW + 20)
    with pytest.raises(UntrustedRegistration, match="which is not listed"):
        read_known(NOW + 80, models=["other"])
    known.keep(())
    assert read_known(NOW + 90) is not first


def test_a_signature_is_checked_with_every_heartbeat() -> None:
    known = KnownRegistrations()
    known.read("n", signed(), SIGNED, NOW)
    forged = json.loads(signed()) | {"heartbeat_at": NOW}
    with pytest.raises(UntrustedRegistration, match="not signed"):
        known.read("n", json.dumps(forged).encode(), SIGNED, NOW)
