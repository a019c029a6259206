"""What stands in Redis may be of another version of the gateway."""

from typing import Any

import pytest

from gateway.access.records import KeyRecord, TenantRecord
from gateway.config.access import read_grant, read_tenant


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


@pytest.mark.parametrize("raw", [b"\xff", b"", b"[]", b"7", b"{}", b'{"settings": [], "created": 1, "changed": 1}'])
def test_what_is_no_record_is_skipped(raw: bytes) -> None:
    assert TenantRecord.parse("acme", raw) is None
    assert KeyRecord.parse("key_00", raw) is None
