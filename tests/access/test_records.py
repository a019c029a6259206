"""What stands in Redis may be of another version of the gateway."""

import json
from typing import Any

import pytest

from gateway.access.records import KeyRecord, TenantRecord
from gateway.config.access import TenantSettings, newer_settings, read_grant, read_tenant


@pytest.mark.parametrize(
    "settings",
    [
        {"models": ["a"], "colour": "red"},
        {"models": ["a"], "limits": {"requests_per_minute": 5, "dances_per_minute": 1}},
        {"models": ["a"], "model_limits": [{"model": "a", "dances_per_minute": 1}]},
    ],
)
def test_what_only_a_newer_gateway_knows_is_left_out(settings: dict[str, Any]) -> None:
    tenant = read_tenant(b"secret", "acme", settings)
    assert tenant is not None and tenant.models == frozenset({"a"})
    assert (tenant.limits is not None) is ("limits" in settings)


def test_what_makes_no_sense_opens_nothing() -> None:
    assert read_tenant(b"secret", "acme", {"models": "all"}) is None
    assert read_grant("acme", b"\0" * 32, {"expires": "soon", "colour": "red"}) is None


def test_records_read_as_they_were_written() -> None:
    tenant = TenantRecord("acme", {"models": ["a"]}, 1.5, 2.25)
    key = KeyRecord("key_00", "00", "acme", {"label": "é"}, 1.5, "key_01")
    read_back, key_back = TenantRecord.parse("acme", tenant.dump()), KeyRecord.parse("key_00", key.dump())
    assert read_back is not None and read_back.dump() == tenant.dump() and not read_back.newer
    assert key_back is not None and key_back.dump() == key.dump() and not key_back.newer


OLD = {
    "limits": {"thinking_tokens_per_minute": 5},
    "per_model": [{"model": "m", "limits": {"thinking_tokens_per_minute": 6}}],
}
NEW: dict[str, Any] = json.loads(json.dumps(OLD).replace("thinking_tokens", "reasoning_tokens"))


def test_records_of_older_gateways_are_read_and_theirs_is_what_is_written() -> None:
    times = {"created": 1.0, "changed": 1.0}
    for stored in (OLD, NEW):
        tenant = TenantRecord.parse("acme", json.dumps({"settings": stored, **times}).encode())
        assert tenant is not None and tenant.settings == NEW
        assert json.loads(tenant.dump())["settings"] == OLD, "an older gateway leaves out what it does not know"
        assert not newer_settings(TenantSettings, tenant.settings)
    raw = json.dumps({"digest": "00", "tenant": "acme", "settings": {"limits": OLD["limits"]}, "created": 1.0})
    key = KeyRecord.parse("key_00", raw.encode())
    assert key is not None and key.settings == {"limits": NEW["limits"]}
    assert json.loads(key.dump())["settings"] == {"limits": OLD["limits"]}


@pytest.mark.parametrize("raw", [b"\xff", b"", b"[]", b"7", b"{}", b'{"settings": [], "created": 1, "changed": 1}'])
def test_what_is_no_record_is_skipped(raw: bytes) -> None:
    assert TenantRecord.parse("acme", raw) is None
    assert KeyRecord.parse("key_00", raw) is None
