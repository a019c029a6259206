"""Which class a request has: lowered by key, header and tier, never raised."""

from itertools import product
from typing import Any

import pytest

from gateway.core.admission.service_classes import USUAL_CLASSES, ServiceClass, ServiceClasses
from gateway.core.errors import InvalidRequest

NAMES = [each.name for each in USUAL_CLASSES.all]
TIERS = {"priority": "interactive", "default": "standard", "flex": "batch"}


@pytest.mark.parametrize("tenant", [None, *NAMES])
def test_the_lowest_of_all_that_was_said_counts_and_never_a_higher_one_than_the_tenants(tenant: str | None) -> None:
    tiers: list[Any] = [None, "auto", "unknown", 7, [], *TIERS]
    for key, header, tier in product([None, *NAMES], [None, *NAMES], tiers):
        chosen = USUAL_CLASSES.of(tenant, key, None if header is None else header.encode(), tier)
        said = [tenant or "standard", key, header, TIERS.get(tier) if isinstance(tier, str) else None]
        assert NAMES.index(chosen.name) == max(NAMES.index(name) for name in said if name is not None)


def test_names_that_are_not_configured_count_as_none() -> None:
    assert USUAL_CLASSES.of("gone", "gone, too", None, None).name == "standard"


@pytest.mark.parametrize("header", [b"", b"first", b"batch, standard", b"\xff\x00"])
def test_a_header_that_names_no_class_is_told_which_there_are(header: bytes) -> None:
    with pytest.raises(InvalidRequest, match="interactive, standard, batch"):
        USUAL_CLASSES.of(None, None, header, None)


def test_a_header_is_read_in_any_case() -> None:
    assert USUAL_CLASSES.of(None, None, b" Batch ", None).headers == ((b"x-fleetgate-class", b"batch"),)


def test_of_two_classes_with_one_tier_it_means_the_higher_one() -> None:
    classes = ServiceClasses([ServiceClass("a", tiers=("flex",)), ServiceClass("b", tiers=("flex",), rank=1)], "a")
    assert classes.of(None, None, None, "flex").name == "a"
    assert classes.default.name == "a"
