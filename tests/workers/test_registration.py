"""The registration record: its contract file, its schema, its signature, and how it lives in Redis."""

import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from workers.registration import Registration, json_schema, sign

ROOT = Path(__file__).parents[2]
CONTRACT = json.loads((ROOT / "tests" / "contract" / "registration-v1.json").read_text())
CASES = [pytest.param(entry, id=entry["case"]) for entry in CONTRACT["records"]]


@pytest.mark.parametrize("entry", CASES)
def test_records_of_the_contract_are_written_as_they_stand(entry: dict[str, Any]) -> None:
    record = Registration.model_validate(entry["wire"])
    secret = CONTRACT["secret"] if entry["signed"] else None
    assert json.loads(record.wire(secret)) == entry["wire"]


@pytest.mark.parametrize("entry", [case for case in CASES if case.values[0]["signed"]])  # type: ignore[index]
def test_signatures_are_what_the_page_says(entry: dict[str, Any]) -> None:
    record = dict(entry["wire"])
    signature = record.pop("signature")
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    assert signature == hmac.new(CONTRACT["secret"].encode(), canonical.encode(), hashlib.sha256).hexdigest()
    assert sign(record | {"url": "http://evil"}, CONTRACT["secret"]) != signature


def test_the_schema_beside_the_page_is_current() -> None:
    assert json.loads((ROOT / "docs" / "registration.schema.json").read_text()) == json_schema()


def test_every_field_is_on_the_page() -> None:
    page = (ROOT / "docs" / "registration.md").read_text()
    for name in json_schema()["properties"]:  # type: ignore[attr-defined]
        assert f"`{name}`" in page


@pytest.mark.parametrize(
    "wrong",
    [{"schema": 2}, {"state": "bored"}, {"url": "ftp://x"}, {"models": []}, {"node_id": "a b"}, {"weight": 0}],
)
def test_what_is_no_record_of_this_version_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Registration.model_validate(CONTRACT["records"][0]["wire"] | wrong)


def test_a_field_of_a_newer_writer_is_ignored() -> None:
    assert Registration.model_validate(CONTRACT["records"][0]["wire"] | {"colour": "green", "signature": "x"})


def test_times_are_unix_seconds() -> None:
    assert 1_700_000_000 < CONTRACT["records"][0]["wire"]["heartbeat_at"] < time.time() + 10 * 365 * 86_400
